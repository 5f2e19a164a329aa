"""The reference of all settings: tables made from the settings classes, for jobs/README.md.

`python -m orchestration.config.reference` rewrites what is between the two markers of the page.
The words of a table are the docstrings under the fields; Python does not keep those, so they are
read from the source of the class.
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
    """All settings of a job file as Markdown, a table per section."""
    parts = ["### Top level", _table(Job, "")]
    for place, meaning, section in _sections(Job):
        parts += [f"### `{place}`", meaning, _table(section, f"{place}.")]
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
    """Docstrings of the fields that a class adds itself."""
    (definition,) = ast.parse(inspect.cleandoc(inspect.getsource(owner))).body
    assert isinstance(definition, ast.ClassDef), "the source of a class is its definition"
    docs = {}
    for line, following in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            text = following.value if isinstance(following, ast.Expr) else None
            if isinstance(text, ast.Constant) and isinstance(text.value, str):
                docs[line.target.id] = " ".join(text.value.split())
    return docs


def _sections(owner: type, place: str = "") -> Iterator[tuple[str, str, type]]:
    """Sections below a settings class, in the order of a job file: place, meaning and class."""
    hints, docs = get_type_hints(owner), field_docs(owner)
    for one in fields(owner):
        section = _section_in(hints[one.name])
        if section is not None:
            name = f"{place}{one.name}{_suffix(hints[one.name])}"
            yield name, docs[one.name], section
            yield from _sections(section, f"{name}.")


def _section_in(hint: Any) -> type | None:
    """The settings class inside `X`, `X | None`, `tuple[X, ...]` or `dict[str, X]`."""
    if isinstance(hint, type) and is_dataclass(hint):
        return hint
    return next(filter(None, map(_section_in, get_args(hint))), None)


def _suffix(hint: Any) -> str:
    """How an entry of a list or a mapping of sections is addressed."""
    inside = (get_origin(one) for one in (hint, *get_args(hint)))
    return next((SUFFIXES[origin] for origin in inside if origin in SUFFIXES), "")


def _table(section: type, place: str) -> str:
    """The table of a settings class: its own fields first, then those it inherits."""
    hints, docs = get_type_hints(section), field_docs(section)
    own = [one for one in fields(section) if one.name in section.__annotations__]
    inherited = [one for one in fields(section) if one not in own]
    rows = [_row(one, hints[one.name], docs.get(one.name), place) for one in own + inherited]
    return "\n".join([*HEAD, *rows])


def _row(one: Field[Any], hint: Any, doc: str | None, place: str) -> str:
    if doc is None:
        raise ValueError(f"the setting {place}{one.name} has no docstring; say below it what it is")
    kind = _type_text(hint)
    if _section_in(hint) is not None:
        kind = f"[{kind}](#{_anchor(f'{place}{one.name}{_suffix(hint)}')})"
    cells = (f"`{one.name}`", kind, _default_text(one), doc)
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _anchor(place: str) -> str:
    """The fragment that code hosts give to the heading of a section."""
    return re.sub(r"[^a-z0-9_-]", "", place.lower())


def _type_text(hint: Any) -> str:
    """A type in the words of a job file. That a setting may be left out, the default tells."""
    if hint in PLAIN:
        return PLAIN[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, UnionType):
        return " or ".join(_type_text(one) for one in arguments if one is not NoneType)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return f"[{', '.join(map(_type_text, arguments))}]"
    if origin is tuple:
        return f"list of {_plural(arguments[0])}"
    return "mapping by name" if origin is dict else "mapping"


def _plural(hint: Any) -> str:
    return " or ".join(f"{one}s" for one in _type_text(hint).split(" or "))


def _default_text(one: Field[Any]) -> str:
    """Empty where a setting may be left out and has no value then."""
    if one.default is MISSING:
        return "required" if one.default_factory is MISSING else ""
    if one.default is None:
        return ""
    text = str(one.default).lower() if isinstance(one.default, bool) else str(one.default)
    return f"`{text.replace('e-0', 'e-')}`"


def main(arguments: list[str]) -> int:
    """Rewrite the reference in a page, `jobs/README.md` unless another is named."""
    path = Path(arguments[0] if arguments else PAGE)
    path.write_text(with_reference(path.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
