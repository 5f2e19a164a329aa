"""Sizes that a builder of a baseline needs, so that builders do not import the registry."""

from __future__ import annotations

from typing import Protocol


class BaselineSizes(Protocol):
    """Image channels, classes and strides of a baseline; `registry.Baseline` has them."""

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
        """Strides at the five places; see the head of `registry.py`."""
        ...
