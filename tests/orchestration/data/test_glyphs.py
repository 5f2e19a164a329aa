"""Rendered characters: reproducible, balanced, different by part, distorted as configured."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.storage import Storage
from orchestration.config.data import CHARACTERS, FONTS, DataSettings, GlyphSettings
from orchestration.data import loading
from orchestration.data.glyphs import (
    Glyphs,
    checksum,
    fonts_of,
    render,
)
from orchestration.data.loading import keep_images, load_dataset, split_classes
from orchestration.data.npz import tensors_from_bytes, tensors_to_bytes
from orchestration.data.sources import describe

FEW = GlyphSettings(train=400, test=300)
STILL = replace(FEW, rotation=0, shear=0, stretch=0, shift=0, noise=0)
DRAWINGS = 16 * len(FONTS)


def rendered(settings: GlyphSettings = FEW, part: str = "train", count: int = 64) -> Glyphs:
    return render(settings, part, count, resolution=24, channels=1)


def test_images_are_the_same_as_ever() -> None:
    """Checksum for matplotlib 3.11 and FreeType 2.14, the same on every machine."""
    result = render(FEW, "train", 640, resolution=24, channels=1)
    assert checksum(result.images, result.labels) == "5f1ef79818f53e2d"


def test_images_are_those_of_the_seed() -> None:
    first, again = rendered(), rendered()
    assert checksum(*first[:2]) == checksum(*again[:2])
    assert checksum(*rendered(replace(FEW, seed=1))[:2]) != checksum(*first[:2])
    assert checksum(*rendered(part="test")[:2]) != checksum(*first[:2])


def test_classes_and_fonts_are_equally_frequent() -> None:
    result = rendered(count=2 * DRAWINGS)
    assert result.labels.bincount().tolist() == [2 * len(FONTS)] * 16
    assert result.fonts.bincount().tolist() == [2 * 16] * len(FONTS)


def test_undistorted_images_are_the_drawings_of_the_fonts() -> None:
    result = rendered(STILL, count=2 * DRAWINGS)
    images, which = result.images.flatten(1).unique(dim=0, return_inverse=True)
    # Few fonts share a glyph, so equal images are the same drawing.
    assert 0.95 * DRAWINGS <= len(images) <= DRAWINGS
    pairs = {(int(a), int(b)) for a, b in zip(which, result.labels, strict=True)}
    assert len(pairs) == len(images)


def middle(images: torch.Tensor) -> torch.Tensor:
    """Centre of mass of the ink (N, 2), in pixels from the centre of the image: down, right."""
    ink = images[:, 0].double()
    steps = torch.arange(ink.shape[1]) - (ink.shape[1] - 1) / 2
    mass = ink.sum((1, 2))
    down = (ink.sum(2) * steps).sum(1) / mass
    right = (ink.sum(1) * steps).sum(1) / mass
    return torch.stack([down, right], dim=1)


def test_images_are_moved_by_up_to_what_is_asked() -> None:
    still, moved = rendered(STILL, count=400), rendered(replace(STILL, shift=0.1), count=400)
    by = (middle(moved.images) - middle(still.images)).abs()
    assert 2.0 < float(by.max()) < 0.1 * 24 + 0.3
    assert float(by.mean()) == pytest.approx(0.05 * 24, rel=0.1)


def test_a_quarter_turn_is_one() -> None:
    turned = rendered(replace(STILL, rotation=3.14159265 / 2), count=DRAWINGS)
    upright = rendered(STILL, count=DRAWINGS)
    mass = turned.images.double().sum((1, 2, 3)) / upright.images.double().sum((1, 2, 3))
    assert float((mass - 1).abs().max()) < 0.12  # no ink is lost or added


def test_a_stretched_image_has_that_much_more_ink() -> None:
    wide = rendered(replace(STILL, stretch=0.3), count=2 * DRAWINGS)
    upright = rendered(STILL, count=2 * DRAWINGS)
    mass = wide.images.double().sum((1, 2, 3)) / upright.images.double().sum((1, 2, 3))
    assert 0.4 < float(mass.min()) < 0.6  # .7 squared is .49
    assert 1.5 < float(mass.max()) < 1.8  # 1.3 squared is 1.69


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    noisy = rendered(replace(STILL, noise=0.2), count=200)
    free = noisy.images[:, 0, :2].double() / 255  # the border; values below 0 are clipped
    assert float(free[free > 0].square().mean().sqrt()) == pytest.approx(0.2, rel=0.05)


@pytest.mark.parametrize("classes", [2, 62])
def test_as_many_characters_as_asked_for(classes: int) -> None:
    asked = replace(FEW, classes=classes)
    result = rendered(asked, count=5 * classes)
    assert sorted(set(result.labels.tolist())) == list(range(classes))
    assert len(set(CHARACTERS)) == len(CHARACTERS) == 62


def test_colours_of_ink_and_paper_are_drawn_anew_for_each_image() -> None:
    result = render(STILL, "train", 64, resolution=24, channels=3)
    corners = result.images[:, :, 0, 0]
    assert result.images.shape == (64, 3, 24, 24)
    assert len(corners.unique(dim=0)) == 64
    contrast = result.images.flatten(2).int()
    assert int((contrast.amax(2) - contrast.amin(2)).amax(1).min()) > 80


def test_fonts_of_parts_are_separate_where_asked() -> None:
    apart = replace(FEW, separate_fonts=True)
    train, test = set(fonts_of(apart, "train")), set(fonts_of(apart, "test"))
    assert train | test == set(range(len(FONTS)))
    assert train & test == set()
    assert len(test) == len(FONTS) // 4
    assert set(rendered(apart, "test", 16 * 5).fonts.tolist()) == test
    assert fonts_of(FEW, "train") == fonts_of(FEW, "test")


def test_a_file_holds_the_same_images() -> None:
    result = rendered()
    again = Glyphs(**tensors_from_bytes(tensors_to_bytes(**result._asdict())))
    assert all(torch.equal(a, b) for a, b in zip(result, again, strict=True))


@pytest.fixture
def settings() -> DataSettings:
    return DataSettings(source="glyphs", resolution=16, glyphs=FEW)


def test_a_dataset_has_its_parts(settings: DataSettings) -> None:
    result = load_dataset(settings, seed=5)
    assert (len(result.train), len(result.test)) == (400, 300)
    assert result.classes == tuple("abcdeghnopqsuvyz")
    facts = describe(settings)
    assert (facts.count, facts.test_count, facts.channels) == (700, 300, 1)
    assert torch.equal(result.train.images, load_dataset(settings, seed=6).train.images)


def test_images_are_rendered_once_and_kept(
    settings: DataSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = Storage(str(tmp_path))
    keep_images(settings, storage)
    assert len(storage.list("data")) == 2
    fresh = load_dataset(settings, seed=0)
    monkeypatch.setattr(loading, "render", None)
    stored = load_dataset(settings, seed=0, storage=storage)
    assert torch.equal(stored.train.images, fresh.train.images)
    assert torch.equal(stored.test.labels, fresh.test.labels)


OTHERS = [
    DataSettings(source="glyphs", resolution=24, glyphs=FEW),
    DataSettings(source="glyphs", resolution=16, channels=3, glyphs=FEW),
    DataSettings(source="glyphs", resolution=16, glyphs=replace(FEW, noise=0.1)),
]


@pytest.mark.parametrize("other", OTHERS)
def test_other_images_have_another_fingerprint(settings: DataSettings, other: DataSettings) -> None:
    assert describe(settings).fingerprint != describe(other).fingerprint


def test_the_architecture_part_has_fonts_of_its_own_where_asked() -> None:
    apart = replace(FEW, separate_fonts=True)
    train = load_dataset(DataSettings(source="glyphs", resolution=16, glyphs=apart), 0).train
    held_out, weight = split_classes(train, 0.2, seed=0, purpose="architecture split")
    assert held_out.groups is not None
    assert weight.groups is not None
    assert not set(held_out.groups.tolist()) & set(weight.groups.tolist())
    assert len(set(held_out.groups.tolist())) == 3  # of fifteen fonts
    assert len(held_out) + len(weight) == len(train)
