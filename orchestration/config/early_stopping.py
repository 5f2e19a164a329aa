"""The `asha:` section of a job file; `asha.py` has the rule."""

from __future__ import annotations

from dataclasses import dataclass

from nas_core.settings import Section, require

SHARES = {2.0: "half", 3.0: "third", 4.0: "quarter"}


@dataclass(frozen=True, kw_only=True)
class AshaSettings(Section):
    """Which searches end early. The `asha:` section of a job file; without it none does."""

    first_epoch: int = 2
    """Epochs after the warm-up before searches are compared for the first time; more than
    `search.hold_epochs`, during which the architecture parameters do not change."""

    reduction: float = 2.0
    """One in this many searches goes on after a comparison, and the number of epochs until the next
    comparison grows by the same factor."""

    def __post_init__(self) -> None:
        require(self.first_epoch >= 1, "first_epoch", self.first_epoch, "1 or more")
        rule = "a number greater than 1, e.g. 2: one in so many goes on"
        require(self.reduction > 1, "reduction", self.reduction, rule)

    def rungs(self, epochs: int) -> list[int]:
        """Epochs behind the warm-up at which a search of so many is compared, the last left out."""
        found, power = list[int](), 0
        while (epoch := round(self.first_epoch * self.reduction**power)) < epochs:
            found.append(epoch)
            power += 1
        return list(dict.fromkeys(found))  # a small reduction names an epoch twice

    @property
    def best(self) -> str:
        """The share that goes on, in words."""
        return f"best {SHARES.get(self.reduction, f'{100 / self.reduction:.3g} %')}"
