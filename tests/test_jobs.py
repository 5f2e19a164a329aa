"""Job files in jobs/: each is a valid job and can be executed."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.placement import Node
from orchestration.cli.app import main
from orchestration.config.loading import load_job
from orchestration.driver import preview
from tests.conftest import REPOSITORY
from tests.support.image_sets import encoded

JOBS = sorted((REPOSITORY / "jobs").glob("*.yaml"))


def test_there_are_jobs() -> None:
    assert JOBS


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_file_is_a_program_named_like_its_job(path: Path) -> None:
    assert path.read_text().splitlines()[0] == "#!/usr/bin/env -S python -m orchestration"
    assert os.access(path, os.X_OK)
    assert load_job(path).name == path.stem


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Parquet file with images of two classes, in place of an S3 bucket."""
    columns = {
        "image": [encoded(n, size=8) for n in range(600)],
        "label": [n % 2 for n in range(600)],
        "key": [f"image-{n}" for n in range(600)],
    }
    place = tmp_path_factory.mktemp("images")
    pq.write_table(pa.table(columns), place / "all.parquet")
    return place


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.name)
def test_a_job_file_can_be_planned(
    path: Path,
    images: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every job can be planned, on a pretended machine with a GPU."""
    has_gpu = Node("", "here", {"CPU": 2.0, "GPU": 1.0}, {}, is_driver=True)
    monkeypatch.setattr(preview, "this_machine", lambda: has_gpu)
    words = ["--set", f"storage={tmp_path / 'storage'}"]
    if load_job(path).data.source == "parquet":
        words += ["--set", f"data.path={images}"]
    assert main(["plan", str(path), "--quick", *words]) == 0
    assert f"job      {path.stem}, seed" in capsys.readouterr().out
