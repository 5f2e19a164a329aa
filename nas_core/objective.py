"""How accuracy and latency become one number: penalties on the loss of an architecture update.

Shapes: all scalars. E = expected latency and T = budget, both in milliseconds; only E / T enters,
so no penalty depends on the unit.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

Penalty = Callable[[Tensor, float], Tensor]


def absolute(beta: float) -> Penalty:
    """beta * |E / T - 1|: pulls towards the budget from both sides (TuNAS, Bender et al. 2020).

    As strong as its beta: it holds a budget only where the loss gains less than that from latency.
    The derivation meets the budget in any case.
    """

    def penalty(expected_ms: Tensor, budget_ms: float) -> Tensor:
        return beta * (expected_ms / budget_ms - 1).abs()

    return penalty


OBJECTIVES: dict[str, Callable[[float], Penalty]] = {"absolute": absolute}
