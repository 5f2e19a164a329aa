"""The Pareto front of accuracy against latency."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

Candidate = TypeVar("Candidate")


def pareto_front(
    candidates: Iterable[Candidate], place: Callable[[Candidate], tuple[float, float]]
) -> list[Candidate]:
    """Those that are more accurate than all that are as fast or faster; of equal ones, the first.

    Args:
        candidates: any number of them.
        place: latency and accuracy of one.

    Returns:
        The fastest first, so the most accurate last.
    """
    front: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (place(one)[0], -place(one)[1])):
        if not front or place(one)[1] > place(front[-1])[1]:
            front.append(one)
    return front
