"""What happens to an image on its way to a network, in training and in the test.

`shift` moves and mirrors images as they are; `crop` is the published recipe: a part of the image at
random, made square, mirrored half of the time, its colours changed a little where a network is
retrained; in the test the middle of the image. All on tensors, with torchvision's v2 transforms.
Shapes: C channels, H and W pixels of an image, R of what a network sees, U numbers drawn for each.

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
"""Crops that are drawn until one fits into the image."""
NUMBERS = 6 + 4 * TRIES
"""U."""
MARGIN = 8 / 7
"""Of the test: images are made so much larger than what is cut from their middle: 256 for 224."""
SHAPES = (3 / 4, 4 / 3)
"""Width by height of crops."""


@dataclass(frozen=True)
class Recipe:
    """How images are augmented."""

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
        """What the same images are when nothing is drawn."""
        return Recipe(self.kind if self.kind == "crop" else "none", is_training=False)

    @property
    def needs_numbers(self) -> bool:
        """Whether more is drawn than how far an image moves and whether it is mirrored."""
        return self.kind == "crop" or self.has_jitter

    @property
    def has_jitter(self) -> bool:
        """Whether colours change."""
        return max(self.brightness, self.contrast, self.saturation) > 0


def recipe_of(settings: DataSettings, *, is_retraining: bool) -> Recipe:
    """That of training images; colours change in retraining alone."""
    found = Recipe(
        kind=settings.augment,
        max_shift=settings.max_shift if settings.augment == "shift" else 0.0,
        flip=settings.flip and settings.augment != "none",
        crop_area=settings.crop_area,
    )
    if not is_retraining:
        return found
    names = ("brightness", "contrast", "saturation")
    return replace(found, **{name: getattr(settings, name) for name in names})


def decoded(
    data: bytes, channels: int, resolution: int, recipe: Recipe, drawn: Sequence[float] = ()
) -> Tensor:
    """An encoded image, made square: (C, R, R), uint8. With `crop` a part of it.

    Args:
        data: the image.
        channels: C.
        resolution: R.
        recipe: how it is augmented.
        drawn: U numbers from 0 to below 1, for training.

    Raises:
        ValueError: the bytes are no image.
    """
    if recipe.kind != "crop":
        return decode_image(data, channels, resolution)
    with opened(data) as file:
        width, height = file.size
        is_drawn = recipe.is_training
        box = crop_box(width, height, recipe.crop_area, drawn[6:]) if is_drawn else None
        box = box or middle_box(width, height)
        # Not smaller than what is cut out of it has to be.
        scale = min(1.0, max(resolution / box[2], resolution / box[3]))
        least = (math.ceil(width * scale), math.ceil(height * scale))
        image = pixels(file, channels, least)
    return cut(image, box, (width, height), resolution)


def finished(images: Tensor, recipe: Recipe, drawn: Tensor) -> Tensor:
    """Square images (N, C, R, R), uint8, moved, mirrored and coloured with (N, U) numbers."""
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
    """The same of images that were made square before, of which crops may be drawn."""
    if recipe.kind == "crop" and recipe.is_training:
        side = images.shape[-1]
        boxes = [crop_box(side, side, recipe.crop_area, one) for one in drawn[:, 6:].tolist()]
        pairs = zip(images, boxes, strict=True)
        images = torch.stack([cut(image, box, (side, side), side) for image, box in pairs])
    return finished(images, recipe, drawn)


Box = tuple[float, float, float, float]
"""Left, top, width and height, in pixels of the whole image."""


def crop_box(width: int, height: int, least_area: float, drawn: Sequence[float]) -> Box:
    """A part of an image: an area and a shape at random, anywhere; the middle if none fits."""
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
    """The square in the middle that is left of an image without its margin."""
    side = min(width, height) / MARGIN
    return ((width - side) / 2, (height - side) / 2, side, side)


def cut(image: Tensor, box: Box, whole: tuple[int, int], resolution: int) -> Tensor:
    """The part of an image that a box names in pixels of the `whole` one, made square."""
    from torchvision.transforms.v2 import functional as V

    across, down = image.shape[2] / whole[0], image.shape[1] / whole[1]
    left, width = round(box[0] * across), max(1, round(box[2] * across))
    top, height = round(box[1] * down), max(1, round(box[3] * down))
    size = [resolution, resolution]
    found: Tensor = V.resized_crop(image, top, left, height, width, size, antialias=True)
    return found


def moved(images: Tensor, shifts: Tensor) -> Tensor:
    """Each (C, H, W) image moved down and right by its (2,) shift; the border is repeated."""
    height, width = images.shape[2:]
    steps = torch.arange(max(height, width), device=images.device)
    rows = (steps[:height] - shifts[:, :1]).clamp(0, height - 1)
    columns = (steps[:width] - shifts[:, 1:]).clamp(0, width - 1)
    n, c = images.shape[:2]
    rows = rows[:, None, :, None].expand(n, c, height, width)
    columns = columns[:, None, None, :].expand(n, c, height, width)
    return images.gather(2, rows).gather(3, columns)


def coloured(image: Tensor, recipe: Recipe, drawn: Sequence[float]) -> Tensor:
    """Brightness, contrast and saturation times 1 - amount to 1 + amount, in this order."""
    from torchvision.transforms.v2 import functional as V

    amounts = (recipe.brightness, recipe.contrast, recipe.saturation)
    changes = (V.adjust_brightness, V.adjust_contrast, V.adjust_saturation)
    for amount, change, u in zip(amounts, changes, drawn, strict=True):
        if amount and not (change is V.adjust_saturation and image.shape[0] == 1):
            image = change(image, 1 + amount * (2 * u - 1))
    return image
