"""Streamed images: the same as in memory, each once per epoch, resumable at any step."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cluster.storage import Storage
from nas_core.batch import Batch
from orchestration.config.data import DataSettings, StreamSettings
from orchestration.config.loading import SpecError
from orchestration.data.dataset import ImageSet
from orchestration.data.loading import load_dataset
from orchestration.data.streaming import reader
from orchestration.data.streaming.dataset import StreamedDataset, load_streamed
from orchestration.data.streaming.loader import StreamLoader, streamed_batches
from orchestration.data.streaming.ray_data import StreamError
from orchestration.data.transforms import Recipe, recipe_of
from tests.support.image_sets import converted_folder
from tests.support.local_streams import Here, reading

NONE = Recipe("none")


def settings(path: str, **more: Any) -> DataSettings:
    stream = StreamSettings(lanes=3, window_mib=1)
    words: dict[str, Any] = {"resolution": 12, "stream": stream, "test_share": 0.25, **more}
    return DataSettings(source="parquet", path=path, **words)


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return converted_folder(tmp_path_factory.mktemp("own"))


@pytest.fixture
def data(own: Storage) -> StreamedDataset:
    return load_streamed(settings(own.uri), None)


def loader(data: StreamedDataset, **changes: Any) -> StreamLoader:
    one = StreamLoader(data.train, 16, 0, "x", NONE, reading())
    return replace(one, **changes)


def pixels(batches: list[Batch]) -> list[bytes]:
    return [bytes(image.numpy()) for batch in batches for image in batch.images]


def whole_pass(item: StreamLoader, number: int = 0) -> list[Batch]:
    return list(islice(item.batches(number * item.steps), item.steps))


def test_images_of_an_epoch_are_those_that_memory_would_hold(
    own: Storage, data: StreamedDataset
) -> None:
    held = load_dataset(settings(own.uri), 0)
    assert isinstance(held.train, ImageSet)
    expected = sorted(bytes(image.numpy()) for image in held.train.images)
    for number in range(2):
        assert sorted(pixels(whole_pass(loader(data), number))) == expected
    test = list(streamed_batches(data.test, NONE, reading(), batch_size=10))
    assert sorted(pixels(test)) == sorted(bytes(image.numpy()) for image in held.test.images)


def test_files_that_stay_open_keep_no_row_groups(data: StreamedDataset) -> None:
    import pyarrow as pa

    reader._open.cache_clear()
    before = pa.total_allocated_bytes()
    whole_pass(loader(data))
    assert reader._open.cache_info().currsize > 1
    images = sum(Path(path).stat().st_size for path in data.train.index.paths)
    assert (
        pa.total_allocated_bytes() - before < images / 10
    )  # with buffering it would be all of them


def test_labels_stay_with_their_images(own: Storage, data: StreamedDataset) -> None:
    held = load_dataset(settings(own.uri), 0).train
    assert isinstance(held, ImageSet)
    known = {bytes(i.numpy()): int(n) for i, n in zip(held.images, held.labels, strict=True)}
    for batch in whole_pass(loader(data)):
        for image, label in zip(batch.images, batch.labels, strict=True):
            assert known[bytes(image.numpy())] == int(label)


@pytest.mark.parametrize("size", [2, 3])
def test_workers_share_the_batch_of_one(data: StreamedDataset, size: int) -> None:
    recipe = Recipe("shift", max_shift=0.2, flip=True)
    alone = whole_pass(loader(data, recipe=recipe))
    workers = [whole_pass(loader(data, recipe=recipe, rank=r, size=size)) for r in range(size)]
    for step, batch in enumerate(alone):
        parts = [worker[step] for worker in workers]
        assert torch.equal(torch.cat([part.images for part in parts]), batch.images)
        assert {part.total for part in parts} == {batch.total == len(batch.labels) and batch.total}
        firsts = np.cumsum([0, *(len(part.labels) for part in parts)])[:-1].tolist()
        assert [part.first for part in parts] == firsts


def test_a_resumed_worker_goes_on_with_the_same_batches(data: StreamedDataset) -> None:
    one = loader(data, recipe=Recipe("crop", flip=True, crop_area=0.3, brightness=0.4))
    straight = list(islice(one.batches(0), 2 * one.steps))
    for start in (1, one.steps - 1, one.steps, one.steps + 3):
        resumed = next(one.batches(start))
        assert torch.equal(resumed.images, straight[start].images)


def test_the_next_pass_is_read_before_this_one_ends(data: StreamedDataset) -> None:
    opened: list[Here] = []

    def note(*words: Any) -> Here:
        opened.append(Here(*words))
        return opened[-1]

    one = loader(data, reading=reading(opened=note))
    batches = one.batches(0)
    list(islice(batches, one.steps - 1))
    assert len(opened) == 2
    batches.close()
    assert [source.closed for source in opened] == [1, 1]


def test_more_workers_than_lanes_are_refused(data: StreamedDataset) -> None:
    with pytest.raises(SpecError, match=r"data.stream.lanes is 3, and 4 workers read; expected a"):
        loader(data, size=4)
    with pytest.raises(SpecError, match=r"in batches of 2 leave none for some of 3 lanes; raise"):
        loader(data, batch_size=2)


def test_parts_do_not_meet(data: StreamedDataset) -> None:
    held, weight = data.train.split_architecture(0.3)
    rows = [set(part.rows.tolist()) for part in (data.test, held, weight)]
    assert sum(map(len, rows)) == len(set.union(*rows)) == 180
    assert all(rows)


def test_a_part_lies_in_few_row_groups(data: StreamedDataset) -> None:
    held, _ = data.train.split_architecture(0.1)
    assert len(held.sizes) < len(data.train.sizes) / 4


def test_statistics_are_those_of_training_images(own: Storage, data: StreamedDataset) -> None:
    held = load_dataset(settings(own.uri), 0)
    assert data.mean == pytest.approx(held.mean, abs=0.02)
    assert data.std == pytest.approx(held.std, abs=0.02)
    assert data.shape == held.shape == (3, 12, 12)
    assert data.examples(4).shape == (4, 3, 12, 12)


def test_index_and_statistics_are_kept(own: Storage, tmp_path: Path) -> None:
    storage = Storage(str(tmp_path))
    first, again = (load_streamed(settings(own.uri), storage) for _ in range(2))
    assert (first.mean, first.std) == (again.mean, again.std)
    assert (first.train.index.hashes == again.train.index.hashes).all()
    assert first.train.index.is_ordered
    assert [key.rpartition("/")[2] for key in storage.list("data")] == [
        "index.parquet",
        "statistics-12x3-0.25-shift.json",
    ]


def test_an_image_that_cannot_be_decoded_is_left_out_and_told(
    own: Storage, data: StreamedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.data.streaming import reader

    real, broken = reader.decoded, []

    def decoded(image: bytes, *words: Any) -> torch.Tensor:
        if not broken or image in broken:
            broken[:] = [image]
            raise ValueError("not an image: cut off")
        return real(image, *words)

    monkeypatch.setattr(reader, "decoded", decoded)
    reported: list[str] = []
    one = loader(data, reading=reading(on_problems=reported.extend))
    batches = whole_pass(one)
    assert sum(len(batch.labels) for batch in batches) == len(data.train) - 1
    assert sum(batch.total for batch in batches) == len(data.train)
    (problem,) = set(reported)
    assert problem.endswith("\tnot an image: cut off")
    assert problem.partition("/")[0] in ("cats", "dogs", "mice")


def test_a_batch_of_which_nothing_can_be_decoded_is_an_error(
    data: StreamedDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    from orchestration.data.streaming import reader

    def decoded(*_: Any) -> torch.Tensor:
        raise ValueError("no")

    monkeypatch.setattr(reader, "decoded", decoded)
    with pytest.raises(StreamError, match=r"none of a worker's 1\d images of a batch can be"):
        next(loader(data).batches(0))


def test_colours_change_in_retraining_alone(own: Storage) -> None:
    asked = settings(own.uri, brightness=0.4)
    assert not recipe_of(asked, is_retraining=False).has_jitter
    assert recipe_of(asked, is_retraining=True).has_jitter
