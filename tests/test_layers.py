"""Imports go one way and in no circle, read from the source."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

LAYERS = (
    "cli, api",
    "driver",
    "tracking",
    "reports",
    "stages, scheduling",
    "state",
    "planning",
    "data, latency",
    "programs, distributed",
    "config",
)
"""Packages of orchestration, highest first. Each may import what stands in a line below its own."""

LEVELS = {name: level for level, line in enumerate(LAYERS) for name in line.split(", ")}

FORBIDDEN = {
    "nas_core": {"ray", "mlflow", "boto3", "pyarrow", "torchvision", "orchestration", "cluster"},
    "cluster": {"nas_core", "orchestration", "mlflow"},
    "orchestration": {"boto3"},
}

READ_PARQUET = {"orchestration.data.parquet", "orchestration.data.streaming"}
WRITES_PARQUET = "orchestration.reports.row_files"

RAY_INTERNALS = "cluster.ray_internals"

MOST_FILES = {"nas_core": 34}
"""Python files in a folder; 15 and `__init__.py` where it is not said."""


def module_name(path: Path) -> str:
    parts = path.relative_to(REPOSITORY).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    module_name(path): path
    for package in FORBIDDEN
    for path in sorted((REPOSITORY / package).rglob("*.py"))
}


@cache
def nodes(path: Path) -> tuple[ast.AST, ...]:
    """Imports and attributes in a file; it is parsed once for all tests."""
    kinds = (ast.Import, ast.ImportFrom, ast.Attribute)
    return tuple(node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, kinds))


def imports(path: Path) -> Iterator[str]:
    """Full names, imports inside functions and under TYPE_CHECKING included."""
    for node in nodes(path):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for name in node.names:
                full = f"{node.module}.{name.name}"
                yield full if full in MODULES else str(node.module)


def own_imports() -> dict[str, set[str]]:
    return {
        module: {name for name in imports(path) if name in MODULES and name != module}
        for module, path in MODULES.items()
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """Modules that import each other in a circle; empty if there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def package_of(module: str) -> str:
    return module.split(".")[1]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_a_package_imports_no_layer_above_it(package: str) -> None:
    paths = [path for name, path in MODULES.items() if name.split(".")[0] == package]
    result = {(path.name, name.split(".")[0]) for path in paths for name in imports(path)}
    assert len(paths) > 5
    assert not {(path, name) for path, name in result if name in FORBIDDEN[package]}


def test_packages_of_orchestration_import_only_those_below_them() -> None:
    wrong = [
        f"{module} imports {name}"
        for module, names in own_imports().items()
        for name in names
        if module.startswith("orchestration.") and name.startswith("orchestration.")
        if package_of(module) not in ("__main__", package_of(name))
        if LEVELS[package_of(name)] <= LEVELS[package_of(module)]
    ]
    assert not wrong


def test_every_package_of_orchestration_has_a_layer() -> None:
    folders = {path.parent.name for path in (REPOSITORY / "orchestration").glob("*/__init__.py")}
    assert folders | {"api"} == set(LEVELS)


def test_no_files_import_each_other_in_a_circle() -> None:
    assert not circle(own_imports())


def test_a_circle_would_be_seen() -> None:
    assert set(circle({"a": {"b"}, "b": {"c"}, "c": {"a"}})) == {"a", "b", "c"}


def test_no_folder_has_more_files_than_a_person_can_overlook() -> None:
    folders = {path.parent for path in MODULES.values()}
    counts = {
        str(folder.relative_to(REPOSITORY)): len(list(folder.glob("*.py"))) for folder in folders
    }
    assert not {name: n for name, n in counts.items() if n > MOST_FILES.get(name, 16)}


def test_only_the_recorder_imports_mlflow() -> None:
    result = {name for name, path in MODULES.items() if "mlflow" in map(root, imports(path))}
    assert {name.rpartition(".")[0] for name in result} == {"orchestration.tracking"}


def test_only_what_reads_or_writes_parquet_imports_pyarrow() -> None:
    result = {
        name
        for name, path in MODULES.items()
        if name.startswith("orchestration") and "pyarrow" in map(root, imports(path))
    }
    assert {name for name in result if name.rpartition(".")[0] not in READ_PARQUET} == {
        WRITES_PARQUET
    }


def test_only_one_file_takes_anything_from_private_modules_of_ray() -> None:
    result = {name for name, path in MODULES.items() if any(map(is_private_ray, names_in(path)))}
    assert result == {RAY_INTERNALS}


def names_in(path: Path) -> Iterator[str]:
    """Imports, and chains of attributes: `ray._private` is reached without an import of its own."""
    yield from imports(path)
    for node in nodes(path):
        if isinstance(node, ast.Attribute) and node.attr in ("_private", "_internal"):
            yield ast.unparse(node)


def is_private_ray(name: str) -> bool:
    return root(name) == "ray" and not {"_private", "_internal"}.isdisjoint(name.split("."))


@pytest.mark.parametrize(
    "name", ["ray._private", "ray.train._internal.session", "ray.train.v2._internal.callbacks"]
)
def test_a_private_module_of_ray_would_be_seen(name: str) -> None:
    assert is_private_ray(name)


def root(name: str) -> str:
    return name.split(".")[0]


def test_a_driver_with_nothing_to_do_needs_neither_torch_nor_ray() -> None:
    code = (
        "import sys; import orchestration.driver.pipeline, orchestration.reports.table;"
        "import orchestration.__main__;"
        "print(sorted({'torch', 'ray', 'sklearn', 'executorch'} & set(sys.modules)))"
    )
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"
