"""Paths and formats of a storage: as earlier versions wrote them, and spelled in one file."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestration.config import storage_layout as layout
from tests.conftest import REPOSITORY

SOURCES = sorted((REPOSITORY / "orchestration").rglob("*.py"))
LAYOUT = REPOSITORY / "orchestration" / "config" / "storage_layout.py"

PATHS = {
    "tables/0a1b.json": layout.table_file("0a1b"),
    "tables/0a1b.rows.json": layout.table_rows_file("0a1b"),
    "tables/0a1b-widths.json": layout.table_widths_file("0a1b"),
    "tables/0a1b.png": layout.table_picture_file("0a1b"),
    "timings/0a1b.json": layout.timings_file("0a1b"),
    "timings/0a1b": layout.timings_folder("0a1b"),
    "warmups/0a1b": layout.warmup_folder("0a1b"),
    "data/0a1b/statistics-8x1-0.2-none.json": layout.statistics_file("0a1b", "8x1-0.2-none"),
    "data/0a1b/train.npz": layout.images_file(layout.data_folder("0a1b"), "train"),
    "cases/mobile-1ms/result.json": layout.result_file("mobile-1ms"),
    "checkpoints/mobile-1ms-0a1b": layout.checkpoints_folder("mobile-1ms", "0a1b"),
    "searches/0a1b": layout.search_folder("0a1b"),
    "across/mobile.json": layout.cross_target_file("mobile"),
    "comparison/report.html": layout.comparison_file(layout.REPORT_FILE),
    "00003-00000007/rank-1.json": layout.rank_file("00003-00000007", 1),
    "buffers-1.pt": layout.buffers_file(1),
    "part-00003-of-00012.parquet": layout.shard_file(3, 12),
    "_shards/a.parquet.json": layout.shard_note_file("a.parquet"),
}

CONSTANTS = """
    tables timings data warmups mlflow.db
    cases checkpoints searches across comparison renamed tune train
    job.json plan.json asha.json renamed.json bad_samples.csv job/1 job-plan/1 asha/1
    result.json architecture.json probabilities.json derived.json random.json ranking.json
    timing.json model case-result/1 probabilities/1 random-networks/1 ranking/1
    model.pt2 model.json example.json model/1
    search retrain state.json shared.pt end.json checkpoint/2 stage-end/1
    comparison report.html pictures.json accuracy.png matrix.png networks
    -network.png -search.png -latency.png comparison/1 across/1
    latency-rows/2 widths/1 timings/3 index.parquet image-index/1 image-statistics/1
    _manifest.json _conversion.json _shards images/1
"""

FORMAT = re.compile(r"[a-z-]+/\d+")
SUFFIXES = (".json", ".npz", ".parquet", ".pt", ".pt2")
READ_OR_WRITTEN = {
    *("sub", "list", "folders", "exists", "delete", "modified", "size_bytes", "where", "swap"),
    *("find_json", "read_json", "write_json", "find_bytes", "read_bytes", "write_bytes"),
    "write_folder",
}
"""Methods of `Storage` whose first argument is a path below it."""


TEXTS = [value for name, value in vars(layout).items() if name.isupper() and isinstance(value, str)]
"""Values of the constants of the layout, in its order."""

NAMES = {text for text in TEXTS if re.search(r"\w\.\w", text)}


def spelled(path: Path) -> Iterator[str]:
    """Paths and formats that a file spells by hand; prose has spaces, so it does not count."""
    yield from spelled_in(ast.parse(path.read_text()))


def spelled_in(tree: ast.Module) -> Iterator[str]:
    inside = {id(part) for node in ast.walk(tree) for part in parts(node)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (first := path_argument(node)) is not None:
            yield first
        if isinstance(node, ast.JoinedStr) and " " not in text_of(node):
            yield from (item for item in map(text_of, parts(node)) if is_file(item))
            if text_of(node).endswith(SUFFIXES):
                yield text_of(node)
        if isinstance(node, ast.Constant) and id(node) not in inside:
            yield from (item for item in [text_of(node)] if " " not in item and is_file(item))


def parts(node: ast.AST) -> list[ast.expr]:
    return node.values if isinstance(node, ast.JoinedStr) else []


def text_of(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(text_of, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else ""


def path_argument(call: ast.Call) -> str | None:
    """The first argument of a method that takes a path, if it begins with text."""
    if not isinstance(call.func, ast.Attribute) or call.func.attr not in READ_OR_WRITTEN:
        return None
    if call.func.attr == "sub" and len(call.args) > 1:  # of a regular expression
        return None
    first = next(iter(call.args), None)
    start = first.values[0] if isinstance(first, ast.JoinedStr) else first
    return None if start is None else text_of(start).strip("/") or None


def is_file(text: str) -> bool:
    return FORMAT.fullmatch(text) is not None or not NAMES.isdisjoint(text.split("/"))


@pytest.mark.parametrize("path", PATHS)
def test_paths_are_those_that_earlier_versions_wrote(path: str) -> None:
    assert PATHS[path] == path


def test_names_and_formats_are_those_that_earlier_versions_wrote() -> None:
    assert CONSTANTS.split() == TEXTS
    assert layout.EARLIER_ROWS_FORMATS == ("latency-rows/1",)


def test_a_path_names_its_case() -> None:
    assert layout.case_of_result("cases/a-1ms/result.json") == "a-1ms"
    assert layout.case_of_result("cases/a-1ms/model/result.json") is None
    assert layout.case_of_result("cases/a-1ms/resultxjson") is None
    assert layout.case_of_checkpoints("a-1ms-0123456789abcdef") == ("a-1ms", "0123456789abcdef")
    assert layout.case_of_checkpoints("a-1ms") is None


def test_a_table_is_told_from_what_lies_beside_it() -> None:
    files = (layout.table_rows_file("0a1b"), layout.table_widths_file("0a1b"))
    assert layout.is_table_name(layout.table_name("0a1b"))
    assert not any(layout.is_table_name(path.removeprefix("tables/")) for path in files)


def test_no_other_file_spells_a_path_or_a_format() -> None:
    result = {str(path): list(spelled(path)) for path in SOURCES if path != LAYOUT}
    assert len(result) > 100
    assert not {path: texts for path, texts in result.items() if texts}


@pytest.mark.parametrize(
    "line",
    [
        'FORMAT = "job/1"',
        'place = f"{case.folder}/result.json"',
        'place = f"tables/{key}.json"',
        'folder.list("cases")',
        'folder.exists(f"warmups/{key}")',
        'NAME = "architecture.json"',
    ],
)
def test_a_path_that_is_spelled_by_hand_is_found(line: str) -> None:
    assert list(spelled_in(ast.parse(line)))


def test_prose_is_not_taken_for_a_path() -> None:
    lines = '"""The content of result.json."""\nhelp = "Or a result.json, the folder of a case."'
    assert not list(spelled_in(ast.parse(lines)))
