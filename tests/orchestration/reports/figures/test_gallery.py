"""Figures of a job, and the conditions under which they are drawn again."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cluster.storage import Storage
from orchestration.reports.figures.gallery import Gallery, matrix_of, write_pictures
from tests.support.figures import blank_pictures
from tests.support.job_folder import SPACE, baseline_result, latency_table, result, write_job

PROBABILITIES = {
    "format": "probabilities/1",
    "sites": [site.name for site in SPACE.sites],
    "ops": [list(site.ops) for site in SPACE.sites],
    "epochs": [
        {"epoch": epoch, "probs": [[1 / len(site.ops)] * len(site.ops) for site in SPACE.sites]}
        for epoch in (2, 3)
    ],
}
CASE, OTHER = result("mobile-0.31ms"), result("cpu-0.31ms", target="cpu", hardware="cpu (ONNX)")
RESULTS = [CASE, OTHER, result("mobile-reference"), baseline_result("mnasnet")]


def drawn(root: Path, results: list[dict[str, Any]] = RESULTS) -> tuple[Storage, Storage]:
    job = write_job(root, results)
    job.write_json("cases/mobile-0.31ms/probabilities.json", PROBABILITIES)
    tables = Storage(str(root)).sub("tables")
    write_pictures(job, tables, results)
    return job, tables


def names(job: Storage) -> set[str]:
    return {place.split("/")[1] for place in job.list("comparison") if place.endswith(".png")}


@pytest.mark.slow
def test_a_job_has_pictures_of_all_and_of_each_search(tmp_path: Path) -> None:
    job, _ = drawn(tmp_path)
    assert names(job) == {
        "accuracy.png",
        "networks.png",
        "matrix.png",
        *("mobile-0.31ms-network.png", "mobile-0.31ms-search.png"),
        *("cpu-0.31ms-network.png", "cpu-0.31ms-search.png"),
    }
    for name in names(job):
        with Image.open(io.BytesIO(job.read_bytes(f"comparison/{name}"))) as picture:
            assert picture.format == "PNG"
            assert picture.width >= 800


@pytest.fixture
def blank(monkeypatch: pytest.MonkeyPatch) -> None:
    blank_pictures(monkeypatch)


@pytest.mark.slow
@pytest.mark.usefixtures("blank")
def test_many_networks_have_a_picture_for_each_target_and_some_pages(tmp_path: Path) -> None:
    phone = [result(f"mobile-{n / 100}ms", budget_ms=n / 100) for n in range(20, 40)]
    job, _ = drawn(tmp_path, [*phone, OTHER])
    assert {name for name in names(job) if "networks" in name} == {
        "mobile-networks-1.png",
        "mobile-networks-2.png",
        "cpu-networks.png",
    }


@pytest.mark.slow
@pytest.mark.usefixtures("blank")
def test_no_two_pictures_have_one_name(tmp_path: Path) -> None:
    awkward = ["accuracy", "networks", "matrix", "mobile-latency", "a-search", "a-network", "a"]
    job, _ = drawn(tmp_path, [result(name) for name in awkward])
    assert (
        len([name for name in names(job) if name.endswith(("-network.png", "-search.png"))]) == 14
    )


@pytest.mark.slow
def test_probabilities_are_in_the_picture_of_a_search(tmp_path: Path) -> None:
    job, _ = drawn(tmp_path)
    heights = [
        Image.open(io.BytesIO(job.read_bytes(f"comparison/{name}-search.png"))).height
        for name in ("mobile-0.31ms", "cpu-0.31ms")
    ]
    assert heights[0] > heights[1]  # only the first has kept them


@pytest.mark.slow
def test_what_is_there_is_not_drawn_again_and_what_is_gone_goes(tmp_path: Path) -> None:
    job, tables = drawn(tmp_path)
    for name in names(job):
        job.write_bytes(f"comparison/{name}", b"as it was")
    changed = [CASE | {"top1": 0.5}, *RESULTS[2:]]
    write_pictures(job, tables, changed)
    kept = {n for n in names(job) if job.read_bytes(f"comparison/{n}") == b"as it was"}
    assert kept == {"mobile-0.31ms-network.png", "mobile-0.31ms-search.png"}
    assert names(job) == {*kept, "accuracy.png", "networks.png"}


def test_a_picture_that_was_lost_is_drawn_again(tmp_path: Path) -> None:
    job = Storage(str(tmp_path))
    for _ in range(2):
        gallery = Gallery(job)
        gallery.draw("a.png", {"x": 1}, lambda: b"drawn")
        gallery.close()
        assert job.read_bytes("comparison/a.png") == b"drawn"
        job.delete("comparison/a.png")


@pytest.mark.usefixtures("blank")
def test_baselines_alone_have_no_networks_to_show(tmp_path: Path) -> None:
    job, _ = drawn(tmp_path, [baseline_result("mnasnet")])
    assert names(job) == {"accuracy.png"}


@pytest.mark.usefixtures("blank")
def test_without_accuracies_there_is_no_picture_of_them(tmp_path: Path) -> None:
    job, _ = drawn(tmp_path, [CASE | {"top1": None}])
    assert "accuracy.png" not in names(job)


@pytest.mark.parametrize(("words", "asked"), [("80%", "80%"), (0.31, "0.31 ms")])
def test_the_matrix_has_every_network_on_every_target(
    tmp_path: Path, words: Any, asked: str | None
) -> None:
    results = [item | {"budget": words} for item in RESULTS[:2]]
    job = write_job(tmp_path, results)
    table = latency_table()
    matrix = matrix_of(job, {"table0": table.to_dict()}, results)
    assert matrix is not None
    mobile, cpu = matrix.targets
    assert (mobile, cpu) == ("mobile (by its table)", "cpu (by its table)")  # nothing was measured
    assert [(item.name, item.own, item.asked) for item in matrix.networks] == [
        ("mobile-0.31ms", mobile, asked),
        ("cpu-0.31ms", cpu, asked),
    ]
    assert set(matrix.networks[0].latencies_ms) == {mobile, cpu}
    assert matrix_of(job, {"table0": table.to_dict()}, results[:1]) is None
