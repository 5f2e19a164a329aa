"""Read a job file: YAML -> Job. The whole file is checked before anything starts.

The sections are settings classes. Their errors are prefixed with the file and the section:

    jobs/sweep.yaml: cases[0].budgets_ms[1] is -3.0; expected milliseconds greater than 0, e.g. 5.1
    jobs/sweep.yaml: search.epoch is not a setting; did you mean 'epochs'?
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import yaml
from pydantic import TypeAdapter, ValidationError

from orchestration.config.job import Job

T = TypeVar("T")


class SpecError(Exception):
    """The job is invalid; nothing was started."""


def job_text(job: Job) -> str:
    """Text of a job file that spells out every setting of a job."""
    values = json.loads(json.dumps(job.to_dict()))
    return yaml.safe_dump(values, sort_keys=False, default_flow_style=None, width=100)


def load_job(path: str | Path, overrides: Sequence[str] = ()) -> Job:
    """Read and check a job file.

    Args:
        path: YAML file.
        overrides: "section.key=value" each; the value is read as YAML.

    Raises:
        SpecError: the file cannot be read, or a key, type or value is wrong. The message is one
            line that names it.
    """
    values = _read_yaml(Path(path))
    for override in overrides:
        apply_override(values, override)
    return check_job(values, str(path))


def check_job(values: Any, source: str) -> Job:
    """Build a Job from JSON values; errors are prefixed with `source`."""
    if not isinstance(values, dict):
        raise SpecError(f"{source}: expected a mapping with 'name', 'data' and 'cases'")
    return check(Job, values, source)


def check(kind: type[T], values: dict[str, Any], source: str) -> T:
    """Build settings of class `kind` from JSON values; errors are prefixed with `source`."""
    try:
        settings: T = _adapter(kind).validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        raise SpecError(f"{source}: {_first(error, values, kind)}") from None
    return settings


_ADAPTERS: dict[type, TypeAdapter[Any]] = {}


def _adapter(kind: type[T]) -> TypeAdapter[T]:
    """Cached adapter of a settings class: building one takes longer than reading a job."""
    if kind not in _ADAPTERS:
        _ADAPTERS[kind] = TypeAdapter(kind)
    return _ADAPTERS[kind]


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number and repeated keys are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.MarkedYAMLError(
                    problem=f"the key {key!r} stands twice", problem_mark=node.start_mark
                )
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?\d[\d_]*(\.[\d_]*)?[eE][-+]?\d+"),
    list("-+0123456789"),
)


def _read_yaml(path: Path) -> Any:
    try:
        return yaml.load(path.read_text(encoding="utf-8"), _Loader)  # noqa: S506  # a SafeLoader
    except OSError as error:
        raise SpecError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SpecError(f"{path}: is not a text file; expected a job in YAML") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise SpecError(f"{path}: {where}not YAML: {error.problem}") from None
    except yaml.YAMLError as error:
        raise SpecError(f"{path}: not YAML: {error}") from None


def apply_override(values: Any, override: str) -> None:
    """Apply one "section.key=value" to `values`, in place."""
    path, sign, text = override.partition("=")
    if not sign or not path:
        raise SpecError(f"--set {override}: expected section.key=value, e.g. retrain.epochs=10")
    *sections, last = path.split(".")
    section = values
    for key in sections:
        if isinstance(section, list) and key.isdigit() and int(key) < len(section):
            section = section[int(key)]
        elif isinstance(section, dict):
            if not isinstance(section.get(key), dict | list):
                section[key] = {}
            section = section[key]
        else:
            raise SpecError(f"--set {override}: there is no {path!r} in the job")
    if not isinstance(section, dict):
        raise SpecError(f"--set {override}: expected the name of a setting after {sections!r}")
    try:
        section[last] = yaml.load(text, _Loader)  # noqa: S506  # a SafeLoader
    except yaml.YAMLError:
        raise SpecError(f"--set {override}: the value is not YAML") from None


EXPECTED = {
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_type": "a number",
    "finite_number": "a finite number",
    "string_type": "text",
    "bool_type": "true or false",
    "tuple_type": "a list",
    "dataclass_type": "a mapping",
    "dict_type": "a mapping",
}
"""Descriptions of the expected type, by pydantic's error type."""

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
"""Error types of pydantic for a key that is not a setting."""


