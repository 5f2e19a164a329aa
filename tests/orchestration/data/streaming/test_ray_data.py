"""Streams on Ray: order, killed readers, missing files, and streams closed early."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from cluster.storage import Storage
from orchestration.config.data import DataSettings, GlyphSettings, StreamSettings
from orchestration.data.parquet.samples import glyph_listing
from orchestration.data.streaming.dataset import StreamedDataset, load_streamed
from orchestration.data.streaming.loader import StreamLoader
from orchestration.data.streaming.ray_data import Pipeline, StreamError, reason_of
from orchestration.data.transforms import Recipe
from tests.support.image_sets import converted, small_shards
from tests.support.local_streams import Here, reading

pytestmark = [
    pytest.mark.slow,
    pytest.mark.ray,
    # Ray Data warns about its own settings.
    pytest.mark.filterwarnings("ignore:`use_.*` is deprecated"),
]
COUNT = 1500


@pytest.fixture(scope="module")
def ray_of_two_cores() -> Iterator[None]:
    import ray

    before = dict(os.environ)
    os.environ["PYTHONPATH"] = os.getcwd()
    ray.init("local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    """A set of glyphs in about twenty row groups."""
    dest = Storage(str(tmp_path_factory.mktemp("set") / "set"))
    settings = GlyphSettings(classes=4, train=16, test=16)
    with pytest.MonkeyPatch.context() as patch:
        small_shards(patch)
        patch.setattr("orchestration.data.parquet.convert.GROUP_BYTES", 40_000)
        converted(glyph_listing(settings, COUNT, 16, 1, "png"), dest)
    return dest


@pytest.fixture
def data(own: Storage) -> StreamedDataset:
    stream = StreamSettings(lanes=2, window_mib=1)
    words: dict[str, Any] = {"resolution": 16, "channels": 1, "memory_gib": 0.0, "stream": stream}
    return load_streamed(DataSettings(source="parquet", path=own.uri, **words), None)


def loader(data: StreamedDataset, **words: Any) -> StreamLoader:
    recipe = Recipe("shift", max_shift=0.1, flip=True)
    words = {"readers": 2, "opened": Pipeline, **words}
    return StreamLoader(data.train, 64, 0, "x", recipe, reading(**words))


def readers() -> list[psutil.Process]:
    """Processes of this Ray that run a task of a stream."""
    mine = psutil.Process().children(recursive=True)
    running = []
    for process in mine:
        try:
            if "MapBatches" in " ".join(process.cmdline()):
                running.append(process)
        except psutil.Error:
            continue
    return running


def test_ray_reads_what_one_process_reads(ray_of_two_cores: None, data: StreamedDataset) -> None:
    on_ray, here = loader(data), loader(data, opened=Here)
    count = 2 * on_ray.steps
    for batch, other in zip(
        islice(on_ray.batches(3), count), islice(here.batches(3), count), strict=True
    ):
        assert np.array_equal(batch.images.numpy(), other.images.numpy())
        assert batch.labels.tolist() == other.labels.tolist()


def test_readers_that_are_killed_cost_no_image(
    ray_of_two_cores: None, data: StreamedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    hashes: list[int] = []
    one = loader(data)
    monkeypatch.setattr(
        type(one.reading), "batch", lambda _self, block, *_: hashes.extend(block["hash"].tolist())
    )
    killed = 0
    for _ in islice(one.batches(0), one.steps):
        if killed < 3 and (running := readers()):
            os.kill(running[0].pid, signal.SIGKILL)
            killed += 1
    assert killed > 0
    assert sorted(hashes) == sorted(data.train.hashes.tolist())


def test_a_stream_that_is_left_ends_its_tasks(
    ray_of_two_cores: None, data: StreamedDataset
) -> None:
    batches = loader(data).batches(0)
    next(batches)
    batches.close()
    deadline = time.monotonic() + 20
    while readers() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not readers()


def test_a_file_that_is_gone_is_named(
    ray_of_two_cores: None, data: StreamedDataset, own: Storage, tmp_path: Path
) -> None:
    import shutil

    from orchestration.data.streaming import reader

    place = tmp_path / "set"
    shutil.copytree(own.path(), place)
    index = data.train.index
    moved = tuple(str(place / Path(file).name) for file in index.paths)
    there = type(index)(moved, index.files, index.numbers, index.starts, index.hashes, index.labels)
    train = type(data.train)(there, data.train.rows, data.train.settings, 1)
    Path(moved[-1]).unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader, "ATTEMPTS", 1)
        words: Any = (64, 0, "x", Recipe("none"), reading(readers=2, opened=Pipeline))
        with pytest.raises(
            StreamError, match=rf"^{moved[-1]} cannot be read, row group \d+: .*; see"
        ):
            for _ in islice(StreamLoader(train, *words).batches(0), 100):
                pass


def test_the_reason_of_an_error_is_its_last_line() -> None:
    text = "ray::x()\n  File ...\norchestration.images.reader.ReadError: a.parquet cannot be read"
    assert reason_of(RuntimeError(f"{text}\nFailed to apply")) == "a.parquet cannot be read"
    assert reason_of(RuntimeError(text)) == "a.parquet cannot be read"
    assert reason_of(ValueError()) == "ValueError"
