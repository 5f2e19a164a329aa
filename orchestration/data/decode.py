"""Encoded images to pixels. Shapes: C channels, H and W pixels, R of a square."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def decode_image(data: bytes, channels: int, resolution: int) -> Tensor:
    """An encoded image as (channels, resolution, resolution), uint8; stretched, not cropped.

    Raises:
        ValueError: the bytes are no image.
    """
    with opened(data) as file:
        image = pixels(file, channels)
    if image.shape[1:] == (resolution, resolution):
        return image
    return resize(image[None], resolution)[0]


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """A Pillow image whose head is read; what is wrong with it is found out in the block.

    Raises:
        ValueError: the bytes are no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as file:
            warnings.simplefilter("ignore")  # e.g. palette images with transparency: decoded well
            yield file
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <_io.")[0]  # Pillow names the object that it reads from
        raise ValueError(f"not an image: {reason}") from None


def pixels(file: Any, channels: int, least: tuple[int, int] | None = None) -> Tensor:
    """An opened image as (channels, H, W), uint8.

    Args:
        file: the image.
        channels: 1 for grey, 3 for colour.
        least: width and height of which it may be made smaller, where that saves time: a JPEG can
            be computed at a half, a quarter or an eighth of its size.
    """
    mode = "L" if channels == 1 else "RGB"
    if least is not None:
        file.draft(mode, least)
    image = file if file.mode == mode else file.convert(mode)
    found = bytearray(image.tobytes())
    raw = torch.frombuffer(found, dtype=torch.uint8).view(image.size[1], image.size[0], channels)
    return raw.permute(2, 0, 1)


def resize(images: Tensor, resolution: int) -> Tensor:
    """uint8 (N, C, H, W) to square uint8 images, bilinear with antialiasing."""
    size = (resolution, resolution)
    scaled = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte()
