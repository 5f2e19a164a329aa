"""Put files where MLflow keeps those of a run or a model."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from orchestration.config.credentials import without_passwords
from orchestration.tracking.retries import PatientClient

TEXTS = frozenset({".csv", ".json", ".md", ".txt", ".yaml"})
"""Files that may hold addresses."""


def upload(client: PatientClient, folder: Path, place: str) -> None:
    """Put all files below a folder to a place, each of them again until it is there.

    Args:
        client: of the MLflow that the place belongs to.
        folder: passwords in its texts are removed from them.
        place: the artifact URI of a run or the artifact location of a model. Asking the client by
            their ids would be another request for each.
    """
    repository = get_artifact_repository(place, tracking_uri=client.tracking_uri)
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        _clean(path)
        below = path.parent.relative_to(folder).as_posix()
        put = partial(repository.log_artifact, str(path), None if below == "." else below)
        client.patience.until_done(put)


def _clean(path: Path) -> None:
    if path.suffix not in TEXTS:
        return
    text = path.read_text("utf-8")
    if (cleaned := without_passwords(text)) != text:
        path.write_text(cleaned, "utf-8")
