"""How right a latency table is: whole networks, predicted by it and measured.

The sum over parts leaves out what runs between them and what happens once per call. An affine
function of the sum, fitted to some measured networks, makes up for both:

    latency_ms = scale * (sum of the parts) + offset_ms

It is fitted to relative errors, since a budget is kept or missed in percent, and judged on other
networks that had no part in the fit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

FEWEST = 4
"""Networks of a fit, and of a check, at least."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """A whole network on the target."""

    name: str
    """For people: the name of a baseline, else what kind of network it is."""
    ops: tuple[str, ...] | None
    """One op per site; None for what is no member of the space."""
    parts_ms: float | None
    """Sum of its rows, stem and head included, before any calibration; None as above."""
    measured_ms: float
    spread: float
    """(largest - smallest median of a round) / median."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """How far predictions are from measurements, over networks that were not fitted."""

    networks: int
    mape: float
    """Mean of |predicted / measured - 1|."""
    rmse_ms: float
    within_5: float
    """Share of networks predicted within 5 %."""
    within_10: float
    spearman: float
    kendall: float

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> Errors:
        """Of two or more networks.

        Raises:
            ValueError: lengths differ, or there are fewer than two.
        """
        from nas_core.ranking import kendall, spearman

        ranks = (spearman(predicted_ms, measured_ms), kendall(predicted_ms, measured_ms))
        pairs = list(zip(predicted_ms, measured_ms, strict=True))
        misses = [abs(p / m - 1) for p, m in pairs]
        return cls(
            networks=len(pairs),
            mape=fmean(misses),
            rmse_ms=fmean((p - m) ** 2 for p, m in pairs) ** 0.5,
            within_5=fmean(miss <= 0.05 for miss in misses),
            within_10=fmean(miss <= 0.10 for miss in misses),
            spearman=ranks[0],
            kendall=ranks[1],
        )

    def text(self) -> str:
        """In one line."""
        return (
            f"on {self.networks} networks that had no part in the fit: mean error {self.mape:.1%}, "
            f"RMSE {self.rmse_ms:.3g} ms, {self.within_5:.0%} within 5 %, "
            f"{self.within_10:.0%} within 10 %, Spearman {self.spearman:.3f}, "
            f"Kendall {self.kendall:.3f}"
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """What a table was fitted to, and what became of it. A part of the table's file."""

    fitted: tuple[MeasuredNetwork, ...]
    checked: tuple[MeasuredNetwork, ...] = ()
    errors: Errors | None = None
    """Of the checked networks; None where there are too few."""
    others: tuple[MeasuredNetwork, ...] = ()
    """Baselines, measured in the same harness."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """The inverse of `to_dict`."""
        errors = values["errors"]
        return cls(
            fitted=_networks(values["fitted"]),
            checked=_networks(values["checked"]),
            errors=None if errors is None else Errors(**errors),
            others=_networks(values["others"]),
        )


def _networks(values: Sequence[Mapping[str, Any]]) -> tuple[MeasuredNetwork, ...]:
    return tuple(
        MeasuredNetwork(**{**one, "ops": None if one["ops"] is None else tuple(one["ops"])})
        for one in values
    )


def affine_fit(
    parts_ms: Sequence[float], measured_ms: Sequence[float], smallest_ms: float
) -> tuple[float, float]:
    """Scale and offset with the least mean square of relative errors.

    Args:
        parts_ms: sums of parts, above 0.
        measured_ms: what the same networks took, above 0.
        smallest_ms: sum of parts of the fastest network of the space: where an offset would leave
            less than half of what a factor alone gives it, or where all sums are equal, there is
            none.

    Returns:
        (scale, offset_ms); scale is above 0.

    Raises:
        ValueError: there is no network, or a time that is not above 0.
    """
    if not measured_ms or min([*parts_ms, *measured_ms]) <= 0:
        raise ValueError(f"a fit to {list(measured_ms)} ms; expected times above 0")
    # In relative errors y = measured is divided out: a * u + b * v is to be 1.
    u = [p / m for p, m in zip(parts_ms, measured_ms, strict=True)]
    v = [1 / m for m in measured_ms]
    uu, uv, vv = (_dot(a, b) for a, b in ((u, u), (u, v), (v, v)))
    alone = sum(u) / uu
    determinant = uu * vv - uv * uv
    if determinant <= 1e-9 * uu * vv:
        return alone, 0.0
    scale = (sum(u) * vv - sum(v) * uv) / determinant
    offset_ms = (sum(v) * uu - sum(u) * uv) / determinant
    if scale <= 0 or scale * smallest_ms + offset_ms < 0.5 * alone * smallest_ms:
        return alone, 0.0
    return scale, offset_ms


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
