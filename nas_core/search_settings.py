"""Settings of a search: the `search:` section of a job file.

Defaults are those of the published ImageNet recipe unless the line says otherwise.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from nas_core.settings import TrainingSettings, require

Strategy = Literal[
    "two_path", "full_path", "reinforce", "darts", "random", "evolution", "rl_trials"
]
ObjectiveName = Literal["none", "mul_log", "add_linear", "absolute", "learnt", "power"]

OWN_OBJECTIVE: dict[str, ObjectiveName] = {
    "random": "none",
    "evolution": "none",
    "rl_trials": "power",
}
"""Default objectives of the strategies whose default is not `learnt`."""


@dataclass(frozen=True, kw_only=True)
class SearchSettings(TrainingSettings):
    """Settings of a search. The `search:` section of a job file."""

    share: Literal["none", "target"] = "none"
    """Sharing between the budgets of a target, besides the warm-up. `none`: one search per budget.
    `target`: one search against the middle budget, from which the network of every budget is
    derived."""

    strategy: Strategy = "two_path"
    """Search strategy; see nas_core/gradient_strategies.py and
    nas_core/sampling_strategies.py."""

    objective: ObjectiveName | None = None
    """Combination of accuracy and latency; see nas_core/objective.py. Left out: `learnt`,
    but `none` for `random` and `evolution`, which stay within the budget, and `power` for
    `rl_trials`."""

    beta: float | None = None
    """Strength of the latency term. Left out: the published value of the objective."""

    rho: float = 10.0
    """Objective `learnt`: curvature of the penalty around the budget."""

    eta: float | None = None
    """Objective `learnt`: step size of the multiplier. Left out: 50 / number of updates."""

    op_start: Literal["aligned", "independent"] = "aligned"
    """Initialization of the candidate ops. `aligned`: all ops of a site start as one function, if
    they can. `independent`: each is drawn by itself. See nas_core/supernet.py."""

    warmup_epochs: int = 40
    """Passes over the weight split before the search, with fixed architecture parameters and paths
    drawn as `warmup_sampling` says."""

    warmup_sampling: Literal["uniform", "fair"] = "uniform"
    """Paths of the warm-up. `uniform`: every op is equally likely. `fair`: each op of a site once
    per round (FairNAS); found no better networks in our experiments."""

    op_warmup: float = 0.0
    """Fraction of the warm-up in which sites run the average of all their ops, with a probability
    that falls from 1 to 0 (TuNAS). Needs memory for all ops."""

    epochs: int = 120
    """Passes over the weight split after the warm-up."""

    hold_epochs: int = 1
    """Epochs, counted in `epochs`, before the first architecture update."""

    max_hours: float | None = None
    """Time limit of a search and its warm-up together, hours. The search then ends with the
    probabilities it has. The warm-up is always finished, since other searches start from it."""

    warmup_lr: float | None = None
    """Initial learning rate of the weights in the warm-up (cosine decay to 0). Left out: by the
    number of steps, 0.05 for 192,000 (published), 0.1 for 1,600, 0.1 at most."""

    lr: float = 0.025
    """Initial learning rate of the weights after the warm-up (cosine decay to 0)."""

    alpha_lr: float | None = None
    """Learning rate of the architecture parameters (Adam, betas 0 and 0.999). Left out: by the
    number of updates, 1e-3 for 115,000 (published), 0.05 for 600, 0.1 at most."""

    alpha_ramp: float = 0.0
    """Fraction of the updates over which `alpha_lr` rises from a tenth of its value."""

    alpha_every: int = 5
    """Weight steps per architecture update."""

    architecture_share: float = 0.04
    """Fraction of the training images held out for architecture updates (ImageNet: 50,000
    images)."""

    settle_pairs: bool = False
    """Strategy `two_path`: after an update, rescale each sampled pair so that its sum of
    exponentials is what the latency term alone would give. The loss then has no effect on ops that
    were not sampled. As published; found no better networks in our experiments
    (tests/benchmarks/evidence/settled_pairs.py)."""

    samples: int = 10
    """Strategy `reinforce`: networks that each worker samples for one update."""

    baseline_momentum: float = 0.95
    """Strategies `reinforce` and `rl_trials`: momentum of the moving average of rewards."""

    population: int = 100
    """Strategy `evolution`: number of networks in the population."""

    tournament: int = 25
    """Strategy `evolution`: networks of the population that are compared to choose a parent."""

    trial_epochs: int = 5
    """Strategy `rl_trials`: passes over the weight split that train one network."""

    scored_by: Literal["cross_entropy", "accuracy"] = "accuracy"
    """Score of a network with supernet weights, when networks are compared."""

    score_images: int = 10_000
    """Largest number of images of the architecture split on which a network is scored, in whole
    batches."""

    bn_images: int = 512
    """Images of the weight split, in whole batches, from which BatchNorm statistics are recomputed
    before a network is scored with supernet weights. 128 and 640 ranked networks alike. 0 keeps
    those of the supernet, with which networks that skip a site score no better than chance
    (tests/benchmarks/supernet_ranking.py)."""

    ranking_networks: int = 0
    """Networks to train alone after the search, to measure how well the supernet ranks them."""

    rerank: int = 0
    """Derive the network with the best supernet score among this many most probable networks within
    the budget; 0 or 1: the most probable one."""

    rerank_min_spearman: float = 0.5
    """Rerank only if the supernet ranks at least this well (Spearman correlation over
    `ranking_networks`); 0: always."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in WHOLE_FROM_1:
            value = getattr(self, name)
            require(value >= 1, name, value, "a whole number of 1 or more")
        for name in ("warmup_epochs", "hold_epochs", "bn_images", "ranking_networks", "rerank"):
            value = getattr(self, name)
            require(value >= 0, name, value, "a whole number of 0 or more")
        for name in ("warmup_lr", "lr", "alpha_lr", "eta", "rho"):
            value = getattr(self, name)
            require(value is None or value > 0, name, value, "a number greater than 0, e.g. 1e-3")
        momentum = self.baseline_momentum
        require(0 <= momentum < 1, "baseline_momentum", momentum, "0 to below 1, e.g. 0.1")
        for name in ("op_warmup", "alpha_ramp"):
            value = getattr(self, name)
            require(0 <= value <= 1, name, value, "a part from 0 to 1, e.g. 0.25")
        require(self.beta is None or self.beta >= 0, "beta", self.beta, "0 or more, e.g. 0.1")
        share = self.architecture_share
        require(0 < share < 1, "architecture_share", share, "a part between 0 and 1, e.g. 0.2")
        hours = self.max_hours
        require(hours is None or hours > 0, "max_hours", hours, "hours greater than 0, e.g. 12")
        self._check_together()

    def _check_together(self) -> None:
        require(
            self.strategy in WITHOUT_HOLD or self.hold_epochs < self.epochs,
            "hold_epochs",
            self.hold_epochs,
            f"fewer than epochs ({self.epochs}), or architecture parameters would never move",
        )
        require(
            self.share == "none" or self.strategy not in WITHOUT_HOLD,
            "share",
            self.share,
            f"'none' with strategy '{self.strategy}', which tries networks for one budget",
        )
        require(
            self.tournament <= self.population,
            "tournament",
            self.tournament,
            f"population ({self.population}) or fewer, from which it is drawn",
        )
        require(
            self.strategy != "rl_trials" or self.trial_epochs <= self.total_epochs,
            "trial_epochs",
            self.trial_epochs,
            f"warmup_epochs + epochs ({self.total_epochs}) or fewer, all of which go to trials",
        )
        require(
            -1 <= self.rerank_min_spearman <= 1,
            "rerank_min_spearman",
            self.rerank_min_spearman,
            "a correlation from -1 to 1, e.g. 0.5",
        )
        is_known = self.ranking_networks >= 2 or self.rerank_min_spearman <= 0
        require(
            self.rerank <= 1 or is_known,
            "rerank",
            self.rerank,
            "ranking_networks of 2 or more beside it, which tell whether the supernet ranks well "
            "enough (or rerank_min_spearman: 0, to rerank in any case)",
        )

    @property
    def has_warmup(self) -> bool:
        """Whether the search has a warm-up, which trains weights independently of hardware."""
        return self.warmup_epochs > 0 and self.strategy != "rl_trials"

    def warmup_facts(self) -> dict[str, Any]:
        """Settings that affect the warm-up; searches with equal values can share a warm-up."""
        names = [field.name for field in fields(TrainingSettings)]
        names += ["op_start", "warmup_epochs", "warmup_sampling", "op_warmup", "warmup_lr"]
        facts = {name: getattr(self, name) for name in [*names, "architecture_share"]}
        return {**facts, "trains": "mixture" if self.strategy == "darts" else "path"}

    def outcome_facts(self) -> dict[str, Any]:
        """Settings that affect the result of a search.

        `share` is left out, since it only selects the budget of the search. `settle_pairs` is left
        out if it is on, as in jobs from before it became a setting.
        """
        facts = asdict(self)
        del facts["share"]
        if self.settle_pairs:
            del facts["settle_pairs"]
        return facts

    def cost_facts(self) -> dict[str, Any]:
        """Settings that affect `schedule.search_cost` or the images networks are scored on.

        Baselines with the same training cost have equal values.
        """
        names = ["strategy", "warmup_epochs", "epochs", "hold_epochs", "alpha_every", "samples"]
        names += ["trial_epochs", "op_warmup", "batch_size", "architecture_share"]
        return {name: getattr(self, name) for name in [*names, "score_images", "bn_images"]}

    @property
    def total_epochs(self) -> int:
        """Epochs of warm-up and search together."""
        return self.warmup_epochs + self.epochs

    def updates(self, steps: int) -> int:
        """Number of updates in the whole search, given the weight steps per epoch."""
        if self.strategy == "rl_trials":
            return self.total_epochs // self.trial_epochs
        held = 0 if self.strategy in WITHOUT_HOLD else self.hold_epochs
        return (self.epochs - held) * steps // self.alpha_every

    def check_updates(self, steps: int) -> None:
        """Reject a search that is too short.

        Args:
            steps: weight steps per epoch.

        Raises:
            ValueError: there is no update; or only one, if the first one initializes the baseline;
                or none after the initial population of `evolution`.
        """
        updates = self.updates(steps)
        needed = {"reinforce": 2, "rl_trials": 2, "evolution": self.population + 1}
        if updates < needed.get(self.strategy, 1):
            less = " or population" if self.strategy == "evolution" else ""
            raise ValueError(
                f"epochs is {self.epochs}; with {steps} steps an epoch strategy '{self.strategy}' "
                f"makes {updates} updates of the {needed.get(self.strategy, 1)} or more that it "
                f"needs; raise it, or lower batch_size, alpha_every, hold_epochs{less}"
            )

    @property
    def objective_name(self) -> ObjectiveName:
        """The objective in the job file, or else the default of the strategy."""
        return self.objective or OWN_OBJECTIVE.get(self.strategy, "learnt")


WITHOUT_HOLD = ("random", "evolution", "rl_trials")
"""Strategies that make updates from the first epoch on, whatever `hold_epochs` is."""

WHOLE_FROM_1 = (
    "epochs",
    "alpha_every",
    "samples",
    "population",
    "tournament",
    "trial_epochs",
    "score_images",
)
"""Settings that must be whole numbers of 1 or more."""
