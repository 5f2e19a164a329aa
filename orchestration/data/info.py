"""Facts about a data source that need no torch: size, classes, fingerprint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from orchestration.config.data import DataSettings
from orchestration.config.loading import SpecError


@dataclass(frozen=True)
class DataFacts:
    """Facts about a data source that the driver needs."""

    classes: tuple[str, ...]
    channels: int
    resolution: int
    count: int
    test_count: int
    """Number of images in the test part, approximate: classes of a folder are split separately."""
    fingerprint: str
    """Digest of images and labels."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> DataFacts:
        """The inverse of `dataclasses.asdict`, also after JSON."""
        return cls(**{**values, "classes": tuple(values["classes"])})

    def check_unchanged(self, fingerprint: str) -> None:
        """Check that the images are still those that the driver has described.

        Args:
            fingerprint: fingerprint of the images now.

        Raises:
            SpecError: it differs from that of these facts.
        """
        if fingerprint != self.fingerprint:
            raise SpecError(
                f"data: the images have changed since the job was started (their fingerprint was "
                f"{self.fingerprint} and is {fingerprint}); start it again"
            )


def size_gib(settings: DataSettings, count: int, channels: int) -> float:
    """Size of `count` decoded images, GiB."""
    return count * channels * settings.resolution**2 / 1024**3


def is_streamed(settings: DataSettings, facts: DataFacts) -> bool:
    """Whether images are streamed from their files, since they do not fit into memory."""
    size = size_gib(settings, facts.count, facts.channels)
    return settings.source == "parquet" and size > settings.memory_gib
