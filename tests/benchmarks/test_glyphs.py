"""The renderer of characters that the benchmarks train on."""

from __future__ import annotations

import pytest
import torch

from tests.benchmarks.glyphs import CHARACTERS, FONTS, Distortion, glyphs, standardised

DRAWINGS = len(CHARACTERS) * len(FONTS.split())
STILL = Distortion(rotation=0, shear=0, stretch=0, shift=0, noise=0)


def test_images_are_those_of_the_seed() -> None:
    first, again = glyphs(40, seed=1), glyphs(40, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))


@pytest.mark.parametrize("other", [{"seed": 2}, {"seed": 1, "part": "test"}])
def test_images_of_another_seed_or_part_are_others(other: dict[str, object]) -> None:
    assert not torch.equal(glyphs(40, seed=1)[0], glyphs(40, **other)[0])


def test_every_class_is_as_frequent() -> None:
    _, labels = glyphs(2 * DRAWINGS, seed=0)
    assert labels.bincount().tolist() == [2 * len(FONTS.split())] * len(CHARACTERS)


def test_undistorted_images_are_the_drawings_of_the_fonts() -> None:
    images, _ = glyphs(2 * DRAWINGS, seed=0, distortion=STILL)
    # Few fonts share a glyph: an image that comes twice is the same drawing.
    assert 0.95 * DRAWINGS <= len(images.flatten(1).unique(dim=0)) <= DRAWINGS


def test_the_same_letter_of_the_same_font_has_the_same_label() -> None:
    images, labels = glyphs(2 * DRAWINGS, seed=0, distortion=STILL)
    _, which = images.flatten(1).unique(dim=0, return_inverse=True)
    pairs = {(int(drawing), int(label)) for drawing, label in zip(which, labels, strict=True)}
    assert len(pairs) == len({drawing for drawing, _ in pairs})


def test_noise_has_the_deviation_that_was_asked_for() -> None:
    noisy = Distortion(rotation=0, shear=0, stretch=0, shift=0, noise=0.2)
    images, _ = glyphs(200, seed=0, distortion=noisy)
    ink_free = images[:, 0, :2].double() / 255  # the border, where noise below 0 is cut off
    assert float(ink_free[ink_free > 0].square().mean().sqrt()) == pytest.approx(0.2, rel=0.05)


def test_images_have_the_resolution_that_was_asked_for() -> None:
    images, _ = glyphs(10, seed=0, resolution=32)
    assert (images.shape, images.dtype) == ((10, 1, 32, 32), torch.uint8)


def test_standardised_images_have_mean_0_and_deviation_1() -> None:
    images, _ = glyphs(100, seed=0)
    result = standardised(images, images).double()
    assert (float(result.mean()), float(result.std())) == pytest.approx((0.0, 1.0), abs=1e-5)
