"""The `asha:` section of a job file. The rule is in `scheduling/successive_halving.py`."""

from __future__ import annotations

from dataclasses import dataclass

from nas_core.settings import Section, require

SHARES = {2.0: "half", 3.0: "third", 4.0: "quarter"}


@dataclass(frozen=True, kw_only=True)
class AshaSettings(Section):
    """Early stopping of searches. The `asha:` section of a job file; without it none is stopped."""

    first_epoch: int = 2
    """Epochs after the warm-up before searches are compared for the first time. More than
    `search.hold_epochs`, during which the architecture parameters do not change."""

    reduction: float = 2.0
    """One in this many searches continues after a comparison, and the number of epochs until the
    next comparison grows by the same factor."""

    def __post_init__(self) -> None:
        require(self.first_epoch >= 1, "first_epoch", self.first_epoch, "1 or more")
        rule = "a number greater than 1, e.g. 2: one in so many goes on"
        require(self.reduction > 1, "reduction", self.reduction, rule)

    def rungs(self, epochs: int) -> list[int]:
        """Epochs after the warm-up at which a search of `epochs` is compared, except the last."""
        rungs, power = list[int](), 0
        while (epoch := round(self.first_epoch * self.reduction**power)) < epochs:
            rungs.append(epoch)
            power += 1
        return list(dict.fromkeys(rungs))  # a small reduction repeats epochs

    @property
    def best(self) -> str:
        """Share of searches that continue, as text: "best half"."""
        return f"best {SHARES.get(self.reduction, f'{100 / self.reduction:.3g} %')}"
