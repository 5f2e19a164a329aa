"""A worker loads the images of its case."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from orchestration.config.loading import SpecError
from orchestration.stages.context import CaseTask, load_images
from tests.support.opened_files import count_opened_files
from tests.support.worker_context import OneWorker, context_of, digits, tiny_job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Two classes of eight images."""
    for name, shade in (("dark", 10), ("light", 200)):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            Image.new("RGB", (20, 20), (shade + i,) * 3).save(
                tmp_path / "images" / name / f"{i}.png"
            )
    return tmp_path / "images"


def sent(images: Path, folder: Path) -> CaseTask:
    """The task of a case on these images, as a worker receives it."""
    data = {"source": "imagefolder", "path": str(images), "resolution": 16}
    task = context_of(tiny_job(folder, data=data), digits()).task
    return CaseTask.from_dict(json.loads(json.dumps(task.to_dict())))


def test_a_worker_reads_every_image_once(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = sent(images, tmp_path / "jobs")
    group: Any = OneWorker()
    opened = count_opened_files(monkeypatch, ".png")
    dataset: Any = load_images(task, group)
    assert Counter(opened) == dict.fromkeys(images.rglob("*.png"), 1)
    assert dataset.classes == task.data.classes == ("dark", "light")


def test_a_worker_notices_images_that_changed_since_the_driver_looked(
    images: Path, tmp_path: Path
) -> None:
    task = sent(images, tmp_path / "jobs")
    group: Any = OneWorker()
    Image.new("RGB", (20, 20)).save(images / "dark" / "0.png")
    with pytest.raises(SpecError, match="the images have changed since the job was started"):
        load_images(task, group)
