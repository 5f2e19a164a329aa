"""Images of characters, rendered from the fonts that matplotlib brings along: nothing is loaded.

Every character of every font is drawn once, large; an image is such a drawing, turned, sheared,
stretched and moved a little, made small, with noise on its pixels. All of it comes from one seed.

    images, labels = glyphs(3200, seed=0)      # uint8 (3200, 1, 24, 24), int64 (3200,)

Source of the shapes: DejaVu, STIX and Computer Modern as installed with matplotlib (their licences
lie beside them). Shapes: N images, M drawings, R pixels of an image.
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
"""Those of matplotlib's fonts that have letters and digits."""

CHARACTERS = "abcdeghnopqsuvyz"
"""The classes, in the order of their labels: letters that look alike."""

DRAWN = 3
"""A drawing has this many pixels per pixel of an image, each way."""


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """How far an image may be from the drawing; each amount is drawn evenly from its range."""

    rotation: float = 0.4
    """At most this many radians either way."""
    shear: float = 0.4
    """At most this much sideways per pixel of height, either way."""
    stretch: float = 0.3
    """Width and height times 1 - stretch to 1 + stretch, each by itself."""
    shift: float = 0.2
    """At most this part of the image, each way."""
    noise: float = 0.05
    """Standard deviation of what is added to a pixel; black to white is 1."""


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
        seed: of every draw; images of another `part` are others.
        part: what the images are for, e.g. "train" or "test".
        characters: the classes.
        resolution: pixels of a side.
        distortion: how much the images differ from what the fonts say.

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
    """(M, 1, R * DRAWN, R * DRAWN), 0 to 1; all characters of a font, then those of the next."""
    drawn = [_draw(c, font, resolution) for font in _fonts(resolution) for c in characters]
    return torch.stack(drawn)[:, None].float() / 255


def _fonts(resolution: int) -> Iterator[ImageFont.FreeTypeFont]:
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    for name in FONTS.split():
        yield ImageFont.truetype(folder / f"{name}.ttf", size=round(0.8 * resolution * DRAWN))


def _draw(character: str, font: ImageFont.FreeTypeFont, resolution: int) -> Tensor:
    """(side, side), uint8: the ink in the middle, in the font's own size."""
    side = resolution * DRAWN
    left, top, right, bottom = font.getbbox(character)
    picture = Image.new("L", (side, side))
    corner = ((side - left - right) / 2, (side - top - bottom) / 2)
    ImageDraw.Draw(picture).text(corner, character, fill=255, font=font)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).reshape(side, side)


def _distorted(drawings: Tensor, by: Distortion, rng: torch.Generator) -> Tensor:
    """Drawings (n, 1, side, side) -> images (n, 1, R, R), uint8."""
    grid = F.affine_grid(_affine(len(drawings), by, rng), list(drawings.shape), align_corners=False)
    large = F.grid_sample(drawings, grid, align_corners=False)
    small = F.avg_pool2d(large, DRAWN)
    noise = by.noise * torch.randn(small.shape, generator=rng)
    return ((small + noise) * 255).round().clamp(0, 255).byte()


def _affine(count: int, by: Distortion, rng: torch.Generator) -> Tensor:
    """Maps from an image to its drawing, (n, 2, 3): turn, then shear, stretch and move."""

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
    """Images as floats, shifted and scaled so that the images `like` have mean 0, deviation 1."""
    pixels = like.double()
    return (images.float() - float(pixels.mean())) / float(pixels.std())


def sheet(images: Tensor, columns: int) -> Image.Image:
    """A picture of images (N, 1, R, R), uint8, row by row, to look at."""
    rows: Sequence[Tensor] = images[: len(images) // columns * columns, 0].split(columns)
    return Image.fromarray(torch.cat([torch.cat(list(row), 1) for row in rows]).numpy())
