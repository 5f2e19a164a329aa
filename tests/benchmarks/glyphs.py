"""Images of characters, rendered from the fonts that matplotlib ships, so no download is needed.

Every character of every font is drawn once, large. An image is such a drawing, rotated, sheared,
stretched and shifted a little, scaled down, with noise on its pixels. One seed determines all.

    images, labels = glyphs(3200, seed=0)      # uint8 (3200, 1, 24, 24), int64 (3200,)

Source of the shapes: DejaVu, STIX and Computer Modern as installed with matplotlib (their licences
lie beside them). Shapes: N images, M drawings, R pixels per side of an image.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import matplotlib
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from nas_core.randomness import generator

FONTS = (
    "DejaVuSans DejaVuSans-Bold DejaVuSans-Oblique DejaVuSans-BoldOblique "
    "DejaVuSansMono DejaVuSansMono-Bold DejaVuSansMono-Oblique DejaVuSansMono-BoldOblique "
    "DejaVuSerif DejaVuSerif-Bold DejaVuSerif-Italic DejaVuSerif-BoldItalic "
    "STIXGeneral STIXGeneralBol STIXGeneralItalic STIXGeneralBolIta "
    "cmr10 cmb10 cmss10 cmtt10 cmti10"
)
"""Fonts of matplotlib that have letters and digits."""

CHARACTERS = "abcdeghnopqsuvyz"
"""Classes in the order of their labels: letters that look alike."""

DRAWN = 3
"""Pixels of a drawing per pixel of an image, in each direction."""


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Distortion of a drawing; each amount is drawn uniformly from its range."""

    rotation: float = 0.4
    """Largest rotation in either direction, radians."""
    shear: float = 0.4
    """Largest shear in either direction, pixels sideways per pixel of height."""
    stretch: float = 0.3
    """Width and height are scaled by 1 - stretch to 1 + stretch, independently."""
    shift: float = 0.2
    """Largest shift in each direction, as a share of the image."""
    noise: float = 0.05
    """Standard deviation of the noise added to a pixel; black to white is 1."""


def glyphs(
    count: int,
    *,
    seed: int,
    part: str = "train",
    characters: str = CHARACTERS,
    resolution: int = 24,
    distortion: Distortion | None = None,
) -> tuple[Tensor, Tensor]:
    """Images of characters, all classes and fonts equally often, in random order.

    Args:
        count: how many images.
        seed: determines every draw, together with `part`.
        part: use of the images, e.g. "train" or "test"; each part gets other images.
        characters: the classes.
        resolution: pixels per side.
        distortion: how much the images may differ from the drawings.

    Returns:
        Images (N, 1, R, R), uint8, ink bright; labels (N,), int64.
    """
    rng = generator(seed, f"glyphs {part}", count, resolution)
    drawings = _drawings(characters, resolution)
    which = torch.randperm(count, generator=rng) % len(drawings)
    chunks = [
        _distorted(drawings[some], distortion or Distortion(), rng) for some in which.split(1024)
    ]
    return torch.cat(chunks), which % len(characters)


@cache
def _drawings(characters: str, resolution: int) -> Tensor:
    """Drawings, shape (M, 1, R * DRAWN, R * DRAWN), 0 to 1; all characters of a font together."""
    drawn = [_draw(c, font, resolution) for font in _fonts(resolution) for c in characters]
    return torch.stack(drawn)[:, None].float() / 255


def _fonts(resolution: int) -> Iterator[ImageFont.FreeTypeFont]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in FONTS.split():
        yield ImageFont.truetype(folder / f"{name}.ttf", size=round(0.8 * resolution * DRAWN))


def _draw(character: str, font: ImageFont.FreeTypeFont, resolution: int) -> Tensor:
    """Drawing of a character in its font size, centred; shape (side, side), uint8."""
    side = resolution * DRAWN
    left, top, right, bottom = font.getbbox(character)
    picture = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(picture).text(corner, character, fill=255, font=font)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(side, side)


def _distorted(drawings: Tensor, by: Distortion, rng: torch.Generator) -> Tensor:
    """Images of shape (n, 1, R, R), uint8, from drawings of shape (n, 1, side, side)."""
    grid = F.affine_grid(_affine(len(drawings), by, rng), list(drawings.shape), align_corners=False)
    large = F.grid_sample(drawings, grid, align_corners=False)
    small = F.avg_pool2d(large, DRAWN)
    noise = by.noise * torch.randn(small.shape, generator=rng)
    return ((small + noise) * 255).round().clamp(0, 255).byte()


def _affine(count: int, by: Distortion, rng: torch.Generator) -> Tensor:
    """Affine maps from an image to its drawing, shape (n, 2, 3): rotate, shear, stretch, shift."""

    def evenly(largest: float) -> Tensor:
        return largest * (2 * torch.rand(count, generator=rng) - 1)

    angle, shear = evenly(by.rotation), evenly(by.shear)
    wide, high = 1 + evenly(by.stretch), 1 + evenly(by.stretch)
    cos, sin = angle.cos(), angle.sin()
    right, down = 2 * evenly(by.shift), 2 * evenly(by.shift)  # the grid goes from -1 to 1
    first = torch.stack([cos / wide, (cos * shear - sin) / high, right], dim=1)
    second = torch.stack([sin / wide, (sin * shear + cos) / high, down], dim=1)
    return torch.stack([first, second], dim=1)


def standardised(images: Tensor, like: Tensor) -> Tensor:
    """Images as floats, standardised with the mean and standard deviation of `like`."""
    pixels = like.double()
    return (images.float() - float(pixels.mean())) / float(pixels.std())


def sheet(images: Tensor, columns: int) -> Image.Image:
    """Contact sheet of images of shape (N, 1, R, R), uint8, row by row."""
    rows: Sequence[Tensor] = images[: len(images) // columns * columns, 0].split(columns)
    return Image.fromarray(torch.cat([torch.cat(list(row), 1) for row in rows]).numpy())
