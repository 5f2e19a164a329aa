"""Calibration of a latency table against whole networks, and its prediction errors.

The sum over the parts of a network omits costs between parts and costs per call. An affine
function of the sum, fitted to some measured networks, accounts for both:

    latency_ms = scale * (sum of the parts) + offset_ms

The fit minimizes relative errors, since budgets are met or missed in percent. Errors are computed
on other networks, which were not fitted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

FEWEST = 4
"""Smallest number of networks for a fit, and for a check."""


@dataclass(frozen=True, kw_only=True)
class MeasuredNetwork:
    """Latency of a whole network, measured on the target."""

    name: str
    """Name for display: that of a baseline, else the kind of network."""
    ops: tuple[str, ...] | None
    """One op per site; None for networks outside the space."""
    parts_ms: float | None
    """Sum of the table entries, stem and head included, before calibration; None as above."""
    measured_ms: float
    spread: float
    """(largest - smallest median of a round) / median."""


@dataclass(frozen=True, kw_only=True)
class Errors:
    """Prediction errors over networks that were not used in the fit."""

    networks: int
    mape: float
    """Mean absolute relative error, |predicted / measured - 1|."""
    rmse_ms: float
    within_5: float
    """Fraction of networks predicted within 5 %."""
    within_10: float
    spearman: float
    kendall: float

    @classmethod
    def of(cls, predicted_ms: Sequence[float], measured_ms: Sequence[float]) -> Errors:
        """Compute the errors for two or more networks.

        Raises:
            ValueError: lengths differ, or there are fewer than two networks.
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
        """One-line summary."""
        return (
            f"on {self.networks} networks that had no part in the fit: mean error {self.mape:.1%}, "
            f"RMSE {self.rmse_ms:.3g} ms, {self.within_5:.0%} within 5 %, "
            f"{self.within_10:.0%} within 10 %, Spearman {self.spearman:.3f}, "
            f"Kendall {self.kendall:.3f}"
        )


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Networks that a table was fitted to and checked on. Part of the table's file."""

    fitted: tuple[MeasuredNetwork, ...]
    checked: tuple[MeasuredNetwork, ...] = ()
    errors: Errors | None = None
    """Errors on the checked networks; None if there are too few."""
    others: tuple[MeasuredNetwork, ...] = ()
    """Baselines, measured in the same way."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Calibration:
        """Inverse of `to_dict`."""
        errors = values["errors"]
        return cls(
            fitted=_networks(values["fitted"]),
            checked=_networks(values["checked"]),
            errors=None if errors is None else Errors(**errors),
            others=_networks(values["others"]),
        )


def _networks(values: Sequence[Mapping[str, Any]]) -> tuple[MeasuredNetwork, ...]:
    return tuple(
        MeasuredNetwork(**{**value, "ops": None if value["ops"] is None else tuple(value["ops"])})
        for value in values
    )


def affine_fit(
    parts_ms: Sequence[float], measured_ms: Sequence[float], smallest_ms: float
) -> tuple[float, float]:
    """Scale and offset with the least mean square of relative errors.

    The offset is 0 if all sums are equal, or if it would leave the fastest network less than half
    of the latency that a fit without offset gives it.

    Args:
        parts_ms: sums of parts, above 0.
        measured_ms: measured latencies of the same networks, above 0.
        smallest_ms: sum of parts of the fastest network of the space.

    Returns:
        (scale, offset_ms); scale is above 0.

    Raises:
        ValueError: there is no network, or a time that is not above 0.
    """
    if not measured_ms or min([*parts_ms, *measured_ms]) <= 0:
        raise ValueError(f"a fit to {list(measured_ms)} ms; expected times above 0")
    # Relative errors divide by the measurement: the fit is scale * u + offset * v = 1.
    u = [p / m for p, m in zip(parts_ms, measured_ms, strict=True)]
    v = [1 / m for m in measured_ms]
    uu, uv, vv = (_dot(a, b) for a, b in ((u, u), (u, v), (v, v)))
    only_scale = sum(u) / uu
    determinant = uu * vv - uv * uv
    if determinant <= 1e-9 * uu * vv:
        return only_scale, 0.0
    scale = (sum(u) * vv - sum(v) * uv) / determinant
    offset_ms = (sum(v) * uu - sum(u) * uv) / determinant
    if scale <= 0 or scale * smallest_ms + offset_ms < 0.5 * only_scale * smallest_ms:
        return only_scale, 0.0
    return scale, offset_ms


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))
