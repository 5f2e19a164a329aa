"""Decode images. Shapes: N images, C channels, H and W pixels, R pixels of a square's side."""

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
    """Decode an image to (channels, resolution, resolution), uint8; stretched, not cropped.

    Raises:
        ValueError: the bytes are not an image.
    """
    with opened(data) as file:
        image = pixels(file, channels)
    if image.shape[1:] == (resolution, resolution):
        return image
    return resize(image[None], resolution)[0]


@contextmanager
def opened(data: bytes) -> Iterator[Any]:
    """Open an encoded image with Pillow. Only its header is read; the block reads the pixels.

    Raises:
        ValueError: the bytes are not an image, or the block cannot decode it.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings(), Image.open(io.BytesIO(data)) as file:
            warnings.simplefilter("ignore")  # e.g. for palette images with transparency
            yield file
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        reason = str(error).partition(" <_io.")[0]  # Pillow appends the object it reads from
        raise ValueError(f"not an image: {reason}") from None


def pixels(file: Any, channels: int, least: tuple[int, int] | None = None) -> Tensor:
    """Pixels of an opened image, (channels, H, W), uint8.

    Args:
        file: the image.
        channels: 1 for grey, 3 for colour.
        least: smallest width and height that are sufficient. A JPEG is then decoded at a half, a
            quarter or an eighth of its size if that is large enough, which is faster.
    """
    mode = "L" if channels == 1 else "RGB"
    if least is not None:
        file.draft(mode, least)
    image = file if file.mode == mode else file.convert(mode)
    content = bytearray(image.tobytes())
    raw = torch.frombuffer(content, dtype=torch.uint8).view(image.size[1], image.size[0], channels)
    return raw.permute(2, 0, 1)


def resize(images: Tensor, resolution: int) -> Tensor:
    """Resize uint8 images (N, C, H, W) to (N, C, R, R), bilinear with antialiasing."""
    size = (resolution, resolution)
    scaled = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return scaled.round().clamp(0, 255).byte()
