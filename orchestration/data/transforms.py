"""Augmentation of training images, and the transform of test images.

`shift` translates and mirrors images that are already square. `crop` is the published recipe: a
random crop resized to a square, mirrored with probability 0.5, with colour jitter in retraining; in
the test a centre crop. Everything works on tensors, with torchvision's v2 transforms.
Shapes: N images, C channels, H and W pixels of an image, R pixels of a side of the network's input,
U random numbers per image.

Source: the sizes and shapes of crops are those of Szegedy et al., "Going deeper with convolutions"
(CVPR 2015), section 6; the retraining recipe is that of Cai, Zhu & Han, "ProxylessNAS" (ICLR 2019).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from orchestration.config.data import DataSettings
from orchestration.data.decode import decode_image, opened, pixels

Kind = Literal["none", "shift", "crop"]
TRIES = 10
"""Number of crops that are tried until one fits into the image."""
NUMBERS = 6 + 4 * TRIES
"""U: two for the shift, one for the flip, three for colours, four for each try of a crop."""
MARGIN = 8 / 7
"""Ratio of the shorter side of a test image to the side of its centre crop, e.g. 256 / 224."""
SHAPES = (3 / 4, 4 / 3)
"""Smallest and largest aspect ratio (width / height) of crops."""


@dataclass(frozen=True)
class Recipe:
    """Settings of an augmentation."""

    kind: Kind
    is_training: bool = True
    max_shift: float = 0.0
    flip: bool = False
    crop_area: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0

    @property
    def for_test(self) -> Recipe:
        """Deterministic transform of the same images, for evaluation."""
        return Recipe(self.kind if self.kind == "crop" else "none", is_training=False)

    @property
    def needs_numbers(self) -> bool:
        """Whether crops or colours are drawn, in addition to shifts and flips."""
        return self.kind == "crop" or self.has_jitter

    @property
    def has_jitter(self) -> bool:
        """Whether brightness, contrast or saturation change."""
        return max(self.brightness, self.contrast, self.saturation) > 0


def recipe_of(settings: DataSettings, *, is_retraining: bool) -> Recipe:
    """Recipe of training images. Colours change in retraining only."""
    recipe = Recipe(
        kind=settings.augment,
        max_shift=settings.max_shift if settings.augment == "shift" else 0.0,
        flip=settings.flip and settings.augment != "none",
        crop_area=settings.crop_area,
    )
    if not is_retraining:
        return recipe
    names = ("brightness", "contrast", "saturation")
    return replace(recipe, **{name: getattr(settings, name) for name in names})


def decoded(
    data: bytes, channels: int, resolution: int, recipe: Recipe, drawn: Sequence[float] = ()
) -> Tensor:
    """Decode an image to a square: (C, R, R), uint8. The recipe `crop` decodes a part of it.

    Args:
        data: the encoded image.
        channels: C.
        resolution: R.
        recipe: the augmentation.
        drawn: U numbers in [0, 1), for training.

    Raises:
        ValueError: the bytes are not an image.
    """
    if recipe.kind != "crop":
        return decode_image(data, channels, resolution)
    with opened(data) as file:
        width, height = file.size
        is_drawn = recipe.is_training
        box = crop_box(width, height, recipe.crop_area, drawn[6:]) if is_drawn else None
        box = box or middle_box(width, height)
        # Decode at a reduced size, but keep at least R pixels per side of the crop.
        scale = min(1.0, max(resolution / box[2], resolution / box[3]))
        least = (math.ceil(width * scale), math.ceil(height * scale))
        image = pixels(file, channels, least)
    return cut(image, box, (width, height), resolution)


def finished(images: Tensor, recipe: Recipe, drawn: Tensor) -> Tensor:
    """Shift, mirror and recolour square images (N, C, R, R), uint8, by (N, U) random numbers."""
    if not recipe.is_training:
        return images
    most = int(recipe.max_shift * images.shape[-1])
    if most:
        images = moved(images, (drawn[:, :2] * (2 * most + 1)).long() - most)
    if recipe.flip:
        images = torch.where(drawn[:, 2, None, None, None] < 0.5, images.flip(3), images)
    if recipe.has_jitter:
        pairs = zip(images, drawn[:, 3:6].tolist(), strict=True)
        images = torch.stack([coloured(image, recipe, numbers) for image, numbers in pairs])
    return images


def augmented(images: Tensor, recipe: Recipe, drawn: Tensor) -> Tensor:
    """Crop (if the recipe says so), shift, mirror and recolour images that are square already."""
    if recipe.kind == "crop" and recipe.is_training:
        side = images.shape[-1]
        boxes = [crop_box(side, side, recipe.crop_area, row) for row in drawn[:, 6:].tolist()]
        pairs = zip(images, boxes, strict=True)
        images = torch.stack([cut(image, box, (side, side), side) for image, box in pairs])
    return finished(images, recipe, drawn)


Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the whole image."""


