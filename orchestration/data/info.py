"""Facts about a data source that need no torch: size, classes, fingerprint."""

from __future__ import annotations

from dataclasses import dataclass

from orchestration.config.data import DataSettings


@dataclass(frozen=True)
class DataFacts:
    """What the driver has to know of a data source."""

    classes: tuple[str, ...]
    channels: int
    resolution: int
    count: int
    test_count: int
    """Of them in the test part, about: of folders, every class is split by itself."""
    fingerprint: str
    """Equal for equal images and labels."""


def size_gib(settings: DataSettings, count: int, channels: int) -> float:
    """Of so many images when they are decoded."""
    return count * channels * settings.resolution**2 / 1024**3


def is_streamed(settings: DataSettings, facts: DataFacts) -> bool:
    """Whether the images are read from their files as they are needed, since they do not fit."""
    size = size_gib(settings, facts.count, facts.channels)
    return settings.source == "parquet" and size > settings.memory_gib
