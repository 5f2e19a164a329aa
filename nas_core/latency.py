"""Latency of networks from measurements of their parts.

    latency_ms(architecture) = scale * (fixed parts + sum over sites of the op's row) + offset

and its expectation under the architecture parameters, which is differentiable:

    E[latency] = fixed_ms + sum over sites sum_j p_j * cost_j          (ProxylessNAS, section 3.3.1)

A missing row is an error, never a default number. The exception is a skip without a row, which
takes no time: networks omit it. A table of offsets (`published/pixel1.py`) has negative rows and
rows of skips. `scale` is 1 and `offset_ms` 0 until the table is fitted to measurements of whole
networks (`calibration.py`).
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
"""Older formats that can still be read; fields that they lack take their defaults."""

PLAUSIBLE_MS = (1e-4, 1e4)
"""Range of plausible rows. If all rows are below or all above it, their unit is wrong."""


NOISY_SPREAD, NOISY_SHARE = 0.2, 0.1
"""A table is noisy if more than `NOISY_SHARE` of its rows have a spread above `NOISY_SPREAD`."""


@dataclass(frozen=True, order=True)
class OpSignature:
    """A distinct part of a space: an op, the stem or the head, with its input and output shape."""

    op: str
    in_channels: int
    out_channels: int
    stride: int
    resolution: int


@dataclass(frozen=True, kw_only=True)
class LatencyEntry:
    """Measured latency of one part: milliseconds per batch, without the overhead of a call."""

    part: OpSignature
    median_ms: float
    p10_ms: float
    p90_ms: float
    spread: float
    """(largest - smallest median of a round) / median."""
    count: int
    """Number of samples; 0 if the entry does not come from a measurement of our own."""

    site: str = ""
    """Site that the row applies to, with precedence over a row without site; empty: all sites."""


def site_part(site: Site, op: str) -> OpSignature:
    """Signature of an op at a site."""
    return OpSignature(op, site.in_channels, site.out_channels, site.stride, site.resolution)


def stem_part(space: SearchSpace) -> OpSignature:
    """Signature of the stem."""
    out = space.sites[0].in_channels
    return OpSignature("stem", space.in_channels, out, space.stem_stride, space.resolution)


def head_part(space: SearchSpace) -> OpSignature:
    """Signature of the head."""
    last = space.sites[-1]
    return OpSignature("head", last.out_channels, space.classes, 1, last.out_resolution)


def op_signatures(space: SearchSpace) -> list[OpSignature]:
    """Distinct parts of a space that take time; skips are left out."""
    ops = {site_part(site, op) for site in space.sites for op in site.ops if op != "skip"}
    return [stem_part(space), *sorted(ops), head_part(space)]


@dataclass(frozen=True, kw_only=True)
class LatencyTable:
    """Measured latencies of the parts of a space on one target."""

    target: str
    hardware: str
    """Description of the measured hardware; says so if it stands in for the target."""
    runtime: str
    runtime_version: str
    space: SearchSpace
    rows: tuple[LatencyEntry, ...]
    overhead_ms: float = 0.0
    """Time of an empty call, already subtracted from every row."""
    reference_ms: float | None = None
    """Measured latency of the reference network; percent budgets refer to it."""
    reference_spread: float = 0.0
    """Spread of that measurement."""
    scale: float = 1.0
    offset_ms: float = 0.0
    """Constant added to every network; fitted together with `scale` to whole networks."""
    calibration: Calibration | None = None
    """The networks that the table was fitted to, and its prediction errors."""
    device: Mapping[str, str | int | float] = field(default_factory=dict)
    """Properties of the measured hardware and machine."""
    date: str = ""
    """Time of the measurement: ISO 8601, UTC."""

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
        """Latency by site (empty: all sites) and part; of duplicate rows the first counts."""
        return {(row.site, row.part): row.median_ms for row in reversed(self.rows)}

    def row_ms(self, part: OpSignature, site_name: str) -> float:
        """Calibrated latency of one part.

        Args:
            part: signature of the part.
            site_name: name of the site, "stem" or "head".

        Raises:
            ValueError: the part was not measured.
        """
        for site in (site_name, ""):
            median_ms = self._median_ms.get((site, part))
            if median_ms is not None:
                return self.scale * median_ms
        if part.op == "skip":
            return 0.0
        raise ValueError(
            f"latency table for '{self.hardware}' has no entry for '{part.op}' at '{site_name}'; "
            "run the measure stage on this space"
        )

    def costs_ms(self, space: SearchSpace) -> list[list[float]]:
        """Calibrated latency of every op at every site, in the order of `site.ops`.

        Raises:
            ValueError: a row is missing; the message names the op and the site.
        """
        return [
            [self.row_ms(site_part(site, op), site.name) for op in site.ops] for site in space.sites
        ]

    def fixed_ms(self, space: SearchSpace) -> float:
        """Calibrated latency of stem and head, including the offset."""
        parts = self.row_ms(stem_part(space), "stem") + self.row_ms(head_part(space), "head")
        return parts + self.offset_ms

    def latency_ms(self, architecture: Architecture) -> float:
        """Latency of a network according to the table."""
        total = self.fixed_ms(architecture.space)
        for site, op in zip(architecture.space.sites, architecture.ops, strict=True):
            total += self.row_ms(site_part(site, op), site.name)
        return total

    def parts_ms(self, architecture: Architecture) -> float:
        """Sum of the rows of a network, before calibration."""
        return (self.latency_ms(architecture) - self.offset_ms) / self.scale

    def fastest(self) -> Architecture:
        """The network with the lowest latency according to the table."""
        return self._extreme(min)

    def slowest(self) -> Architecture:
        """The network with the highest latency according to the table."""
        return self._extreme(max)

    def _extreme(self, choose: Any) -> Architecture:
        costs = self.costs_ms(self.space)
        return Architecture.from_path(self.space, [row.index(choose(row)) for row in costs])

    def range_ms(self) -> tuple[float, float]:
        """Latencies of the fastest and the slowest network."""
        return self.latency_ms(self.fastest()), self.latency_ms(self.slowest())

    def range_text(self) -> str:
        """Text with the latency range, and the reference network's latency if it was measured."""
        fastest, slowest = self.range_ms()
        reference = f", the reference {self.reference_ms:.4g} ms" if self.reference_ms else ""
        return f"networks take {fastest:.4g} to {slowest:.4g} ms{reference}"

    def fit_text(self) -> str:
        """Text with the affine function that was fitted to whole networks."""
        return f"{self.scale:.3f} times the sum of the parts {self.offset_ms:+.3g} ms"

    def through(self, architecture: Architecture, measured_ms: float) -> LatencyTable:
        """Copy of this table, scaled so that `architecture` takes exactly `measured_ms`.

        Raises:
            ValueError: one of the two latencies is not above 0, so there is no such scale.
        """
        if measured_ms <= 0 or self.latency_ms(architecture) <= 0:
            raise ValueError(
                f"a network of {self.latency_ms(architecture):g} ms by the table was measured at "
                f"{measured_ms:g} ms; both must be above 0 to scale the table"
            )
        factor = measured_ms / self.latency_ms(architecture)
        return replace(self, scale=self.scale * factor, offset_ms=self.offset_ms * factor)

    def check(self) -> None:
        """Reject a table that cannot be right.

        Raises:
            ValueError: a row of the space is missing, all rows seem to be in another unit, or the
                fastest network takes no time.
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
        """Plain values for JSON."""
        values = {**asdict(self), "space": self.space.to_dict(), "format": FORMAT}
        values["device"] = dict(self.device)
        values["rows"] = [entry_to_dict(row) for row in self.rows]
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> LatencyTable:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the format is another, a field is missing, or a row is not a time.
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
    format_name = values.get("format") if isinstance(values, dict) else None
    if format_name in EARLIER:
        return
    number = re.fullmatch(r"latency-table/(\d+)", str(format_name))
    if number and int(number[1]) > int(FORMAT.rpartition("/")[2]):
        raise ValueError(
            f"not a latency table that this version reads: {format_name!r} is from a newer one, "
            f"{FORMAT!r} is the latest here; update this project, or measure again"
        )
    check_format(values, FORMAT, "a latency table")


def noisy_entries(rows: Iterable[LatencyEntry]) -> list[LatencyEntry]:
    """Rows whose spread is above `NOISY_SPREAD`."""
    return [row for row in rows if row.spread > NOISY_SPREAD]


def is_noisy(rows: Collection[LatencyEntry]) -> bool:
    """Whether more than `NOISY_SHARE` of the rows are noisy."""
    return len(noisy_entries(rows)) > NOISY_SHARE * len(rows)


def entry_to_dict(row: LatencyEntry) -> dict[str, Any]:
    """Plain values for JSON; the fields of the part are at the same level as the times."""
    values = asdict(row)
    if not row.site:
        del values["site"]  # older files have no such key
    return {**values.pop("part"), **values}


def entry_from_dict(values: dict[str, Any]) -> LatencyEntry:
    """Inverse of `entry_to_dict`.

    Raises:
        KeyError, TypeError: a field is missing or has another type.
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
        fixed_ms: latency of the parts that all networks of the space share.

    Returns:
        Scalar, milliseconds.
    """
    return sum(_site_terms(probs, costs_ms), start=probs[0].new_tensor(fixed_ms))


def _site_terms(probs: Sequence[Tensor], costs_ms: Sequence[Tensor]) -> Iterator[Tensor]:
    for p, cost in zip(probs, costs_ms, strict=True):
        yield (p * cost).sum()  # a matrix product would be rounded under autocast
