"""Shape of an op, and rounding of channel counts. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf


@dataclass(frozen=True)
class OpShape:
    """Channels in and out and stride of an op, and the epsilon of its BatchNorm."""

    in_channels: int
    out_channels: int
    stride: int
    bn_eps: float = 1e-3

    @property
    def keeps_shape(self) -> bool:
        """Whether output and input have the same shape."""
        return self.stride == 1 and self.in_channels == self.out_channels


def make_divisible(channels: float) -> int:
    """Round `channels` to the nearest multiple of 8, at least 8 and at least 90 % of `channels`.

    Used for all channel counts that a width multiplier scales.

    Raises:
        ValueError: `channels` is not a finite number greater than 0.
    """
    if not 0 < channels < inf:
        raise ValueError(f"{channels} channels; expected a finite number greater than 0")
    nearest = max(8, int(channels + 4) // 8 * 8)
    return nearest + 8 if nearest < 0.9 * channels else nearest
