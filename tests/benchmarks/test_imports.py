"""Imports of the benchmarks, which run too rarely to reveal a missing name by themselves."""

from __future__ import annotations

import ast
import importlib
from importlib.util import find_spec
from pathlib import Path

import pytest

OURS = ("nas_core", "cluster", "orchestration", "tests")
FILES = sorted(Path(__file__).parent.glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_name_that_is_imported_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            missing = [
                item.name for item in node.names if not is_there(node.module or "", item.name)
            ]
            assert missing == [], f"{path.name}:{node.lineno}"


def is_there(package: str, name: str) -> bool:
    """Whether a module has this name, or a package this module."""
    module = importlib.import_module(package)
    return hasattr(module, name) or find_spec(f"{package}.{name}") is not None
