"""Networks that a stage has trained one after the other, kept as they come.

A stage that is stopped goes on with the next one. Numbers that JSON has not, such as the loss of a
network that diverged, are kept as None and read back as nan.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any

from cluster.storage import Storage


def to_values(network: Any) -> dict[str, Any]:
    """Plain values of a dataclass with a `path`, for JSON."""
    values: dict[str, Any] = finite(asdict(network))
    return values


def from_values(values: dict[str, Any]) -> dict[str, Any]:
    """The inverse: fields of such a dataclass."""
    fields: dict[str, Any] = {n: nan if value is None else value for n, value in values.items()}
    return {**fields, "path": tuple(fields["path"])}


@dataclass(frozen=True)
class NetworkLog:
    """The file of one case that holds them."""

    storage: Storage
    """The job's."""
    place: str
    format: str
    key: str
    """Of the case: networks of another one do not count."""

    def read(self) -> list[dict[str, Any]]:
        """Plain values of those that are kept; none where the file is of another case or format."""
        values = self.storage.find_json(self.place) or {}
        if values.get("format") != self.format or values.get("key") != self.key:
            return []
        networks: list[dict[str, Any]] = values["networks"]
        return networks

    def write(self, networks: Sequence[dict[str, Any]]) -> None:
        """All of them, in their order."""
        values = {"format": self.format, "key": self.key, "networks": list(networks)}
        self.storage.write_json(self.place, values)


def finite(values: Any) -> Any:
    """The same plain values with None in place of NaN and infinity."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    if isinstance(values, float) and not isfinite(values):
        return None
    return values
