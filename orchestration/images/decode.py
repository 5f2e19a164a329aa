"""Encoded images to pixels. Shapes: C channels, H and W pixels, R of a square."""

from __future__ import annotations

import io
import warnings

import torch
import torch.nn.functional as F
from torch import Tensor


def decode_image(data: bytes, channels: int, resolution: int) -> Tensor:
    """An encoded image as (channels, resolution, resolution), uint8; stretched, not cropped.

    Raises:
        ValueError: the bytes are no image.
    """
    return resize(pixels(data, channels)[None], resolution)[0]


def pixels(data: bytes, channels: int, least: tuple[int, int] | None = None) -> Tensor:
    """An encoded image as (channels, H, W), uint8.

    Args:
        data: in a format that Pillow reads.
        channels: 1 for grey, 3 for colour.
        least: width and height of which it may be made smaller, where that saves time: a JPEG can
            be computed at a half, a quarter or an eighth of its size.

    Raises:
        ValueError: the bytes are no image.
    """
    from PIL import Image, UnidentifiedImageError

    mode = "L" if channels == 1 else "RGB"
    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as file:
            warnings.simplefilter("ignore")  # e.g. palette images with transparency: decoded well
            if least is not None:
                file.draft(mode, least)
            image = file.convert(mode)
            size, found = image.size, bytearray(image.tobytes())
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <_io.")[0]  # Pillow names the object that it reads from
        raise ValueError(f"not an image: {reason}") from None
    raw = torch.frombuffer(found, dtype=torch.uint8).reshape(size[1], size[0], channels)
    return raw.permute(2, 0, 1)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height of an encoded image, without decoding it.

    Raises:
        ValueError: the bytes are no image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as file:
            warnings.simplefilter("ignore")
            width, height = file.size
            return width, height
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <_io.")[0]
        raise ValueError(f"not an image: {reason}") from None


def resize(images: Tensor, resolution: int) -> Tensor:
    """uint8 (N, C, H, W) to square uint8 images, bilinear with antialiasing."""
    size = (resolution, resolution)
    scaled = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte()
