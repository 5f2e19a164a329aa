"""Data source `glyphs`: characters rendered from the fonts that matplotlib ships.

Every character of every font is drawn once, large. An image is such a drawing: rotated, sheared,
stretched, shifted, reduced in size, with noise on its pixels and, if it has colours, with random
colours of ink and paper. Every image has random draws of its own, so any number can be made, and
nothing is downloaded.

After the drawing all arithmetic is on integers drawn from the seed, so images are the same on every
machine with the same versions of matplotlib and of FreeType in Pillow; `checksum` verifies it.
Parts (train, test) use different draws and, if requested, different fonts.

Fonts: DejaVu, STIX and Computer Modern as matplotlib installs them, with their licences.
Shapes: N images, M drawings, C channels, R pixels of a side, S = R * DRAWN.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from nas_core.randomness import generator
from orchestration.config.data import CHARACTERS, FONTS, GlyphSettings

DRAWN = 3
"""Pixels of a drawing per pixel of an image, in each direction."""

UNIT = 1 << 16
"""The number 1 in fixed-point arithmetic."""

CHUNK = 256
"""Number of images whose random numbers are drawn together."""

PIXELS = 1 << 18
"""Pixels of the drawings that are transformed at a time, so that they fit into a CPU cache."""


class Glyphs(NamedTuple):
    """Rendered images."""

    images: Tensor
    """(N, C, R, R), uint8. With one channel, ink is bright on dark paper."""
    labels: Tensor
    """(N,), int64: indices into CHARACTERS."""
    fonts: Tensor
    """(N,), int64: indices into FONTS."""


def render(
    settings: GlyphSettings, part: str, count: int, resolution: int, channels: int
) -> Glyphs:
    """Render the images of a part: all classes and fonts equally often, in random order.

    Args:
        settings: characters, distortions, noise, seed.
        part: name of the part. Different parts have different images.
        count: N.
        resolution: R.
        channels: 1 for grey, 3 for colour.
    """
    labels, fonts = letters(settings, part, count, resolution)
    chunks = [
        render_chunk(settings, part, number, labels[rows], fonts[rows], resolution, channels)
        for number, rows in enumerate(torch.split(torch.arange(count), CHUNK))
    ]
    return Glyphs(torch.cat(chunks), labels, fonts)


def letters(
    settings: GlyphSettings, part: str, count: int, resolution: int
) -> tuple[Tensor, Tensor]:
    """Labels and fonts of the images of a part, both (N,)."""
    fonts = fonts_of(settings, part)
    rng = generator(settings.seed, f"glyphs {part}", resolution)
    turn = torch.randperm(count, generator=rng)
    return turn % settings.classes, torch.tensor(fonts)[turn // settings.classes % len(fonts)]


def render_chunk(
    settings: GlyphSettings,
    part: str,
    number: int,
    labels: Tensor,
    fonts: Tensor,
    resolution: int,
    channels: int,
) -> Tensor:
    """Render rows number * CHUNK to (number + 1) * CHUNK of a part: (n, C, R, R), n <= CHUNK."""
    drawings = _drawings(settings.classes, resolution)[fonts * settings.classes + labels]
    rng = generator(settings.seed, f"{part} images", number)
    return _images(drawings, settings, channels, rng)


def checksum(images: Tensor, labels: Tensor) -> str:
    """Sixteen hexadecimal digits that identify images and labels."""
    digest = hashlib.sha256(images.contiguous().numpy().tobytes())
    digest.update(labels.to(torch.int64).contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def fonts_of(settings: GlyphSettings, part: str) -> list[int]:
    """Fonts of a part. With `separate_fonts`: every fourth for the test, the rest for others."""
    every = range(len(FONTS))
    if not settings.separate_fonts:
        return list(every)
    return [font for font in every if (font % 4 == 3) == (part == "test")]


@cache
def _drawings(classes: int, resolution: int) -> Tensor:
    """Drawings (M, S + 2, S + 2), uint8, with an empty border, ordered by font, then character."""
    import matplotlib
    from PIL import ImageFont

    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    size = round(0.8 * resolution * DRAWN)
    fonts = [ImageFont.truetype(folder / f"{name}.ttf", size) for name in FONTS]
    drawn = [_draw(c, font, resolution * DRAWN) for font in fonts for c in CHARACTERS[:classes]]
    return torch.stack(drawn)


def _draw(character: str, font: object, side: int) -> Tensor:
    """Draw a character in the centre: (S + 2, S + 2), uint8, at the natural size of the font."""
    from PIL import Image, ImageDraw, ImageFont

    assert isinstance(font, ImageFont.FreeTypeFont)
    left, top, right, bottom = font.getbbox(character)
    picture = Image.new("L", (side + 2, side + 2))
    corner = ((side + 2 - left - right) // 2, (side + 2 - top - bottom) // 2)
    ImageDraw.Draw(picture).text(corner, character, fill=255, font=font)
    for edge in ((0, 0, side + 2, 1), (0, side + 1, side + 2, side + 2)):
        picture.paste(0, edge)
    for edge in ((0, 0, 1, side + 2), (side + 1, 0, side + 2, side + 2)):
        picture.paste(0, edge)
    return torch.frombuffer(bytearray(picture.tobytes()), dtype=torch.uint8).view(side + 2, -1)


def _images(
    drawings: Tensor, settings: GlyphSettings, channels: int, rng: torch.Generator
) -> Tensor:
    """Distorted images (n, C, R, R), uint8, of drawings (n, S + 2, S + 2)."""
    side = drawings.shape[1] - 2
    maps, some = _maps(len(drawings), settings, side, rng), max(1, PIXELS // side**2)
    pairs = zip(torch.split(drawings, some), torch.split(maps, some), strict=True)
    ink = torch.cat([_reduced(_transformed(*pair)) for pair in pairs])
    if channels == 3:
        ink = _coloured(ink, rng)
    noise = _noise(ink.shape, settings.noise, rng)
    return (ink + noise).clamp_(0, 255).to(torch.uint8)


def _maps(count: int, settings: GlyphSettings, side: int, rng: torch.Generator) -> Tensor:
    """Affine maps from pixels of an image to pixels of its drawing: (n, 2, 3), fixed-point.

    Rotation, then shear, stretch and shift, by amounts drawn uniformly from their ranges.
    """
    draws = torch.randint(-1000, 1001, (6, count), generator=rng).double() / 1000
    angle, shear = settings.rotation * draws[0], settings.shear * draws[1]
    wide, high = 1 + settings.stretch * draws[2], 1 + settings.stretch * draws[3]
    right, down = side * settings.shift * draws[4], side * settings.shift * draws[5]
    cos, sin = angle.cos(), angle.sin()
    first = torch.stack([cos / wide, (cos * shear - sin) / high, right], dim=1)
    second = torch.stack([sin / wide, (sin * shear + cos) / high, down], dim=1)
    return (torch.stack([first, second], dim=1) * UNIT).round().to(torch.int32)


def _transformed(drawings: Tensor, maps: Tensor) -> Tensor:
    """Drawings transformed by their maps, (n, S, S). Pixels from outside are empty."""
    count, side = len(drawings), drawings.shape[1] - 2
    steps = 2 * torch.arange(side, dtype=torch.int32) - (
        side - 1
    )  # twice the distance from the centre

    def coordinates(row: Tensor) -> Tensor:
        middle = UNIT * (side - 1) + 2 * row[:, 2, None, None] + UNIT  # plus half a pixel, to round
        along = row[:, 1, None, None] * steps[None, :, None] + middle
        across = row[:, 0, None, None] * steps[None, None, :]
        return (across + along).bitwise_right_shift_(17).clamp_(-1, side)

    # One flat 32-bit index takes half the time of `gather`, which needs 64 bits.
    index = coordinates(maps[:, 1]).mul_(side + 2).add_(coordinates(maps[:, 0])).add_(side + 3)
    index += (torch.arange(count, dtype=torch.int32) * (side + 2) ** 2)[:, None, None]
    return drawings.reshape(-1).index_select(0, index.view(-1)).view(-1, side, side)


def _reduced(large: Tensor) -> Tensor:
    """Reduce (n, S, S), uint8 -> (n, 1, R, R), int32: the mean of each DRAWN x DRAWN square."""
    n, side, _ = large.shape
    small = side // DRAWN
    across = _sum([part.to(torch.int16) for part in large.view(n, small, DRAWN, side).unbind(2)])
    squares = _sum(
        across.view(n, small, small, DRAWN).unbind(3)
    )  # takes a third of the time of `sum`
    return (squares.to(torch.int32) // DRAWN**2)[:, None]


def _sum(parts: Sequence[Tensor]) -> Tensor:
    total = parts[0].clone()
    for part in parts[1:]:
        total += part
    return total


def _coloured(ink: Tensor, rng: torch.Generator) -> Tensor:
    """Random colours of ink and paper per image: (n, 1, R, R) -> (n, 3, R, R).

    In every channel they differ by at least a third of the range.
    """
    count = len(ink)
    paper = torch.randint(0, 256, (count, 3), generator=rng, dtype=torch.int32)
    away = torch.randint(86, 171, (count, 3), generator=rng, dtype=torch.int32)
    ink_colour = (paper + away) % 256
    steps = (ink_colour - paper)[:, :, None, None] * ink
    return paper[:, :, None, None] + steps.div(255, rounding_mode="floor")


def _noise(shape: Sequence[int], deviation: float, rng: torch.Generator) -> Tensor:
    """Integer noise with mean 0, nearly normal: the scaled sum of four random bytes."""
    if deviation == 0:
        return torch.zeros(shape, dtype=torch.int32)
    bytes_ = torch.randint(0, 256, (4, *shape), generator=rng, dtype=torch.uint8)
    total = bytes_.sum(0, dtype=torch.int32) - 510
    scale = round(deviation * 255 * UNIT / math.sqrt(4 * (256**2 - 1) / 12))
    return (total * scale + UNIT // 2) >> 16
