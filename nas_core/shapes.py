"""Shape of an op, and rounding of channel counts. No torch in here."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class OpShape:
    """Where an op stands: channels in and out, stride, and the epsilon of its BatchNorm."""

    in_channels: int
    out_channels: int
    stride: int
    bn_eps: float = 1e-3

    @property
    def keeps_shape(self) -> bool:
        """Whether the output has the shape of the input."""
        return self.stride == 1 and self.in_channels == self.out_channels


def make_divisible(channels: float) -> int:
    """The multiple of 8 nearest to `channels`, or the next one where that is below 90 % of it.

    How every channel count under a width multiplier is rounded. At least 8.

    Raises:
        ValueError: `channels` is not a finite number greater than 0.
    """
    if not 0 < channels < inf:
        raise ValueError(f"{channels} channels; expected a finite number greater than 0")
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
