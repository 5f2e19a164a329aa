"""Log of networks that a stage trains one after the other, written after each of them.

A stage that is stopped resumes with the next network. Numbers without a JSON representation, such
as the loss of a network that diverged, are stored as None and read as NaN.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import isfinite, nan
from typing import Any

from cluster.storage import Storage


def to_values(network: Any) -> dict[str, Any]:
    """JSON values of a dataclass with a field `path`."""
    values: dict[str, Any] = finite(asdict(network))
    return values


def from_values(values: dict[str, Any]) -> dict[str, Any]:
    """The inverse of `to_values`: fields of the dataclass."""
    fields: dict[str, Any] = {n: nan if value is None else value for n, value in values.items()}
    return {**fields, "path": tuple(fields["path"])}


@dataclass(frozen=True)
class NetworkLog:
    """The file of one case with its trained networks."""

    storage: Storage
    """Storage of the job."""
    place: str
    format: str
    key: str
    """Key of the case; networks stored under another key are ignored."""

    def read(self) -> list[dict[str, Any]]:
        """JSON values of the stored networks; none if the file has another key or format."""
        values = self.storage.find_json(self.place) or {}
        if values.get("format") != self.format or values.get("key") != self.key:
            return []
        networks: list[dict[str, Any]] = values["networks"]
        return networks

    def write(self, networks: Sequence[dict[str, Any]]) -> None:
        """Replace the stored networks."""
        values = {"format": self.format, "key": self.key, "networks": list(networks)}
        self.storage.write_json(self.place, values)


def finite(values: Any) -> Any:
    """The same values with None in place of NaN and infinity."""
    if isinstance(values, dict):
        return {name: finite(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [finite(value) for value in values]
    if isinstance(values, float) and not isfinite(values):
        return None
    return values
