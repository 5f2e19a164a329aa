"""The images of a job as a data set of MLflow: where they are from, how many, which content."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from mlflow.data.code_dataset_source import CodeDatasetSource
from mlflow.data.dataset import Dataset
from mlflow.data.dataset_source import DatasetSource
from mlflow.data.dataset_source_registry import resolve_dataset_source
from mlflow.data.sources import LocalArtifactDatasetSource
from mlflow.entities import DatasetInput, InputTag

CONTEXT = "mlflow.data.context"
"""What the data is used for, as the UI shows it."""


class Images(Dataset):  # type: ignore[misc]  # MLflow says no types of it
    """Images with one label each, as a plan describes them."""

    def __init__(self, settings: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        """Describe them.

        Args:
            settings: the section `data` of the job.
            facts: `plan.data` of its `job.json`.
        """
        self._facts = facts
        source = _source(settings, facts)
        super().__init__(source, str(settings["source"]), self._compute_digest())

    def _compute_digest(self) -> str:
        fingerprint = str(self._facts["fingerprint"]).encode()
        return hashlib.sha256(fingerprint).hexdigest()[:8]

    @property
    def schema(self) -> None:
        """None: images are no table."""

    @property
    def profile(self) -> dict[str, Any]:
        """How many images there are, and of what."""
        names = ("count", "test_count", "resolution", "channels")
        profile = {name: self._facts[name] for name in names}
        return profile | {"classes": len(self._facts["classes"])}

    def to_dict(self) -> dict[str, str]:
        """What MLflow keeps."""
        values: dict[str, str] = super().to_dict()
        return values | {"profile": json.dumps(self.profile)}

    def as_input(self) -> DatasetInput:
        """The same as the input of a run."""
        return DatasetInput(self._to_mlflow_entity(), [InputTag(CONTEXT, "search and retraining")])


def _source(settings: Mapping[str, Any], facts: Mapping[str, Any]) -> DatasetSource:
    if str(settings.get("path")).startswith("s3://"):
        return resolve_dataset_source(settings["path"])
    if settings.get("path"):
        return LocalArtifactDatasetSource(str(settings["path"]))
    # Made by code: what it needs to be told to make the same ones.
    made = {"source": settings["source"], "fingerprint": facts["fingerprint"]}
    return CodeDatasetSource(made | {"resolution": facts["resolution"]})
