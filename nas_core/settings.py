"""Settings of the stages: each class is the section of a job file that has its name.

Defaults are those of the published ImageNet recipe unless the line says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Refuse a setting.

    Raises:
        ValueError: `condition` is false; the text reads "name is value; expected ...".
    """
    if not condition:
        raise ValueError(f"{name} is {value!r}; expected {expected}")


class Section:
    """A section of a job file: unknown keys are refused by whoever reads it with pydantic."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class MeasureSettings(Section):
    """How latencies are measured. The `measure:` section of a job file."""

    rounds: int = 5
    """Passes over all rows; every pass times every row once (A B C, A B C, ...)."""

    network_rounds: int = 50
    """The same for whole networks: they are few, and their latency is what is promised."""

    samples_per_round: int = 3
    """Samples of a row in one pass."""

    sample_ms: float = 2.0
    """A sample is as many calls as last this long, milliseconds."""

    def __post_init__(self) -> None:
        for name in ("rounds", "network_rounds"):
            require(getattr(self, name) >= 2, name, getattr(self, name), "2 or more, e.g. 5")
        require(
            self.samples_per_round >= 1, "samples_per_round", self.samples_per_round, "1 or more"
        )
        require(
            self.sample_ms > 0, "sample_ms", self.sample_ms, "milliseconds greater than 0, e.g. 2"
        )


@dataclass(frozen=True, kw_only=True)
class SearchSettings(Section):
    """How to search. The `search:` section of a job file."""

    strategy: Literal["two_path"] = "two_path"
    """How architecture parameters are updated; see nas_core/arch_update.py."""

    objective: Literal["absolute"] = "absolute"
    """How accuracy and latency become one number; see nas_core/objective.py."""

    beta: float = 0.1
    """Weight of the latency term of the objective (TuNAS: 0.1)."""

    warmup_epochs: int = 40
    """Passes over the weight split with uniformly drawn paths and fixed architecture parameters."""

    epochs: int = 120
    """Passes over the weight split after the warm-up."""

    hold_epochs: int = 1
    """Of `epochs`, how many pass before the first architecture update."""

    batch_size: int = 256
    """Images of one step, all workers together."""

    warmup_lr: float = 0.05
    """Learning rate of the weights in the warm-up (cosine to 0)."""

    lr: float = 0.025
    """Learning rate of the weights after the warm-up (cosine to 0)."""

    momentum: float = 0.9
    """Nesterov momentum of the weights."""

    weight_decay: float = 4e-5
    """Decay of the weights that a step trained; of no others, never of architecture parameters."""

    label_smoothing: float = 0.1
    """In the loss of the weights only."""

    alpha_lr: float = 1e-3
    """Learning rate of the architecture parameters (Adam, betas 0 and 0.999). The published value
    belongs to some 115,000 updates; a search of a few hundred wants about 0.05."""

    alpha_every: int = 5
    """One architecture update after this many weight steps."""

    architecture_share: float = 0.04
    """Part of the training images held out for architecture updates (ImageNet: 50,000 images)."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "alpha_every"):
            require(
                getattr(self, name) >= 1, name, getattr(self, name), "a whole number of 1 or more"
            )
        for name in ("warmup_epochs", "hold_epochs"):
            require(
                getattr(self, name) >= 0, name, getattr(self, name), "a whole number of 0 or more"
            )
        require(
            self.hold_epochs < self.epochs,
            "hold_epochs",
            self.hold_epochs,
            f"fewer than epochs ({self.epochs}), or architecture parameters would never move",
        )
        for name in ("warmup_lr", "lr", "alpha_lr"):
            require(
                getattr(self, name) > 0,
                name,
                getattr(self, name),
                "a number greater than 0, e.g. 1e-3",
            )
        require(self.beta >= 0, "beta", self.beta, "0 or more, e.g. 0.1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more, e.g. 4e-5")
        require(0 <= self.momentum < 1, "momentum", self.momentum, "0 to below 1, e.g. 0.9")
        require(
            0 <= self.label_smoothing < 1,
            "label_smoothing",
            self.label_smoothing,
            "0 to below 1, e.g. 0.1",
        )
        require(
            0 < self.architecture_share < 1,
            "architecture_share",
            self.architecture_share,
            "a part between 0 and 1, e.g. 0.2",
        )

    @property
    def total_epochs(self) -> int:
        """Warm-up and search together."""
        return self.warmup_epochs + self.epochs


@dataclass(frozen=True, kw_only=True)
class RetrainSettings(Section):
    """How a derived network is trained from scratch. The `retrain:` section of a job file."""

    epochs: int = 300
    """Passes over the training images (weight and architecture split together)."""

    batch_size: int = 256
    """Images of one step, all workers together."""

    lr: float = 0.05
    """Learning rate (cosine to 0)."""

    momentum: float = 0.9
    """Nesterov momentum."""

    weight_decay: float = 4e-5
    """Not applied to BatchNorm and biases."""

    label_smoothing: float = 0.1
    """Of the training loss."""

    dropout: float = 0.0
    """Before the classifier (published: 0.1 mobile, 0.2 cpu, 0.3 gpu)."""

    def __post_init__(self) -> None:
        require(self.epochs >= 1, "epochs", self.epochs, "a whole number of 1 or more")
        require(self.batch_size >= 1, "batch_size", self.batch_size, "a whole number of 1 or more")
        require(self.lr > 0, "lr", self.lr, "a number greater than 0, e.g. 0.05")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more, e.g. 4e-5")
        for name in ("momentum", "label_smoothing", "dropout"):
            value = getattr(self, name)
            require(0 <= value < 1, name, value, "0 to below 1, e.g. 0.1")
