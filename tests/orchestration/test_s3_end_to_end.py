"""The main job with everything in S3: images, storage and the files of MLflow.

It runs once, in a fixture, against a server over HTTP that fails now and then; each test then holds
one claim against what it left.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import pytest
import torch
import yaml

from cluster.storage import Storage
from orchestration.__main__ import main
from orchestration.data_settings import GlyphSettings
from orchestration.images import convert as conversion
from orchestration.images.convert import convert
from orchestration.images.samples import glyph_listing
from tests.conftest import REPOSITORY
from tests.orchestration.images.sets import here
from tests.orchestration.record.proxy import half
from tests.orchestration.record.server import mlflow_server
from tests.s3 import BUCKET, S3, before, reached, s3_server

pytestmark = [
    *(pytest.mark.slow, pytest.mark.ray, pytest.mark.timeout(900)),
    # What MLflow 3.17 does with SQLAlchemy 2.1; recording keeps it from its callers.
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]
IMAGES, STORAGE = f"s3://{BUCKET}/images/glyphs", f"s3://{BUCKET}/runs"
SMALL = {
    "data": {"source": "parquet", "path": IMAGES, "resolution": 16, "channels": 1},
    "space": {"ops": ["mbconv_k3_e3", "mbconv_k3_e6", "skip"]},
    "measure": {"calibrate_s": 0},
    "search": {"batch_size": 32, "warmup_epochs": 2, "epochs": 3},
    "retrain": {"epochs": 4},
    "cluster": {"workers": 2},
}


@dataclass(frozen=True)
class Finished:
    """A job that ran."""

    server: S3
    job_file: Path
    tracking_uri: str
    code: int
    said: str

    @property
    def folder(self) -> Storage:
        return Storage(f"{STORAGE}/search_mobile")


def job_file(folder: Path) -> Path:
    """The job that ships, made small, with everything in S3."""
    values = yaml.safe_load((REPOSITORY / "jobs" / "search_mobile.yaml").read_text())
    for name, section in SMALL.items():
        shipped = {} if name == "data" else values.get(name) or {}
        values[name] = shipped | section
    path = folder / "search_mobile.yaml"
    path.write_text(yaml.safe_dump(values | {"storage": STORAGE}))
    return path


def run(path: Path, environment: dict[str, str]) -> tuple[int, str]:
    """As a person does, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "orchestration", str(path)],
        cwd=REPOSITORY,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def write_images(patch: pytest.MonkeyPatch) -> None:
    """Glyphs, converted straight into S3."""
    patch.setattr(conversion, "_made_on_ray", here)
    listing = glyph_listing(GlyphSettings(classes=10), 1500, 16, 1, "png")
    convert(listing, Storage(IMAGES), lambda _line: None)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    folder = tmp_path_factory.mktemp("driver")
    with (
        s3_server() as server,
        before(server) as proxy,
        pytest.MonkeyPatch.context() as patch,
        reached(patch, server.environment(proxy.uri)),
    ):
        write_images(patch)
        environment = {"RAY_ADDRESS": "local", "HOME": str(folder)}
        artifacts = ["--artifacts-destination", f"s3://{BUCKET}/mlflow"]
        with mlflow_server(folder, options=artifacts) as port:
            uri = f"http://127.0.0.1:{port}"
            environment["MLFLOW_TRACKING_URI"] = uri
            path = job_file(folder)
            failing = half(3, "before", 503, 429)
            # One in eight of all requests: half of every fourth.
            proxy.fault = lambda number: failing(number) if number % 4 == 0 else None
            code, said = run(path, environment)
            proxy.heal()
            patch.setenv("MLFLOW_TRACKING_URI", uri)
            yield Finished(server, path, uri, code, said)


def test_the_job_ends_with_a_table_and_is_recorded(finished: Finished) -> None:
    assert finished.code == 0, finished.said
    assert "reference (to beat)" in finished.said
    assert "not recorded" not in finished.said
    assert f"report   {finished.tracking_uri}/#/experiments/" in finished.said


def test_all_of_it_is_in_s3(finished: Finished) -> None:
    there = finished.folder.list()
    assert {"job.json", "comparison/report.html", "comparison/accuracy.png"} <= set(there)
    cases = {key.split("/")[1] for key in there if key.startswith("cases/")}
    for case in cases:
        assert f"cases/{case}/result.json" in there
        assert any(key.startswith(f"cases/{case}/model/") for key in there)
    assert Storage(STORAGE).list("tables")
    assert not [key for key in there if key.startswith("checkpoints/") and key.endswith(".pt")]
    assert not finished.folder.exists("lease.json")


def test_the_files_of_mlflow_are_in_s3_and_its_model_can_be_loaded(finished: Finished) -> None:
    assert Storage(f"s3://{BUCKET}/mlflow").list()
    mlflow.set_tracking_uri(finished.tracking_uri)
    model = mlflow.pytorch.load_model("models:/digits-mobile@best")
    assert model(torch.zeros(3, 1, 16, 16)).shape == (3, 10)


def test_the_same_command_again_trains_nothing(finished: Finished) -> None:
    environment = {"MLFLOW_TRACKING_URI": finished.tracking_uri}
    code, said = run(finished.job_file, environment)
    assert code == 0, said
    assert "2 networks of search_mobile are in s3://bucket/runs/search_mobile; nothing" in said


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["compare", f"{STORAGE}/search_mobile"], "reference (to beat)"),
        (["status", f"{STORAGE}/search_mobile"], "done"),
        (["clean", f"{STORAGE}/search_mobile"], "stays"),
        (["record", f"{STORAGE}/search_mobile"], "/#/experiments/"),
    ],
)
def test_commands_take_a_folder_in_s3(
    finished: Finished,
    words: list[str],
    expected: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", finished.tracking_uri)
    assert main(words) == 0
    assert expected in capsys.readouterr().out


def test_a_network_in_s3_is_shown(finished: Finished, capsys: pytest.CaptureFixture[str]) -> None:
    case = next(
        k for k in finished.folder.list("cases") if k.endswith("result.json") and "ms/" in k
    )
    assert main(["show", finished.folder.where(case.rpartition("/")[0])]) == 0
    printed: Any = capsys.readouterr().out
    assert "ms" in printed
