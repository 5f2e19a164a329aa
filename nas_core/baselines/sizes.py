"""Sizes that the builder of a baseline needs; keeps builders from importing the registry."""

from __future__ import annotations

from typing import Protocol


class BaselineSizes(Protocol):
    """Image channels, classes and strides of a baseline; implemented by `registry.Baseline`."""

    @property
    def in_channels(self) -> int:
        """Channels of the images."""
        ...

    @property
    def classes(self) -> int:
        """Number of logits."""
        ...

    @property
    def place_strides(self) -> tuple[int, ...]:
        """Strides at the five downsampling steps; see the head of `registry.py`."""
        ...