def _first(error: ValidationError, values: Any, root: type) -> str:
    """Message of the first error: setting, value, rule, and a way out if there is one."""
    # Unknown keys first: a misspelled key is usually also reported as a missing one.
    problem = min(error.errors(), key=lambda problem: problem["type"] not in UNKNOWN_KEY)
    loc, kind = problem["loc"], problem["type"]
    if kind in UNKNOWN_KEY:
        return f"{_path_text(loc)} is not a setting; {_suggestion(loc, root)}"
    if kind in ("missing", "missing_argument"):
        return f"{_path_text(loc)} is missing; {_hint(loc)}"
    if kind == "value_error":
        return ".".join(filter(None, [_path_text(loc), str(problem["ctx"]["error"])]))
    path, value = _present(loc, values)
    same = [p for p in error.errors() if _present(p["loc"], values)[0] == path]
    expected = " or ".join(dict.fromkeys(_expectation(p) for p in same))
    return f"{_path_text(path)} is {value!r}; expected {expected}{_closest(value, same)}"


def _expectation(problem: Any) -> str:
    if problem["type"] == "literal_error":
        return f"one of {problem['ctx']['expected'].replace(' or ', ', ')}"
    return EXPECTED.get(problem["type"], str(problem["msg"]))


def _closest(value: Any, problems: list[Any]) -> str:
    choices = [c for p in problems for c in re.findall(r"'([^']+)'", str(p.get("ctx", "")))]
    near = difflib.get_close_matches(str(value), choices, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _present(loc: tuple[int | str, ...], values: Any) -> tuple[tuple[int | str, ...], Any]:
    """Longest prefix of `loc` that exists in the file, and the value there.

    pydantic appends the branches of a union to `loc`.
    """
    for depth, key in enumerate(loc):
        is_there = (isinstance(values, dict) and key in values) or (
            isinstance(values, list) and isinstance(key, int) and key < len(values)
        )
        if not is_there:
            return loc[:depth], values
        values = values[key]
    return loc, values


def _path_text(loc: Sequence[int | str]) -> str:
    text = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in loc)
    return text.removeprefix(".")


def _suggestion(loc: tuple[int | str, ...], root: type) -> str:
    known = _setting_names(loc[:-1], root)
    near = difflib.get_close_matches(str(loc[-1]), known, n=1)
    return f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(known)}"


def _hint(loc: tuple[int | str, ...]) -> str:
    return f"this part of a job needs {loc[-1]!r}, e.g. {EXAMPLES.get(str(loc[-1]), '...')}"


EXAMPLES = {
    "name": "name: search_mobile",
    "data": "data: {source: digits}",
    "source": "source: digits",
    "cases": 'cases: [{target: mobile, budgets_ms: ["80%"]}]',
    "target": "target: mobile",
    "channels": "channels: 16",
    "width": "width: 24",
    "blocks": "blocks: 2",
}


def _setting_names(loc: tuple[int | str, ...], root: type) -> list[str]:
    """Names of the settings of the section at `loc`, a path from `root`."""
    section: Any = root
    is_named = False  # whether `key` is a name in a mapping to sections, such as targets
    for key in loc:
        if is_named:
            is_named = False
        elif isinstance(key, str) and is_dataclass(section):
            hint = get_type_hints(section)[key]
            section, is_named = _class_in(hint), get_origin(hint) is dict
    return [f.name for f in fields(section)]


def _class_in(hint: Any) -> Any:
    """The settings class inside `X | None`, `tuple[X, ...]`, `dict[str, X]` and the like."""
    if get_origin(hint) in (tuple, dict, UnionType):
        inside = [_class_in(argument) for argument in get_args(hint)]
        return next(section for section in inside if is_dataclass(section))
    return hint
