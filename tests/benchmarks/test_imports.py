"""What benchmarks take from the project is there: they run too rarely to find out by themselves."""

from __future__ import annotations

import ast
import importlib
from pathlib import Path

import pytest

OURS = ("nas_core", "cluster", "orchestration", "tests")
FILES = sorted(Path(__file__).parent.glob("*.py"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_name_that_is_imported_exists(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in OURS:
            if node.module == "tests.benchmarks":
                continue  # they are the files of this folder
            module = importlib.import_module(node.module or "")
            missing = [one.name for one in node.names if not hasattr(module, one.name)]
            assert missing == [], f"{path.name}:{node.lineno}"
