"""What the workers of a data-parallel run do together; alone it costs nothing.

`orchestration/workers.py` has the team of Ray Train workers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor


class DivergenceError(RuntimeError):
    """Workers that must hold equal values do not."""

    def __init__(self, what: str, values: list[str]) -> None:
        super().__init__(what, values)
        self.what, self.values = what, values

    def __str__(self) -> str:
        shown = ", ".join(f"worker {rank}: {value}" for rank, value in enumerate(self.values))
        return f"workers disagree on {self.what} ({shown}); the run was stopped"


class Team(Protocol):
    """The workers of one run."""

    rank: int
    size: int

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor, in place, by its sum over all workers; shapes equal on all."""
        ...

    def agree(self, what: str, value: str) -> None:
        """Raise DivergenceError on all workers unless all hold the same `value`."""
        ...


class Alone:
    """A team of one."""

    rank = 0
    size = 1

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Nothing to add."""

    def agree(self, what: str, value: str) -> None:
        """Nobody to disagree with."""
