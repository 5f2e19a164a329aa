"""Networks named on the command line: a file, the folder of a case, or a published name."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, cast

from cluster.storage import Storage, StorageError
from nas_core.architecture import Architecture
from nas_core.published import NAMES
from nas_core.published import architecture as published
from orchestration.config.loading import SpecError
from orchestration.config.storage_layout import (
    ARCHITECTURE_FILE,
    CASES,
    RESULT_FILE,
    case_folder,
    is_result_format,
)
from orchestration.state.job_folder import is_job, named_folder
from orchestration.state.result import Result

EXPECTED = (
    f"an {ARCHITECTURE_FILE}, a {RESULT_FILE}, the folder of a case "
    f"(<storage>/<job>/cases/<case>), or one of {', '.join(NAMES)}"
)


@dataclass(frozen=True)
class NamedNetwork:
    """A network, with its result and storage if it has them."""

    name: str
    architecture: Architecture
    result: Result | None = None
    """The content of its `result.json`, if it has one."""
    storage: str | None = None
    """Storage of its case; None if it is not in the folder of a case."""


def named_network(text: str) -> NamedNetwork:
    """Load the network that `text` names.

    Raises:
        SpecError: there is none, it cannot be read, or it has no sites (a baseline).
    """
    folder = named_folder(text or ".")
    for name in (RESULT_FILE, ARCHITECTURE_FILE):
        if folder.exists(name):
            return _of_file(folder, name)
    if is_job(folder):
        raise SpecError(f"{folder.uri} is the folder of a job; {_networks_in(folder)}")
    if folder.is_local and folder.path().is_dir():
        raise SpecError(
            f"{folder.uri} has neither {RESULT_FILE} nor {ARCHITECTURE_FILE}; expected {EXPECTED}"
        )
    if folder.parent.exists(folder.name):
        return _of_file(folder.parent, folder.name)
    if text in NAMES:
        return NamedNetwork(text, published(text))
    raise SpecError(f"{text} is no file; expected {EXPECTED}")


def _networks_in(job: Storage) -> str:
    cases = [case_folder(name) for name in job.folders(CASES)]
    networks = [case for case in cases if job.exists(f"{case}/{ARCHITECTURE_FILE}")]
    return (
        f"name one of its networks: {', '.join(networks)}" if networks else "it has no network yet"
    )


def _of_file(folder: Storage, name: str) -> NamedNetwork:
    values = _read(folder, name)
    if is_result_format(str(values.get("format"))):
        return _of_result(cast(Result, values), folder, name)
    network = _architecture(values, folder.where(name))
    if (
        folder.exists(RESULT_FILE)
        and (result := _read(folder, RESULT_FILE)).get("architecture") == values
    ):
        return _of_result(cast(Result, result), folder, RESULT_FILE)
    return NamedNetwork(name.rpartition(".")[0] or name, network)


def _of_result(values: Result, folder: Storage, file: str) -> NamedNetwork:
    name = str(values.get("case", file.rpartition(".")[0]))
    network = _architecture(values.get("architecture", {}), folder.where(file))
    is_case = folder.uri.split("/")[-2:-1] == [CASES]
    return NamedNetwork(name, network, values, folder.parent.parent.parent.uri if is_case else None)


def _architecture(values: Any, path: str) -> Architecture:
    if isinstance(values, dict) and str(values.get("format")).startswith("baseline/"):
        raise SpecError(
            f"{path} is the baseline '{values.get('name')}', which has no sites to be drawn; "
            "expected a network of a search space"
        )
    try:
        return Architecture.from_dict(values)
    except ValueError as error:
        raise SpecError(f"{path}: {error}; expected {EXPECTED}") from None


def _read(folder: Storage, name: str) -> dict[str, Any]:
    try:
        values = json.loads(folder.read_bytes(name))
    except StorageError as error:
        raise SpecError(str(error)) from None
    except ValueError as error:  # neither text nor JSON
        raise SpecError(
            f"{folder.where(name)} is not JSON ({error}); expected {EXPECTED}"
        ) from None
    if not isinstance(values, dict):
        raise SpecError(f"{folder.where(name)} is no network; expected {EXPECTED}")
    return values
