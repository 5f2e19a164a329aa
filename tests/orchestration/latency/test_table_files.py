"""Tables measured elsewhere: read from three formats, errors name row and reason."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.hardware import TABLE, Target
from nas_core.architecture import Architecture
from nas_core.space import proxyless_small
from orchestration.latency.table_files import read_table
from tests.support.latency_tables import by_kernel, rows_of, table_of

SPACE = proxyless_small(resolution=16)
TARGET = Target(name="mine", runtime=TABLE, table="mine")


def rows(**changes: Any) -> list[dict[str, Any]]:
    result = rows_of(SPACE)
    result[1] |= changes
    return result


def written(folder: Path, kind: str, values: list[dict[str, Any]]) -> Path:
    path = folder / f"mine.{kind}"
    if kind == "csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(values[1]))
            writer.writeheader()
            writer.writerows(values)
    else:
        path.write_text(json.dumps(values) if kind == "json" else yaml.safe_dump({"rows": values}))
    return path


@pytest.mark.parametrize("kind", ["csv", "yaml", "json"])
def test_rows_cost_what_the_file_says(tmp_path: Path, kind: str) -> None:
    table = read_table(written(tmp_path, kind, rows()), SPACE, TARGET)
    stated = table_of(SPACE, by_kernel)
    for op in ("mbconv_k3_e6", "mbconv_k7_e3"):
        network = Architecture.uniform(SPACE, op)
        assert table.latency_ms(network) == pytest.approx(stated.latency_ms(network))
    assert table.reference_ms == pytest.approx(table.latency_ms(Architecture.reference(SPACE)))
    assert table.hardware == "mine (table mine)"


def test_the_file_of_a_whole_table_is_read_as_it_is(tmp_path: Path) -> None:
    stated = table_of(SPACE, by_kernel)
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(stated.to_dict()))
    assert read_table(path, SPACE, TARGET) == replace(stated, target="mine")


def test_a_table_of_another_resolution_is_refused_with_both(tmp_path: Path) -> None:
    path = tmp_path / "whole.json"
    path.write_text(json.dumps(table_of(SPACE, by_kernel).to_dict()))
    other = proxyless_small(resolution=32)
    with pytest.raises(ValueError, match=r"at 16 pixels, but the job has 'proxyless_small' at 32"):
        read_table(path, other, TARGET)


def test_a_missing_row_is_named_with_op_and_site(tmp_path: Path) -> None:
    values = [row for row in rows() if row["op"] != "mbconv_k7_e6"]
    with pytest.raises(ValueError, match=r"no entry for 'mbconv_k7_e6' at 'stage1.0'"):
        read_table(written(tmp_path, "csv", values), SPACE, TARGET)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ms": "fast"}, r"row 2: ms is 'fast'; expected a number, milliseconds per batch"),
        ({"ms": "nan"}, r"row 2: ms is 'nan'; expected a number"),
        ({"ms": ""}, r"row 2 has no ms; expected op, in_channels"),
        ({"stride": 1.5}, r"row 2: stride is '?1.5'?; expected a whole number"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "json"])
def test_a_wrong_row_is_named(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        read_table(written(tmp_path, kind, rows(**changes)), SPACE, TARGET)


def test_a_column_that_is_not_known_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"row 2 has 'energy_mj'; expected op, in_channels"):
        read_table(written(tmp_path, "json", rows(energy_mj=3)), SPACE, TARGET)


def test_two_rows_of_the_same_part_are_refused(tmp_path: Path) -> None:
    values = [*rows(), rows()[3]]
    with pytest.raises(ValueError, match=rf"row {len(values)} is of the same part as row 4"):
        read_table(written(tmp_path, "json", values), SPACE, TARGET)


@pytest.mark.parametrize(("unit", "factor"), [("us", 1e3), ("s", 1e-3)])
def test_a_file_may_say_another_unit(tmp_path: Path, unit: str, factor: float) -> None:
    said = [{**row, unit: factor * row["ms"]} for row in rows()]
    for row in said:
        del row["ms"]
    table = read_table(written(tmp_path, "csv", said), SPACE, TARGET)
    stated = table_of(SPACE, by_kernel)
    network = Architecture.uniform(SPACE, "mbconv_k5_e6")
    assert table.latency_ms(network) == pytest.approx(stated.latency_ms(network))


@pytest.mark.parametrize(("factor", "unit"), [(1e-7, "seconds"), (1e7, "microseconds")])
def test_another_unit_is_asked_about(tmp_path: Path, factor: float, unit: str) -> None:
    values = [{**row, "ms": factor * row["ms"]} for row in rows()]
    with pytest.raises(ValueError, match=rf"mine.csv: all rows .* were {unit} meant\?"):
        read_table(written(tmp_path, "csv", values), SPACE, TARGET)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", "x", r"ends in '.txt'; expected one of .csv, .yaml, .yml, .json"),
        ("a.json", "{", r"a.json is not JSON"),
        ("a.yaml", "a: [", r"a.yaml is not YAML"),
        ("a.json", "[]", r"a.json has no rows"),
        ("a.json", '{"format": "latency-table/9"}', r"is from a newer one"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, name: str, content: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_table(path, SPACE, TARGET)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none.csv cannot be read: No such file"):
        read_table(tmp_path / "none.csv", SPACE, TARGET)
