"""A job whose images are streamed, on a real local Ray, with an image that cannot be decoded."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml

from orchestration.images.keys import hashes_of, is_test
from tests.conftest import REPOSITORY
from tests.orchestration.faults import job_file, rows_of_a_board
from tests.orchestration.images.sets import encoded

pytestmark = [pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)]
COUNT, TEST_SHARE = 1200, 0.25
KEYS = [f"image-{number}" for number in range(COUNT)]
HASHES = hashes_of(KEYS)


def write_set(place: Path, broken: list[int]) -> None:
    """Images of noise in the order of their hashes, as another program may write them."""
    place.mkdir()
    order = np.argsort(HASHES)
    images = [b"\x89PNG no more" if n in broken else encoded(n, size=16) for n in order]
    columns = {"image": images, "label": [n % 10 for n in order], "key": [KEYS[n] for n in order]}
    pq.write_table(pa.table(columns), place / "all.parquet", row_group_size=200)


def write_job(place: Path, path: Path) -> Path:
    """A job on it that measures nothing."""
    table = place / "board.yaml"
    table.write_text(yaml.safe_dump(rows_of_a_board(place)))
    data = {"source": "parquet", "path": str(path), "resolution": 16, "channels": 1}
    data |= {"memory_gib": 0.0, "augment": "crop", "test_share": TEST_SHARE}
    data["stream"] = {"lanes": 2, "window_mib": 1}
    search = {"warmup_epochs": 1, "epochs": 1, "hold_epochs": 0, "batch_size": 128}
    search |= {"architecture_share": 0.2}
    return job_file(
        place / "storage",
        table,
        data=data,
        search=search,
        retrain={"epochs": 1, "batch_size": 64},
        cluster={"workers": 2, "max_failures": 1},
    )


def run(job: Path) -> tuple[int, str]:
    """As a person does, in a process of its own; its exit code and what it said."""
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(
        [sys.executable, "-m", "orchestration", str(job)],
        cwd=REPOSITORY,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout + done.stderr


def test_a_streamed_job_ends_with_its_networks_and_names_what_is_damaged(tmp_path: Path) -> None:
    broken = int(np.flatnonzero(~is_test(HASHES, TEST_SHARE))[0])
    write_set(tmp_path / "set", [broken])
    job = write_job(tmp_path, tmp_path / "set")
    code, said = run(job)
    assert code == 0, said
    assert "streamed in 2 lanes" in said
    folder = tmp_path / "storage" / "faulty"
    results = [json.loads(path.read_text()) for path in folder.glob("cases/*/result.json")]
    assert {one["kind"] for one in results} == {"reference", "search"}
    assert {one["tested"] for one in results} == {int(is_test(HASHES, TEST_SHARE).sum())}
    with open(folder / "bad_samples.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["key"], row["reason"][:13]) == (KEYS[broken], "not an image:")
    code, said = run(job)
    assert code == 0, said
    assert "nothing to train" in said


def test_a_set_with_too_much_damage_stops_the_job_with_the_place_of_its_names(
    tmp_path: Path,
) -> None:
    write_set(tmp_path / "set", np.flatnonzero(~is_test(HASHES, TEST_SHARE))[:30].tolist())
    code, said = run(write_job(tmp_path, tmp_path / "set"))
    assert code == 1, said
    place = tmp_path / "storage" / "faulty" / "bad_samples.csv"
    assert "of 1,200 images cannot be decoded, e.g. image-" in said
    assert f"expected at most 0.1%: mend or remove those in {place}" in said
