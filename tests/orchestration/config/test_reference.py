from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from orchestration.config import reference
from orchestration.config.job import Job
from orchestration.config.reference import BEGIN, COMMAND, END, PAGE, field_docs, with_reference

REPOSITORY = Path(__file__).parents[3]


def settings_of(owner: Any) -> Iterator[tuple[type, str]]:
    """Every settings class inside a type, with the names of its fields."""
    for inside in get_args(owner):
        yield from settings_of(inside)
    if is_dataclass(owner) and isinstance(owner, type):
        for setting in fields(owner):
            yield owner, setting.name
        for hint in get_type_hints(owner).values():
            yield from settings_of(hint)


@pytest.fixture(scope="module")
def text() -> str:
    """All settings as Markdown."""
    return reference.reference()


def test_the_page_has_the_settings_that_there_are() -> None:
    page = (REPOSITORY / PAGE).read_text(encoding="utf-8")
    assert page == with_reference(page), f"{PAGE} is not up to date; run: {COMMAND}"


def test_every_setting_has_a_row_that_begins_with_its_name(text: str) -> None:
    rows = [line.split("|")[1].strip() for line in text.splitlines() if "|" in line]
    every = list(settings_of(Job))
    assert len(every) > 100
    for owner, name in every:
        assert f"`{name}`" in rows, f"{owner.__name__}.{name}"
    assert len(rows) - len(set(every)) == 2 * len({owner for owner, _ in every}), "two rows of head"


def test_every_link_leads_to_a_section(text: str) -> None:
    paths = [line.strip("# `") for line in text.splitlines() if line.startswith("### ")]
    anchors = ["".join(c for c in path.lower() if c.isalnum() or c in "_-") for path in paths]
    for link in [part.split(")")[0] for part in text.split("](#")[1:]]:
        assert link in anchors


def test_a_docstring_is_that_of_the_field_above_it() -> None:
    docs = field_docs(Job)
    source = (REPOSITORY / "orchestration" / "config" / "job.py").read_text(encoding="utf-8")
    (job,) = (
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef) and node.name == "Job"
    )
    assert docs["controls"].startswith("Add baselines to every search")
    assert list(docs) == [n.target.id for n in job.body if isinstance(n, ast.AnnAssign)]


def test_inherited_settings_come_behind_those_of_the_section(text: str) -> None:
    retrain = text[text.index("### `retrain`") : text.index("### `cluster`")]
    assert retrain.index("`dropout`") < retrain.index("`batch_size`")


def test_what_stands_around_the_markers_stays() -> None:
    page = with_reference(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    assert page.startswith(f"before\n{BEGIN}\n\n### Top level\n")
    assert page.endswith(f"\n{END}\nafter\n")
    assert with_reference(page) == page


def test_a_page_without_markers_is_refused() -> None:
    with pytest.raises(ValueError, match="put both into it"):
        with_reference("a page")
