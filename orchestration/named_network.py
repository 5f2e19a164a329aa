"""A network as a person names it: a file, the folder of a case, or a published name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nas_core.architecture import Architecture
from nas_core.published import NAMES
from nas_core.published import architecture as published
from orchestration.job_folders import is_job
from orchestration.spec import SpecError

RESULT, ARCHITECTURE = "result.json", "architecture.json"
EXPECTED = (
    f"an {ARCHITECTURE}, a {RESULT}, the folder of a case (<storage>/<job>/cases/<case>), "
    f"or one of {', '.join(NAMES)}"
)
Values = Mapping[str, Any]


@dataclass(frozen=True)
class NamedNetwork:
    """A network, and what is known of it."""

    name: str
    architecture: Architecture
    result: Values | None = None
    """The content of its `result.json`, if it has one."""
    storage: Path | None = None
    """That its case lies in."""


def named_network(text: str) -> NamedNetwork:
    """The network that `text` names.

    Raises:
        SpecError: there is none, it cannot be read, or it is a network without sites.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        return _of_folder(path)
    if path.is_file():
        return _of_file(path)
    if text in NAMES:
        return NamedNetwork(text, published(text))
    raise SpecError(f"{text} is no file; expected {EXPECTED}")


def _of_folder(path: Path) -> NamedNetwork:
    for name in (RESULT, ARCHITECTURE):
        if (path / name).is_file():
            return _of_file(path / name)
    if is_job(path):
        cases = sorted(f"cases/{one.parent.name}" for one in path.glob(f"cases/*/{ARCHITECTURE}"))
        there = (
            f"name one of its networks: {', '.join(cases)}" if cases else "it has no network yet"
        )
        raise SpecError(f"{path} is the folder of a job; {there}")
    raise SpecError(f"{path} has neither {RESULT} nor {ARCHITECTURE}; expected {EXPECTED}")


def _of_file(path: Path) -> NamedNetwork:
    values = _read(path)
    if str(values.get("format")).startswith("case-result/"):
        return _of_result(values, path)
    network = _architecture(values, path)
    beside = path.with_name(RESULT)
    if beside.is_file() and (result := _read(beside)).get("architecture") == values:
        return _of_result(result, beside)
    return NamedNetwork(path.stem, network)


def _of_result(values: Values, path: Path) -> NamedNetwork:
    name, network = (
        str(values.get("case", path.stem)),
        _architecture(values.get("architecture", {}), path),
    )
    cases = path.resolve().parent.parent
    storage = cases.parent.parent if cases.name == "cases" else None
    return NamedNetwork(name, network, values, storage)


def _architecture(values: Any, path: Path) -> Architecture:
    if isinstance(values, dict) and str(values.get("format")).startswith("baseline/"):
        raise SpecError(
            f"{path} is the baseline '{values.get('name')}', which has no sites to be drawn; "
            "expected a network of a search space"
        )
    try:
        return Architecture.from_dict(values)
    except ValueError as error:
        raise SpecError(f"{path}: {error}; expected {EXPECTED}") from None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SpecError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # neither text nor JSON
        raise SpecError(f"{path} is not JSON ({error}); expected {EXPECTED}") from None
    if not isinstance(values, dict):
        raise SpecError(f"{path} is no network; expected {EXPECTED}")
    return values
