"""Errors and notes of the plan for a streamed set."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from orchestration.config.loading import SpecError
from orchestration.planning.plan import make_plan
from tests.support.image_sets import converted_folder, encoded
from tests.support.worker_context import tiny_job


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> str:
    return converted_folder(tmp_path_factory.mktemp("own")).uri


def notes(storage: Path, path: str, *, lanes: int = 2, **more: Any) -> tuple[str, ...]:
    """Notes of the plan for a set; `more` are settings of `data:`, or other whole sections."""
    sections = {name: more.pop(name) for name in ("cluster", "search", "retrain") if name in more}
    data = {"source": "parquet", "path": path, "resolution": 16, "memory_gib": 0.0, **more}
    data["stream"] = {"lanes": lanes}
    return make_plan(tiny_job(storage, data=data, **sections)).notes


def test_a_converted_set_needs_no_word(own: str, tmp_path: Path) -> None:
    assert notes(tmp_path / "storage", own) == ()
    assert notes(tmp_path / "storage", own, memory_gib=1.0) == ()


@pytest.mark.parametrize(
    ("sections", "complaint"),
    [
        ({"cluster": {"workers": 3}}, r"data.stream.lanes is 2, and cluster.workers asks for 3;"),
        ({"cluster": {"workers": [1, 5]}}, r"lanes is 2, and cluster.workers asks for 5; expect"),
        ({"search": {"batch_size": 3}}, r"search.batch_size is 3, and every batch takes a share"),
        ({"retrain": {"epochs": 1, "batch_size": 2}}, r"retrain.batch_size is 2, and every batc"),
        ({"test_share": 0.001}, r"class 'cats' has no image in the test part, to which keys belo"),
        ({"search": {"architecture_share": 0.001}}, r"has no image in the architecture part, to"),
    ],
)
def test_what_cannot_work_is_refused(
    own: str, tmp_path: Path, sections: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(SpecError, match=complaint):
        notes(tmp_path / "storage", own, **sections)


def others(place: Path, labels: list[int]) -> dict[str, Any]:
    place.mkdir()
    table = pa.table({"image": [encoded(i) for i in range(len(labels))], "label": labels})
    pq.write_table(table, place / "all.parquet", row_group_size=40)
    return {"path": str(place), "columns": {"key": None}}


def test_a_set_in_another_order_is_told_to_be_converted(tmp_path: Path) -> None:
    mixed = np.random.default_rng(0).integers(0, 10, 400).tolist()
    (note,) = notes(tmp_path / "storage", **others(tmp_path / "mixed", mixed))
    assert note.startswith("rows do not stand in the order of their keys' hashes, so the small")
    _, note = notes(tmp_path / "storage", **others(tmp_path / "sorted", sorted(mixed)))
    assert "batches will be badly mixed; `proxyless data convert` writes a set that is" in note
