"""Images in memory: split, order of batches, augmentation, image folders."""

from __future__ import annotations

import io
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cluster.storage import Storage
from orchestration.config.data import DataSettings
from orchestration.config.loading import SpecError
from orchestration.data.dataset import Dataset, ImageSet, normalise
from orchestration.data.decode import decode_image
from orchestration.data.loader import MemoryLoader, evaluation_batches
from orchestration.data.loading import load_dataset, split_classes
from orchestration.data.sources import describe
from orchestration.data.transforms import moved
from tests.support.opened_files import count_opened_files


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load_dataset(DataSettings(source="digits", resolution=8), seed=0)


def numbered(count: int, classes: int = 3) -> ImageSet:
    """Images whose pixels are their own number."""
    images = torch.arange(count).byte()[:, None, None, None].expand(-1, 1, 4, 4).contiguous()
    return ImageSet(images, torch.arange(count) % classes)


def test_the_digits_are_split_by_class_and_whole(digits: Dataset) -> None:
    assert len(digits.train) + len(digits.test) == 1797
    for label in range(10):
        test = int((digits.test.labels == label).sum())
        total = test + int((digits.train.labels == label).sum())
        assert abs(test - 0.25 * total) <= 0.5


def test_an_image_is_in_one_part_only() -> None:
    chosen, rest = split_classes(numbered(100), 0.3, seed=1, purpose="test split")
    values = sorted([*chosen.images[:, 0, 0, 0].tolist(), *rest.images[:, 0, 0, 0].tolist()])
    assert values == list(range(100))