def crop_box(width: int, height: int, least_area: float, drawn: Sequence[float]) -> Box:
    """A crop of random area, aspect ratio and position; a centre crop if no try fits."""
    low, high = (math.log(shape) for shape in SHAPES)
    for i in range(TRIES):
        area, shape, x, y = drawn[4 * i : 4 * i + 4]
        size = width * height * (least_area + (1 - least_area) * area)
        ratio = math.exp(low + (high - low) * shape)
        w, h = round(math.sqrt(size * ratio)), round(math.sqrt(size / ratio))
        if 0 < w <= width and 0 < h <= height:
            return (int(x * (width - w + 1)), int(y * (height - h + 1)), w, h)
    shape = min(max(width / height, SHAPES[0]), SHAPES[1])
    w, h = min(width, round(height * shape)), min(height, round(width / shape))
    return ((width - w) // 2, (height - h) // 2, w, h)


def middle_box(width: int, height: int) -> Box:
    """Centre crop of a test image: a square without the margin."""
    side = min(width, height) / MARGIN
    return ((width - side) / 2, (height - side) / 2, side, side)


def cut(image: Tensor, box: Box, whole: tuple[int, int], resolution: int) -> Tensor:
    """Crop and resize to (C, R, R). The box is in pixels of an image of size `whole`."""
    from torchvision.transforms.v2 import functional as V

    across, down = image.shape[2] / whole[0], image.shape[1] / whole[1]
    left, width = round(box[0] * across), max(1, round(box[2] * across))
    top, height = round(box[1] * down), max(1, round(box[3] * down))
    size = [resolution, resolution]
    crop: Tensor = V.resized_crop(image, top, left, height, width, size, antialias=True)
    return crop


def moved(images: Tensor, shifts: Tensor) -> Tensor:
    """Shift each (C, H, W) image down and right by its (2,) shift; edge pixels are repeated."""
    height, width = images.shape[2:]
    steps = torch.arange(max(height, width), device=images.device)
    rows = (steps[:height] - shifts[:, :1]).clamp(0, height - 1)
    columns = (steps[:width] - shifts[:, 1:]).clamp(0, width - 1)
    n, c = images.shape[:2]
    rows = rows[:, None, :, None].expand(n, c, height, width)
    columns = columns[:, None, None, :].expand(n, c, height, width)
    return images.gather(2, rows).gather(3, columns)


def coloured(image: Tensor, recipe: Recipe, drawn: Sequence[float]) -> Tensor:
    """Scale brightness, contrast and saturation, in this order, by 1 - amount to 1 + amount."""
    from torchvision.transforms.v2 import functional as V

    amounts = (recipe.brightness, recipe.contrast, recipe.saturation)
    changes = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation)
    for amount, change, u in zip(amounts, changes, drawn, strict=True):
        if amount and not (change is V.adjust_saturation and image.shape[0] == 1):
            image = change(image, 1 + amount * (2 * u - 1))
    return image
