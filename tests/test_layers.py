"""Imports go one way, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

FORBIDDEN = {
    "nas_core": {"ray", "mlflow", "boto3", "pyarrow", "torchvision", "orchestration", "cluster"},
    "cluster": {"nas_core", "orchestration", "mlflow"},
    "orchestration": {"boto3", "pyarrow"},
}
READ_PARQUET = ("convert.py", "row_index.py", "in_memory.py", "files.py", "reader.py")
EXEMPT = {
    *((name, "pyarrow") for name in ("row_files.py", *READ_PARQUET)),
}
"""Imported when a Parquet file is written or read."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name.split(".")[0] for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield (node.module or "").split(".")[0]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_no_layer_above_it(package: str) -> None:
    files = list((REPOSITORY / package).rglob("*.py"))
    found = {(path.name, name) for path in files for name in imports(path)}
    assert len(files) > 5
    assert not {(path, name) for path, name in found - EXEMPT if name in FORBIDDEN[package]}


def test_only_the_recorder_imports_mlflow() -> None:
    files = (REPOSITORY / "orchestration").rglob("*.py")
    assert {path.parent.name for path in files if "mlflow" in imports(path)} == {"tracking"}


def test_a_driver_with_nothing_to_do_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import orchestration.driver.pipeline, orchestration.reports.table;"
        "import orchestration.__main__;"
        "print(sorted({'torch', 'ray', 'sklearn', 'executorch'} & set(sys.modules)))"
    )
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"
