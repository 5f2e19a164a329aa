"""Settings of the stages; each class is the section of a job file with the same name.

Defaults are those of the published ImageNet recipe unless the line says otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal


def require(condition: bool, name: str, value: object, expected: str) -> None:
    """Raise unless a setting meets a condition.

    Raises:
        ValueError: `condition` is false; the message reads "name is value; expected ...".
    """
    if not condition:
        raise ValueError(f"{name} is {value!r}; expected {expected}")


class Section:
    """Base of the sections of a job file; pydantic rejects unknown keys."""

    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid", "allow_inf_nan": False}


@dataclass(frozen=True, kw_only=True)
class MeasureSettings(Section):
    """Settings of latency measurements. The `measure:` section of a job file."""

    rounds: int = 5
    """Passes over all rows of a table; every pass times every row once (A B C, A B C, ...)."""

    network_rounds: int = 50
    """Passes over whole networks. More than `rounds`: they are few, and their latency is what a
    budget limits."""

    samples_per_round: int = 3
    """Samples of a row in one pass."""

    sample_ms: float = 2.0
    """Duration of a sample, milliseconds; it repeats the call until this time has passed."""

    calibrate_s: float = 60.0
    """Time to lower whole networks for the calibration, seconds; 8 networks at least, 36 at most.
    Timing them takes up to a minute more, and several on a phone, which starts a process per
    sample."""

    accept_noisy: bool = False
    """Accept a table in which more than a tenth of the rows spread over 20 % in two
    measurements."""

    across: bool = True
    """Measure all networks of the job on each of its targets at the end, if networks were searched
    for several targets."""

    def __post_init__(self) -> None:
        for name in ("rounds", "network_rounds"):
            require(getattr(self, name) >= 2, name, getattr(self, name), "2 or more, e.g. 5")
        require(
            self.samples_per_round >= 1, "samples_per_round", self.samples_per_round, "1 or more"
        )
        require(
            self.sample_ms > 0, "sample_ms", self.sample_ms, "milliseconds greater than 0, e.g. 2"
        )
        require(self.calibrate_s >= 0, "calibrate_s", self.calibrate_s, "seconds, 0 or more")


PrecisionName = Literal["auto", "float32", "bfloat16", "float16"]


@dataclass(frozen=True, kw_only=True)
class TrainingSettings(Section):
    """Settings of weight training, common to the sections `search:` and `retrain:`."""

    batch_size: int = 256
    """Images per step, all workers together."""

    micro_batch_size: int | None = None
    """Images that a worker processes at a time; their gradients are accumulated. BatchNorm sees one
    micro-batch at a time. Left out: a worker's whole share of the batch."""

    precision: PrecisionName = "auto"
    """Number format of convolutions and matrix products. `auto`: float32 on a CPU; on a GPU
    bfloat16 if it has that, else float16 with loss scaling."""

    channels_last: bool = True
    """Keep images and weights in channels-last memory format; 1.5 times faster on a CPU."""

    momentum: float = 0.9
    """Nesterov momentum of the weights."""

    weight_decay: float = 4e-5
    """Weight decay of the weights trained in a step; never of architecture parameters, and in
    retraining not of BatchNorm and biases."""

    label_smoothing: float = 0.1
    """Label smoothing in the loss of the weights; architecture updates have none."""

    max_bad_steps: int = 10
    """Consecutive steps that may have a non-finite loss; such steps change nothing. After more of
    them the stage goes back to its last checkpoint with half the learning rate, once."""

    def __post_init__(self) -> None:
        for name in ("batch_size", "micro_batch_size"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "a whole number of 1 or more")
        for name in ("momentum", "label_smoothing"):
            value = getattr(self, name)
            require(0 <= value < 1, name, value, "0 to below 1, e.g. 0.1")
        require(self.weight_decay >= 0, "weight_decay", self.weight_decay, "0 or more, e.g. 4e-5")
        limit = self.max_bad_steps
        require(limit >= 0, "max_bad_steps", limit, "a whole number of 0 or more")


@dataclass(frozen=True, kw_only=True)
class RetrainSettings(TrainingSettings):
    """Settings of retraining from scratch. The `retrain:` section of a job file."""

    epochs: int = 300
    """Passes over the training images (weight and architecture split together)."""

    lr: float = 0.05
    """Initial learning rate (cosine decay to 0)."""

    dropout: float = 0.0
    """Dropout before the classifier (published: 0.1 mobile, 0.2 cpu, 0.3 gpu)."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.epochs >= 1, "epochs", self.epochs, "a whole number of 1 or more")
        require(self.lr > 0, "lr", self.lr, "a number greater than 0, e.g. 0.05")
        require(0 <= self.dropout < 1, "dropout", self.dropout, "0 to below 1, e.g. 0.1")
