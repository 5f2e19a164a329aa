"""Reference of all settings in jobs/README.md, generated from the settings classes.

`python -m orchestration.config.reference` rewrites the text between two markers of the page.
Meanings in a table are the docstrings of the fields. Python does not keep these at run time, so
they are read from the source of the class.
"""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from orchestration.config.job import Job

PAGE = "jobs/README.md"
COMMAND = "python -m orchestration.config.reference"
BEGIN = f"<!-- begin settings: written by {COMMAND} -->"
END = "<!-- end settings -->"

PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}
SUFFIXES = {tuple: "[]", dict: ".NAME"}
HEAD = ("| setting | type | default | meaning |", "|---|---|---|---|")


def reference() -> str:
    """Markdown of all settings of a job file, one table per section."""
    parts = ["### Top level", _table(Job, "")]
    for path, meaning, section in _sections(Job):
        parts += [f"### `{path}`", meaning, _table(section, f"{path}.")]
    return "\n\n".join(parts)


def with_reference(page: str) -> str:
    """The page with the reference between its markers.

    Raises:
        ValueError: a marker is missing.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the page has no {BEGIN!r} with {END!r} behind it; put both into it")
    return f"{before}{BEGIN}\n\n{reference()}\n\n{END}{after}"


def field_docs(section: type) -> dict[str, str]:
    """Docstrings of the fields of a settings class, inherited ones included, by name."""
    docs: dict[str, str] = {}
    for owner in reversed(section.__mro__):
        if is_dataclass(owner):
            docs |= _own_docs(owner)
    return docs


def _own_docs(owner: type) -> dict[str, str]:
    """Docstrings of the fields that a class defines itself, by name."""
    (definition,) = ast.parse(inspect.cleandoc(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef), "the source of a class is its definition"
    docs = {}
    for line, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                docs[line.target.id] = " ".join(text.value.split())
    return docs


def _sections(owner: type, path: str = "") -> Iterator[tuple[str, str, type]]:
    """(path, meaning, class) of the sections below a settings class, in the order of a job file."""
    hints, docs = get_type_hints(owner), field_docs(owner)
    for setting in fields(owner):
        section = _section_in(hints[setting.name])
        if section is not None:
            name = f"{path}{setting.name}{_suffix(hints[setting.name])}"
            yield name, docs[setting.name], section
            yield from _sections(section, f"{name}.")


def _section_in(hint: Any) -> type | None:
    """The settings class inside `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next(filter(None, map(_section_in, get_args(hint))), None)


def _suffix(hint: Any) -> str:
    """Suffix of the path to an entry of a list or mapping of sections; empty for others."""
    inside = (get_origin(part) for part in (hint, *get_args(hint)))
    return next((SUFFIXES[origin] for origin in inside if origin in SUFFIXES), "")


def _table(section: type, path: str) -> str:
    """Table of a settings class: its own fields first, then inherited ones."""
    hints, docs = get_type_hints(section), field_docs(section)
    own = [setting for setting in fields(section) if setting.name in section.__annotations__]
    inherited = [setting for setting in fields(section) if setting not in own]
    rows = [
        _row(setting, hints[setting.name], docs.get(setting.name), path)
        for setting in own + inherited
    ]
    return "\n".join([*HEAD, *rows])


def _row(setting: Field[Any], hint: Any, doc: str | None, path: str) -> str:
    if doc is None:
        raise ValueError(
            f"the setting {path}{setting.name} has no docstring; say below it what it is"
        )
    kind = _type_text(hint)
    if _section_in(hint) is not None:
        kind = f"[{kind}](#{_anchor(f'{path}{setting.name}{_suffix(hint)}')})"
    cells = (f"`{setting.name}`", kind, _default_text(setting), doc)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _anchor(path: str) -> str:
    """URL fragment that code hosts generate for the heading of a section."""
    return re.sub(r"[^a-z0-9_-]", "", path.lower())


def _type_text(hint: Any) -> str:
    """Type of a setting in the terms of YAML. None is left out: the default shows it."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type_text(kind) for kind in arguments if kind is not NoneType)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(_type_text, arguments))}]"
    if origin is tuple:
        return f"list of {_plural(arguments[0])}"
    return "mapping by name" if origin is dict else "mapping"


def _plural(hint: Any) -> str:
    return " or ".join(f"{kind}s" for kind in _type_text(hint).split(" or "))


def _default_text(setting: Field[Any]) -> str:
    """Default of a setting; empty if the setting is optional and has no value by default."""
    if setting.default is MISSING:
        return "required" if setting.default_factory is MISSING else ""
    if setting.default is None:
        return ""
    text = (
        str(setting.default).lower() if isinstance(setting.default, bool) else str(setting.default)
    )
    return f"`{text.replace('e-0', 'e-')}`"


def main(arguments: list[str]) -> int:
    """Rewrite the reference in a page, by default `jobs/README.md`."""
    path = Path(arguments[0] if arguments else PAGE)
    path.write_text(with_reference(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
