"""Latency of networks from measurements of their parts.

    latency_ms(architecture) = scale * (fixed parts + sum over sites of the op's row) + offset

and its expectation under the architecture parameters, which is differentiable:

    E[latency] = fixed_ms + sum over sites sum_j p_j * cost_j          (ProxylessNAS, section 3.3.1)

A missing row is an error, never a default number, but a skip without a row takes no time: networks
leave it out. A table of offsets has rows below 0, and rows of skips. `scale` is 1 and `offset_ms` 0
until whole networks were measured, to which they are fitted (`calibration.py`).
Shapes: K = candidate ops at a site.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from math import isfinite
from typing import TYPE_CHECKING, Any

from nas_core.architecture import Architecture
from nas_core.calibration import Calibration
from nas_core.space import SearchSpace, Site, check_format

if TYPE_CHECKING:
    from torch import Tensor

FORMAT = "latency-table/2"
EARLIER = ("latency-table/1",)
"""Formats that are read too: they lack what has a default."""

PLAUSIBLE_MS = (1e-4, 1e4)
"""Rows that are all below or all above are in another unit."""


NOISY_SPREAD, NOISY_SHARE = 0.2, 0.1
"""A table is noisy if more than this share of its rows spreads over this."""


@dataclass(frozen=True, order=True)
class OpSignature:
    """A distinct part of a space: an op, the stem or the head, with the shape that it works on."""

    op: str
    in_channels: int
    out_channels: int
    stride: int
    resolution: int


@dataclass(frozen=True, kw_only=True)
class LatencyEntry:
    """What was measured of one part. Times in milliseconds per batch, call overhead taken off."""

    part: OpSignature
    median_ms: float
    p10_ms: float
    p90_ms: float
    spread: float
    """(largest - smallest median of a round) / median."""
    count: int
    """Number of samples; 0 for what was not measured here."""

    site: str = ""
    """Where not empty the row holds at the site of this name alone, and before a row without."""


def site_part(site: Site, op: str) -> OpSignature:
    """The part that an op is at a site."""
    return OpSignature(op, site.in_channels, site.out_channels, site.stride, site.resolution)


def stem_part(space: SearchSpace) -> OpSignature:
    """The part before the first site."""
    out = space.sites[0].in_channels
    return OpSignature("stem", space.in_channels, out, space.stem_stride, space.resolution)


def head_part(space: SearchSpace) -> OpSignature:
    """The part behind the last site."""
    last = space.sites[-1]
    return OpSignature("head", last.out_channels, space.classes, 1, last.out_resolution)


def op_signatures(space: SearchSpace) -> list[OpSignature]:
    """All distinct parts of a space that take time (a skip is not part of a network)."""
    ops = {site_part(site, op) for site in space.sites for op in site.ops if op != "skip"}
    return [stem_part(space), *sorted(ops), head_part(space)]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Measured parts of a space on one target."""

    target: str
    hardware: str
    """What was measured, in words; a stand-in is named as such."""
    runtime: str
    runtime_version: str
    space: SearchSpace
    rows: tuple[LatencyEntry, ...]
    overhead_ms: float = 0.0
    """Time of an empty call, already taken off every row."""
    reference_ms: float | None = None
    """Measured latency of the reference network; percent budgets refer to it."""
    reference_spread: float = 0.0
    """Spread of that measurement."""
    scale: float = 1.0
    offset_ms: float = 0.0
    """Added to every network, with `scale` by the fit to whole networks."""
    calibration: Calibration | None = None
    """The networks that it was fitted to, and how right it is."""
    device: Mapping[str, str | int | float] = field(default_factory=dict)
    """Facts of the hardware and of the machine that was measured."""
    date: str = ""
    """When it was measured: ISO 8601, UTC."""

    def __post_init__(self) -> None:
        times = {"overhead_ms": self.overhead_ms, "scale": self.scale}
        if self.reference_ms is not None:
            times["reference_ms"] = self.reference_ms
        for name, value in times.items():
            if not isinstance(value, int | float) or not isfinite(value) or value < 0:
                raise ValueError(f"{name} is {value!r}; expected a finite number of 0 or more")
        if self.scale == 0:
            raise ValueError("scale is 0; expected a factor greater than 0")
        if not isfinite(self.offset_ms):
            raise ValueError(f"offset_ms is {self.offset_ms}; expected a finite number")

    @cached_property
    def _median_ms(self) -> dict[tuple[str, OpSignature], float]:
        """By site (empty where the row holds at all of them) and part; of two rows the first."""
        return {(row.site, row.part): row.median_ms for row in reversed(self.rows)}

    def row_ms(self, part: OpSignature, where: str) -> float:
        """Latency of one part, calibrated.

        Args:
            part: what stands there.
            where: name of the site, "stem" or "head".

        Raises:
            ValueError: the part was not measured.
        """
        for site in (where, ""):
            found = self._median_ms.get((site, part))
            if found is not None:
                return self.scale * found
        if part.op == "skip":
            return 0.0
        raise ValueError(
            f"latency table for '{self.hardware}' has no entry for '{part.op}' at '{where}'; "
            "run the measure stage on this space"
        )

    def costs_ms(self, space: SearchSpace) -> list[list[float]]:
        """Calibrated latency of every op at every site, in the order of `site.ops`.

        Raises:
            ValueError: a row is missing; the text names op and site.
        """
        return [
            [self.row_ms(site_part(site, op), site.name) for op in site.ops] for site in space.sites
        ]

    def fixed_ms(self, space: SearchSpace) -> float:
        """Calibrated latency of stem and head, with the offset."""
        parts = self.row_ms(stem_part(space), "stem") + self.row_ms(head_part(space), "head")
        return parts + self.offset_ms

    def latency_ms(self, architecture: Architecture) -> float:
        """Latency of a network by the table."""
        total = self.fixed_ms(architecture.space)
        for site, op in zip(architecture.space.sites, architecture.ops, strict=True):
            total += self.row_ms(site_part(site, op), site.name)
        return total

    def parts_ms(self, architecture: Architecture) -> float:
        """Sum of the rows of a network, before any calibration."""
        return (self.latency_ms(architecture) - self.offset_ms) / self.scale

    def fastest(self) -> Architecture:
        """The network that takes least time by the table."""
        return self._extreme(min)

    def slowest(self) -> Architecture:
        """The network that takes most time by the table."""
        return self._extreme(max)

    def _extreme(self, choose: Any) -> Architecture:
        costs = self.costs_ms(self.space)
        return Architecture.from_path(self.space, [row.index(choose(row)) for row in costs])

    def range_ms(self) -> tuple[float, float]:
        """Latency of the fastest and of the slowest network."""
        return self.latency_ms(self.fastest()), self.latency_ms(self.slowest())

    def range_text(self) -> str:
        """In words, where the reference network was measured too."""
        fastest, slowest = self.range_ms()
        known = f", the reference {self.reference_ms:.4g} ms" if self.reference_ms else ""
        return f"networks take {fastest:.4g} to {slowest:.4g} ms{known}"

    def fit_text(self) -> str:
        """The line through whole networks, in words."""
        return f"{self.scale:.3f} times the sum of the parts {self.offset_ms:+.3g} ms"

    def through(self, architecture: Architecture, measured_ms: float) -> LatencyTable:
        """This table, scaled so that `architecture` costs what was measured of it.

        Raises:
            ValueError: one of the two latencies is not above zero, so there is no such scale.
        """
        if measured_ms <= 0 or self.latency_ms(architecture) <= 0:
            raise ValueError(
                f"a network of {self.latency_ms(architecture):g} ms by the table was measured at "
                f"{measured_ms:g} ms; both must be above 0 to scale the table"
            )
        factor = measured_ms / self.latency_ms(architecture)
        return replace(self, scale=self.scale * factor, offset_ms=self.offset_ms * factor)

    def check(self) -> None:
        """Refuse what cannot be the latency of networks.

        Raises:
            ValueError: a row of the space is missing; all rows are in another unit; or the fastest
                network takes no time.
        """
        fastest_ms, _ = self.range_ms()
        times = [abs(row.median_ms) for row in self.rows if row.median_ms]
        low, high = PLAUSIBLE_MS
        if times and (max(times) < low or min(times) > high):
            kind, unit = ("below", "seconds") if max(times) < low else ("above", "microseconds")
            bound = low if max(times) < low else high
            raise ValueError(
                f"all rows of the table for '{self.hardware}' are {kind} {bound:g} ms; "
                f"were {unit} meant? Expected milliseconds per batch"
            )
        if fastest_ms <= 0:
            raise ValueError(
                f"the fastest network of '{self.space.name}' takes {fastest_ms:.4g} ms by the "
                f"table for '{self.hardware}'; expected more than 0: measure again"
            )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        values = {**asdict(self), "space": self.space.to_dict(), "format": FORMAT}
        values["device"] = dict(self.device)
        values["rows"] = [entry_to_dict(row) for row in self.rows]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LatencyTable:
        """The inverse of `to_dict`.

        Raises:
            ValueError: another format, a field is missing, or a row is not a time.
        """
        _check_format(values)
        fields = {name: value for name, value in values.items() if name != "format"}
        try:
            rows = tuple(entry_from_dict(row) for row in fields.pop("rows"))
            space = SearchSpace.from_dict(fields.pop("space"))
            calibration = fields.pop("calibration", None)
            if calibration is not None:
                fields["calibration"] = Calibration.from_dict(calibration)
            return cls(rows=rows, space=space, **fields)
        except (TypeError, KeyError) as error:
            raise ValueError(f"this latency table cannot be read: {error}") from error