def test_the_split_is_the_same_for_a_seed_and_another_for_another() -> None:
    first, again, other = (split_classes(numbered(90), 0.3, s, "x")[0].images for s in (1, 1, 2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_every_class_is_in_both_parts_however_small() -> None:
    chosen, rest = split_classes(numbered(6), 0.01, seed=0, purpose="x")
    assert set(chosen.labels.tolist()) == set(rest.labels.tolist()) == {0, 1, 2}


@pytest.mark.parametrize("size", [1, 2, 3])
def test_every_image_is_seen_once_a_pass_whatever_the_number_of_workers(size: int) -> None:
    loaders = [
        MemoryLoader(numbered(50), (0.0,), (1 / 255,), 16, 0, "x", rank=rank, size=size)
        for rank in range(size)
    ]
    for this_pass in range(2):
        start = this_pass * loaders[0].steps
        batches = [list(itertools.islice(each.batches(start), each.steps)) for each in loaders]
        numbers = torch.cat([b.images[:, 0, 0, 0] for worker in batches for b in worker]).round()
        assert sorted(numbers.int().tolist()) == list(range(50))
        for parts in zip(*batches, strict=True):
            assert sum(len(part.labels) for part in parts) == parts[0].total <= 16
            assert sum(part.share for part in parts) == pytest.approx(1)


def test_two_workers_share_the_batch_that_one_would_have() -> None:
    def first(rank: int, size: int) -> torch.Tensor:
        loader = MemoryLoader(
            numbered(40), (0.0,), (1.0,), 8, 0, "x", rank, size, max_shift=0.25, flip=True
        )
        return next(loader.batches(3)).images

    assert torch.equal(torch.cat([first(0, 2), first(1, 2)]), first(0, 1))


def test_batches_go_on_where_a_stopped_run_was() -> None:
    loader = MemoryLoader(numbered(40), (0.0,), (1.0,), 8, 0, "x", max_shift=0.25)
    straight = list(itertools.islice(loader.batches(0), 12))
    for start in (1, 5, 7):
        resumed = next(loader.batches(start))
        assert torch.equal(resumed.images, straight[start].images)
        assert torch.equal(resumed.labels, straight[start].labels)


def test_passes_differ_in_order() -> None:
    loader = MemoryLoader(numbered(40), (0.0,), (1.0,), 40, 0, "x")
    first, second = itertools.islice(loader.batches(0), 2)
    assert not torch.equal(first.images, second.images)


def test_more_workers_than_images_in_a_batch_are_refused() -> None:
    with pytest.raises(SpecError, match="raise batch_size or take fewer workers"):
        MemoryLoader(numbered(10), (0.0,), (1.0,), 2, 0, "x", rank=0, size=4)


def test_a_moved_image_is_what_numpy_makes_of_it() -> None:
    images = torch.randint(0, 255, (3, 2, 5, 5), dtype=torch.uint8)
    shifts = torch.tensor([[0, 0], [1, -2], [-3, 4]])
    for image, (down, right), shifted in zip(
        images, shifts.tolist(), moved(images, shifts), strict=True
    ):
        padded = np.pad(image.numpy(), ((0, 0), (5, 5), (5, 5)), mode="edge")
        expected = padded[:, 5 - down : 10 - down, 5 - right : 10 - right]
        assert np.array_equal(shifted.numpy(), expected)


def test_normalised_training_images_have_mean_0_and_deviation_1(digits: Dataset) -> None:
    images = normalise(digits.train.images, digits.mean, digits.std)
    assert images.mean().item() == pytest.approx(0, abs=1e-5)
    assert images.std().item() == pytest.approx(1, abs=1e-4)


def test_the_parts_of_all_workers_make_the_test_set() -> None:
    data = numbered(7)
    for size in (1, 2, 9):
        parts = [b for r in range(size) for b in evaluation_batches(data, (0.0,), (1.0,), r, size)]
        assert torch.cat([part.labels for part in parts]).tolist() == data.labels.tolist()


def encoded(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def test_an_image_of_the_right_size_is_decoded_as_it_is() -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (16, 16, 3), dtype=np.uint8)
    assert np.array_equal(decode_image(encoded(pixels), 3, 16).permute(1, 2, 0).numpy(), pixels)


def test_bytes_that_are_no_image_are_refused() -> None:
    with pytest.raises(ValueError, match="not an image"):
        decode_image(b"GIF89a but not really", 3, 16)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cats", "dogs"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(8):
            pixels = rng.integers(0, 255, (20, 30, 3), dtype=np.uint8)
            (tmp_path / "images" / name / f"{i}.png").write_bytes(encoded(pixels))
    return tmp_path / "images"


def test_own_images_take_their_classes_from_the_folders(folder: Path) -> None:
    settings = DataSettings(source="imagefolder", path=str(folder), resolution=16)
    facts, data = describe(settings), load_dataset(settings, seed=0)
    assert facts.classes == data.classes == ("cats", "dogs")
    assert (facts.count, facts.channels) == (16, 3)
    assert data.train.images.shape == (12, 3, 16, 16)
    assert data.test.labels.tolist() == [0, 0, 1, 1]


def test_changed_images_have_another_fingerprint(folder: Path) -> None:
    settings = DataSettings(source="imagefolder", path=str(folder), resolution=16)
    before = describe(settings).fingerprint
    assert describe(settings).fingerprint == before
    (folder / "cats" / "0.png").write_bytes((folder / "dogs" / "0.png").read_bytes())
    assert describe(settings).fingerprint != before


def test_every_image_is_read_once_to_describe_a_folder_and_once_to_load_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = DataSettings(source="imagefolder", path=str(folder), resolution=16)
    opened = count_opened_files(monkeypatch, ".png")
    facts = describe(settings)
    assert Counter(opened) == dict.fromkeys(folder.rglob("*.png"), 1)
    opened.clear()
    load_dataset(settings, seed=0, facts=facts)
    assert Counter(opened) == dict.fromkeys(folder.rglob("*.png"), 1)


def test_images_that_changed_since_they_were_described_are_refused(folder: Path) -> None:
    settings = DataSettings(source="imagefolder", path=str(folder), resolution=16)
    facts = describe(settings)
    (folder / "cats" / "0.png").write_bytes((folder / "dogs" / "0.png").read_bytes())
    with pytest.raises(SpecError, match="the images have changed since the job was started"):
        load_dataset(settings, seed=0, facts=facts)


def test_no_glyphs_are_kept_under_the_fingerprint_of_other_ones(tmp_path: Path) -> None:
    settings = DataSettings(source="glyphs", resolution=16)
    facts, store = replace(describe(settings), fingerprint="glyphs/other"), Storage(str(tmp_path))
    with pytest.raises(SpecError, match="their fingerprint was glyphs/other and is glyphs/"):
        load_dataset(settings, 0, store, facts)
    assert store.list() == []


def test_a_folder_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="expected one folder per class, at least two"):
        describe(DataSettings(source="imagefolder", path=str(tmp_path)))


def test_a_file_that_is_no_image_is_named_before_anything_starts(folder: Path) -> None:
    (folder / "dogs" / "broken.jpg").write_bytes(b"nothing")
    with pytest.raises(SpecError, match=r"broken\.jpg is not an image.*mend or remove"):
        describe(DataSettings(source="imagefolder", path=str(folder)))


def test_a_class_with_too_few_images_is_named(folder: Path) -> None:
    for path in sorted((folder / "cats").iterdir())[2:]:
        path.unlink()
    with pytest.raises(SpecError, match=r"cats holds 2 images .* expected at least 4"):
        describe(DataSettings(source="imagefolder", path=str(folder)))


def test_a_missing_folder_is_named() -> None:
    with pytest.raises(SpecError, match=r"data.path is '/nowhere'; expected a folder"):
        describe(DataSettings(source="imagefolder", path="/nowhere"))
