"""Crops, shifts and colours: their distributions, and that they repeat for the same image."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from orchestration.data.decode import decode_image, opened, pixels
from orchestration.data.split import hashes_of
from orchestration.data.streaming.reader import draws
from orchestration.data.transforms import (
    NUMBERS,
    Recipe,
    augmented,
    crop_box,
    decoded,
    finished,
    middle_box,
)

HASHES = hashes_of([str(i) for i in range(4000)])


def drawn(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, NUMBERS, generator=torch.Generator().manual_seed(seed)).double()


def image(width: int, height: int, kind: str = "PNG") -> bytes:
    """Horizontal gradient from black to white."""
    row = np.linspace(0, 255, width).round().astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(np.broadcast_to(row[None, :, None], (height, width, 3)).copy()).save(file, kind)
    return file.getvalue()


def test_draws_are_even_and_independent() -> None:
    result = draws(HASHES, 3, 0, "x", 0)
    assert (result >= 0).all()
    assert (result < 1).all()
    for column in result.T:
        counts, _ = np.histogram(column, 10, (0, 1))
        assert abs(counts - 400).max() < 80  # four standard deviations
    assert abs(np.corrcoef(result.T) - np.eye(3)).max() < 0.06


def test_draws_follow_from_key_seed_purpose_and_epoch() -> None:
    result = draws(HASHES, 3, 0, "x", 0)
    some = np.arange(0, 4000, 7)[::-1]
    assert np.array_equal(draws(HASHES[some], 3, 0, "x", 0), result[some])
    for other in ((1, "x", 0), (0, "y", 0), (0, "x", 1)):
        assert not (draws(HASHES, 3, *other) == result).any()


@given(
    width=st.integers(1, 600),
    height=st.integers(1, 600),
    least=st.floats(0.05, 1),
    seed=st.integers(0, 2**31),
)
def test_crops_lie_in_the_image(width: int, height: int, least: float, seed: int) -> None:
    numbers = drawn(1, seed)[0, 6:].tolist()
    left, top, w, h = crop_box(width, height, least, numbers)
    assert 0 <= left <= left + w <= width
    assert 0 <= top <= top + h <= height
    assert min(w, h) > 0 or min(width, height) == 1


def test_crops_have_the_areas_and_shapes_of_the_recipe() -> None:
    boxes = [crop_box(400, 300, 0.08, row) for row in drawn(3000)[:, 6:].tolist()]
    areas = np.array([w * h / 120_000 for _, _, w, h in boxes])
    shapes = np.array([w / h for _, _, w, h in boxes])
    assert areas.min() == pytest.approx(0.08, abs=0.005)
    assert areas.max() < 1.001
    assert 0.74 < shapes.min() < 0.76
    assert 1.31 < shapes.max() < 1.35


def test_an_image_into_which_no_crop_fits_gives_its_middle() -> None:
    assert crop_box(1000, 10, 1.0, drawn(1)[0, 6:].tolist()) == (493, 0, 13, 10)


def test_the_test_sees_the_middle() -> None:
    assert middle_box(400, 256) == (400 / 2 - 112, 16, 224, 224)
    recipe = Recipe("crop").for_test
    result = decoded(image(256, 256), 3, 224, recipe, [0.0] * NUMBERS)
    assert result.shape == (3, 224, 224)
    assert result[0, 0, [0, -1]].tolist() == pytest.approx([16, 239], abs=1)


def test_a_jpeg_that_is_computed_smaller_gives_nearly_the_same_crop() -> None:
    data, numbers = image(800, 600, "JPEG"), drawn(1)[0].tolist()
    recipe = Recipe("crop", crop_area=0.9)
    result = decoded(data, 3, 64, recipe, numbers).float()
    exact = decoded(image(800, 600), 3, 64, recipe, numbers).float()
    assert (result - exact).abs().mean() < 2


def test_a_jpeg_is_never_made_smaller_than_what_is_cut() -> None:
    with opened(image(800, 600, "JPEG")) as file:
        assert pixels(file, 3, (300, 225)).shape == (3, 300, 400)


def test_shifts_and_mirrors_are_those_of_images_in_memory() -> None:
    images = torch.arange(2 * 5 * 5).view(2, 1, 5, 5).byte()
    numbers = torch.full((2, NUMBERS), 0.5).double()
    numbers[0, 0], numbers[1, 2] = 0.99, 0.0  # down by one; mirrored
    result = finished(images, Recipe("shift", max_shift=0.2, flip=True), numbers)
    assert result[0, 0, 0].tolist() == result[0, 0, 1].tolist() == images[0, 0, 0].tolist()
    assert torch.equal(result[1], images[1].flip(2))


def test_half_of_the_images_are_mirrored() -> None:
    images = torch.arange(4).view(1, 1, 1, 4).byte().expand(1000, -1, -1, -1)
    result = augmented(images, Recipe("crop", flip=True, crop_area=1.0), drawn(1000))
    assert 430 < int((result[:, 0, 0, 0] > result[:, 0, 0, 3]).sum()) < 570


def test_colours_change_within_their_amounts() -> None:
    images = torch.full((500, 3, 2, 2), 100, dtype=torch.uint8)
    result = finished(images, Recipe("none", brightness=0.2), drawn(500)).float()
    assert result.min() < 83
    assert result.max() > 117
    assert 80 <= result.min() <= result.max() <= 120
    assert torch.equal(finished(images, Recipe("none"), drawn(500)), images)


def test_nothing_is_drawn_for_the_test() -> None:
    images = torch.randint(0, 256, (8, 3, 6, 6)).byte()
    recipe = Recipe("crop", flip=True, crop_area=0.1, brightness=0.5, saturation=0.5).for_test
    assert torch.equal(augmented(images, recipe, drawn(8)), images)


def test_an_image_of_the_right_size_is_taken_as_it_is() -> None:
    result = decode_image(image(16, 16), 3, 16)
    assert result[0, 0].tolist() == np.linspace(0, 255, 16).round().tolist()