def _check_format(values: Any) -> None:
    found = values.get("format") if isinstance(values, dict) else None
    if found in EARLIER:
        return
    number = re.fullmatch(r"latency-table/(\d+)", str(found))
    if number and int(number[1]) > int(FORMAT.rpartition("/")[2]):
        raise ValueError(
            f"not a latency table that this version reads: {found!r} is from a newer one, "
            f"{FORMAT!r} is the latest here; update this project, or measure again"
        )
    check_format(values, FORMAT, "a latency table")


def noisy_entries(rows: Iterable[LatencyEntry]) -> list[LatencyEntry]:
    """Rows whose rounds differ by more than a fifth."""
    return [row for row in rows if row.spread > NOISY_SPREAD]


def is_noisy(rows: Collection[LatencyEntry]) -> bool:
    """Whether more than a tenth of the rows are."""
    return len(noisy_entries(rows)) > NOISY_SHARE * len(rows)


def entry_to_dict(row: LatencyEntry) -> dict[str, Any]:
    """Plain values, for JSON: the shape of the part beside its figures."""
    values = asdict(row)
    if not row.site:
        del values["site"]  # as in files written before there was one
    return {**values.pop("part"), **values}


def entry_from_dict(values: dict[str, Any]) -> LatencyEntry:
    """The inverse of `entry_to_dict`.

    Raises:
        KeyError, TypeError: a field is missing, or of another kind.
        ValueError: the row is not a time.
    """
    fields = dict(values)
    part = OpSignature(*(fields.pop(name) for name in OpSignature.__dataclass_fields__))
    if not isfinite(fields["median_ms"]):
        raise ValueError(f"the row of '{part.op}' is {fields['median_ms']} ms; expected a number")
    return LatencyEntry(part=part, **fields)


def expected_latency_ms(
    probs: Sequence[Tensor], costs_ms: Sequence[Tensor], fixed_ms: float
) -> Tensor:
    """Expected latency under independent choices at all sites, differentiable in `probs`.

    Args:
        probs: per site, shape (K,), summing to one.
        costs_ms: per site, shape (K,).
        fixed_ms: what every network of the space takes.

    Returns:
        Scalar, milliseconds.
    """
    return sum(_site_terms(probs, costs_ms), start=probs[0].new_tensor(fixed_ms))


def _site_terms(probs: Sequence[Tensor], costs_ms: Sequence[Tensor]) -> Iterator[Tensor]:
    for p, cost in zip(probs, costs_ms, strict=True):
        yield (p * cost).sum()  # a matrix product would be rounded under autocast
