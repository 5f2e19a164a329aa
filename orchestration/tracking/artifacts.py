"""Upload and download the artifacts of MLflow runs and models."""

from __future__ import annotations

import re
import shutil
import tempfile
from functools import partial
from pathlib import Path

import mlflow.artifacts
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from orchestration.config.credentials import without_passwords
from orchestration.config.storage_layout import MODEL_FACTS_FILE, PROGRAM_FILE
from orchestration.tracking.client import RecordError, connected
from orchestration.tracking.mlmodel import DATA, EXTRA
from orchestration.tracking.retries import PatientClient

TEXTS = frozenset({".csv", ".json", ".md", ".txt", ".yaml"})
"""Suffixes of text files, which may contain addresses with passwords."""


def upload(client: PatientClient, folder: Path, location: str) -> None:
    """Upload all files below a folder, with retries for each file.

    Args:
        client: of the MLflow server or database that owns `location`.
        folder: passwords in its text files are removed before the upload.
        location: the artifact URI of a run or the artifact location of a model. Resolving it from
            an id would take another request.
    """
    repository = get_artifact_repository(location, tracking_uri=client.tracking_uri)
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


def fetch_model(uri: str, tracking_uri: str, folder: Path) -> Path:
    """Download a recorded model to `folder`, in the form that `export.load_model` reads.

    Args:
        uri: `models:/digits-mobile/1`, `models:/digits-mobile@best` or `runs:/<run id>`.
        tracking_uri: as for `record_job`.
        folder: created if missing.

    Raises:
        RecordError: there is no such model, or it was not recorded by this project.
    """
    with connected(tracking_uri) as client, tempfile.TemporaryDirectory() as temporary:
        # MLflow resolves such URIs with the tracking URI of the process, which may be another.
        location = _location(client, uri)
        fetch = mlflow.artifacts.download_artifacts
        downloaded = Path(
            client.patience.until_done(lambda: fetch(location, None, None, temporary, tracking_uri))
        )
        if not (
            (downloaded / DATA / PROGRAM_FILE).is_file()
            and (downloaded / EXTRA / MODEL_FACTS_FILE).is_file()
        ):
            raise RecordError(
                f"{uri} has no {PROGRAM_FILE} and {MODEL_FACTS_FILE}; expected a model of a job"
            )
        folder.mkdir(parents=True, exist_ok=True)
        for path in [downloaded / DATA / PROGRAM_FILE, *(downloaded / EXTRA).iterdir()]:
            shutil.copy(path, folder)
    return folder


def _location(client: PatientClient, uri: str) -> str:
    """Location of the artifacts of the model named by a URI."""
    if match := re.fullmatch(r"runs:/([^/]+)(/.*)?", uri):
        outputs = client.get_run(match[1]).outputs
        if not outputs or not outputs.model_outputs:
            raise RecordError(f"{uri} has no model; expected the run of a retraining")
        return str(client.get_logged_model(outputs.model_outputs[0].model_id).artifact_location)
    if match := re.fullmatch(r"models:/([^/@]+)/(\d+)", uri):
        return str(client.get_model_version_download_uri(match[1], match[2]))
    if match := re.fullmatch(r"models:/([^/@]+)@([^/]+)", uri):
        version = client.get_model_version_by_alias(match[1], match[2]).version
        return str(client.get_model_version_download_uri(match[1], version))
    raise RecordError(
        f"{uri!r} names no model; expected e.g. models:/digits-mobile/1, "
        "models:/digits-mobile@best or runs:/<run id>"
    )
