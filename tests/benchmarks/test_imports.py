"""Imports of the benchmarks, which run too rarely to reveal a missing name by themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.support.repository import REPOSITORY

OURS = ("nas_core", "cluster", "orchestration", "tests")
FILES = sorted(Path(__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_name_that_is_imported_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            missing = [one.name for one in node.names if not is_there(node.module or "", one.name)]
            assert missing == [], f"{path.name}:{node.lineno}"


def is_there(package: str, name: str) -> bool:
    """Whether a module binds this name, or a package has this module."""
    folder = REPOSITORY / package.replace(".", "/")
    is_module = (folder / f"{name}.py").is_file() or (folder / name / "__init__.py").is_file()
    return is_module or name in names_of(package)


@cache
def names_of(package: str) -> frozenset[str]:
    """Names that the source of a module binds. Importing all of them would take seconds."""
    path = REPOSITORY / package.replace(".", "/")
    file = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
    return frozenset(bound(ast.parse(file.read_text()).body))


def bound(statements: list[ast.stmt]) -> Iterator[str]:
    """Names that statements of a module bind, also those within `if` and `try`."""
    for statement in statements:
        if isinstance(statement, ast.FunctionDef | ast.ClassDef):
            yield statement.name
        elif isinstance(statement, ast.Import | ast.ImportFrom):
            yield from ((alias.asname or alias.name).split(".")[0] for alias in statement.names)
        elif isinstance(statement, ast.If | ast.Try):
            yield from bound(statement.body)
        else:
            names = (node for node in ast.walk(statement) if isinstance(node, ast.Name))
            yield from (node.id for node in names if isinstance(node.ctx, ast.Store))
