"""`_manifest.json`: the description of a converted set, written last."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from cluster.storage import Storage, StorageError
from orchestration.config.digest import digest
from orchestration.config.storage_layout import MANIFEST_FILE, MANIFEST_FORMAT

COLUMNS = {"image": "binary", "label": "int32", "key": "string"}


@dataclass(frozen=True)
class Shard:
    """A Parquet file of a converted set."""

    name: str
    rows: int
    bytes: int
    sha256: str
    groups: tuple[tuple[int, int], ...]
    """(rows, image bytes) of each row group."""
    labels: tuple[int, ...]
    """Number of images of each class."""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Shard:
        """The inverse of `asdict`."""
        groups = tuple((int(rows), int(size)) for rows, size in values["groups"])
        facts = {name: values[name] for name in ("name", "rows", "bytes", "sha256")}
        return cls(**facts, groups=groups, labels=tuple(values["labels"]))


@dataclass(frozen=True)
class Manifest:
    """Shards and classes of a converted set."""

    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    source: str
    """Description of the source, for readers of the file."""
    skipped: int = 0
    """Number of images that could not be read; `bad_samples.csv` lists them."""

    @property
    def count(self) -> int:
        """Number of images."""
        return sum(shard.rows for shard in self.shards)

    @property
    def bytes(self) -> int:
        """Size of all shards."""
        return sum(shard.bytes for shard in self.shards)

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each class, by name."""
        totals = [sum(column) for column in zip(*(s.labels for s in self.shards), strict=True)]
        return dict(zip(self.classes, totals, strict=True))

    @property
    def fingerprint(self) -> str:
        """Digest of classes and content."""
        shards = [[shard.name, shard.sha256] for shard in self.shards]
        return digest({"classes": list(self.classes), "shards": shards})

    def to_dict(self) -> dict[str, Any]:
        """JSON values for the file."""
        return {
            "format": MANIFEST_FORMAT,
            "source": self.source,
            "count": self.count,
            "bytes": self.bytes,
            "skipped": self.skipped,
            "schema": COLUMNS,
            "order": "hash of the key",
            "classes": self.counts,
            "shards": [asdict(shard) for shard in self.shards],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Manifest:
        """The inverse of `to_dict`.

        Raises:
            ValueError: the format is another one, or a value is missing or wrong.
        """
        if values.get("format") != MANIFEST_FORMAT:
            raise ValueError(f"format is {values.get('format')!r}; expected {MANIFEST_FORMAT!r}")
        try:
            shards = tuple(Shard.from_dict(shard) for shard in values["shards"])
            return cls(tuple(values["classes"]), shards, values["source"], values["skipped"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"{error!r} is missing or wrong; convert the images again") from None


def find_manifest(folder: Storage) -> Manifest | None:
    """Read the manifest of a set; None if there is none.

    Raises:
        StorageError: the manifest cannot be read.
    """
    values = folder.find_json(MANIFEST_FILE)
    try:
        return None if values is None else Manifest.from_dict(values)
    except ValueError as error:
        raise StorageError(f"{folder.where(MANIFEST_FILE)}: {error}") from None
