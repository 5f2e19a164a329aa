"""Facts about a data source that need no torch: size, classes, fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.config.data import DataSettings
from orchestration.config.loading import SpecError


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

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataFacts:
        """The inverse of `dataclasses.asdict`, also after JSON."""
        return cls(**{**values, "classes": tuple(values["classes"])})

    def check_unchanged(self, fingerprint: str) -> None:
        """Refuse images that are not those that the driver has described.

        Raises:
            SpecError: `fingerprint`, of the images as they are now, is another one.
        """
        if fingerprint != self.fingerprint:
            raise SpecError(
                f"data: the images have changed since the job was started (their fingerprint was "
                f"{self.fingerprint} and is {fingerprint}); start it again"
            )


def size_gib(settings: DataSettings, count: int, channels: int) -> float:
    """Of so many images when they are decoded."""
    return count * channels * settings.resolution**2 / 1024**3


def is_streamed(settings: DataSettings, facts: DataFacts) -> bool:
    """Whether the images are read from their files as they are needed, since they do not fit."""
    size = size_gib(settings, facts.count, facts.channels)
    return settings.source == "parquet" and size > settings.memory_gib
