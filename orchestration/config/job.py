"""Settings of a whole job, of its `cluster:` and of its `record:` section.

`loading.py` reads them from YAML. Settings of the method itself are in `nas_core/settings.py` and
`nas_core/search_settings.py`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from cluster.hardware import Target
from nas_core.search_settings import WITHOUT_HOLD, SearchSettings
from nas_core.settings import MeasureSettings, RetrainSettings, Section, require
from orchestration.config.cases import NAME, CaseSettings, check_each_once
from orchestration.config.data import DataSettings
from orchestration.config.early_stopping import AshaSettings
from orchestration.config.space import SpaceSettings
from orchestration.config.targets import TargetSettings, resolve


@dataclass(frozen=True, kw_only=True)
class ClusterSettings(Section):
    """Resources of a case. The `cluster:` section of a job file."""

    workers: int | tuple[int, int] | Literal["auto"] = "auto"
    """Ray Train workers per case. `auto`: one per GPU, else one per two cores, at least one. Two
    numbers, `[1, 4]`: elastic, as many as there is room for while nodes come and go."""

    cpus_per_worker: int | Literal["auto"] = "auto"
    """Cores, and threads, per worker. `auto`: with GPUs, each GPU's share of the cores of its node;
    without, as many as let one case use all cores. With smaller numbers several cases run at a
    time."""

    gpus_per_worker: float | Literal["auto"] = "auto"
    """GPUs per worker. `auto`: 1 if the cluster has GPUs, else 0. A fraction, e.g. 0.25, lets small
    cases share a GPU."""

    max_failures: int = 3
    """Number of times that a case is restarted from its last checkpoint. Announced preemptions of a
    node do not count."""

    elastic_resize_monitor_interval_s: float = 60.0
    """Seconds between two checks for room for more workers, if the number of workers is elastic."""

    checkpoint_every_s: float = 300.0
    """Seconds between two checkpoints within an epoch; one is also written after every epoch."""

    keep_checkpoints: int = 2
    """Number of checkpoints kept per stage in progress."""

    hang_timeout_s: float = 600.0
    """Seconds after which a worker whose step does not end is reported as hung and its worker group
    is restarted."""

    price_per_hour: float | None = None
    """Price of one node per hour, in any currency. If given, a plan states what the job costs."""

    deterministic: bool = False
    """Use only deterministic algorithms on GPUs, which are slower. Runs on CPUs are always
    deterministic."""

    def __post_init__(self) -> None:
        self._check_workers()
        for name in ("elastic_resize_monitor_interval_s", "checkpoint_every_s", "hang_timeout_s"):
            require(getattr(self, name) > 0, name, getattr(self, name), "seconds greater than 0")
        require(self.keep_checkpoints >= 1, "keep_checkpoints", self.keep_checkpoints, "1 or more")
        self._check_shares()
        require(self.max_failures >= 0, "max_failures", self.max_failures, "0 or more")

    def _check_shares(self) -> None:
        cpus, gpus, price = self.cpus_per_worker, self.gpus_per_worker, self.price_per_hour
        require(cpus == "auto" or cpus >= 1, "cpus_per_worker", cpus, "'auto' or 1 or more")
        if gpus != "auto":
            is_share = 0 <= gpus <= 1 or gpus == int(gpus)
            rule = "'auto', a part from 0 to 1, or a whole number of GPUs"
            require(gpus >= 0 and is_share, "gpus_per_worker", gpus, rule)
            most = self.workers[1] if isinstance(self.workers, tuple) else self.workers
            is_whole = gpus == 0 or gpus >= 1
            rule = "1 or more GPUs, or one worker: those of a case cannot share a GPU"
            require(is_whole or most in (1, "auto"), "gpus_per_worker", gpus, rule)
        require(price is None or price >= 0, "price_per_hour", price, "0 or more, e.g. 2.5")

    def _check_workers(self) -> None:
        workers, rule = self.workers, "'auto', a number of 1 or more, or the least and the most"
        if isinstance(workers, tuple):
            require(1 <= workers[0] <= workers[1], "workers", list(workers), f"{rule}, e.g. [1, 4]")
        elif workers != "auto":
            require(workers >= 1, "workers", workers, f"{rule}, e.g. [1, 4]")


@dataclass(frozen=True, kw_only=True)
class RecordSettings(Section):
    """Tracking in MLflow. The `record:` section of a job file."""

    experiment: str | None = None
    """Name of the MLflow experiment. Left out: the name of the job."""

    tracking_uri: str | None = None
    """URI of the MLflow server. Left out: MLFLOW_TRACKING_URI, else a SQLite file in the storage.
    Credentials in it are never stored; prefer MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD."""

    patience_s: float = 120.0
    """Seconds that a job waits at its end for an MLflow server that is slow or fails, plus two
    seconds per case. A request that keeps failing is given up after a quarter of this time.
    `proxyless record` writes missing runs later."""

    system_metrics: bool = False
    """Record load and memory, epoch by epoch, of the machine that runs the first worker of a case,
    GPUs included."""

    def __post_init__(self) -> None:
        if self.experiment is not None:
            require(bool(self.experiment.strip()), "experiment", self.experiment, "a name")
        require(self.patience_s > 0, "patience_s", self.patience_s, "seconds greater than 0")


@dataclass(frozen=True, kw_only=True)
class Job(Section):
    """A whole job file."""

    name: str
    """Name of the job and of its folder in the storage."""

    data: DataSettings
    """Images to search and train on."""

    cases: tuple[CaseSettings, ...]
    """Networks to make: targets with their budgets, or named networks."""

    targets: dict[str, TargetSettings] = field(default_factory=dict)
    """New targets by name, and changes to known ones."""

    space: SpaceSettings = field(default_factory=SpaceSettings)
    """Networks that the search chooses from."""

    measure: MeasureSettings = field(default_factory=MeasureSettings)
    """Measurement of latencies."""

    search: SearchSettings = field(default_factory=SearchSettings)
    """Search of architectures."""

    retrain: RetrainSettings | None = None
    """Training of the derived networks from scratch. Left out: the job stops after the derived
    architecture."""

    controls: bool = False
    """Add baselines to every search: the best of as many random networks of the same latency as can
    be trained at the cost of the search, and the MobileNetV2 width with the nearest latency."""

    cluster: ClusterSettings = field(default_factory=ClusterSettings)
    """Workers, checkpoints and what happens after failures."""

    asha: AshaSettings | None = None
    """Early stopping: if given, searches that fall behind other seeds of the same target and budget
    end early."""

    storage: str = "~/proxyless"
    """Folder or `s3://<bucket>/<prefix>` that holds everything a job makes."""

    record: RecordSettings = field(default_factory=RecordSettings)
    """Tracking in MLflow."""

    seed: int = 0
    """Seed of all random draws: the split of the images, initial weights, sampled paths and the
    order of the images."""

    seeds: tuple[int, ...] | None = None
    """Run the whole job once per seed, in place of `seed`; tables show mean and spread."""

    def __post_init__(self) -> None:
        is_name = NAME.fullmatch(self.name) is not None and ".." not in self.name
        require(
            is_name,
            "name",
            self.name,
            "letters, digits, '_', '-' and single '.', since it names a folder, e.g. search_mobile",
        )
        require(bool(self.storage.strip()), "storage", self.storage, "a folder, e.g. ~/proxyless")
        require(len(self.cases) > 0, "cases", [], "at least one target with its budgets")
        check_each_once(self.cases)
        self._check_targets()
        require(self.seed >= 0, "seed", self.seed, "a whole number of 0 or more")
        self._check_seeds()
        self._check_ranking()
        require(
            not self.controls or self.retrain is not None,
            "controls",
            self.controls,
            "false, or a retrain section: it says how networks are trained to be compared",
        )
        self._check_asha()

    def _check_asha(self) -> None:
        if self.asha is None:
            return
        rule = "'none' with asha: a search that ends early would leave its other budgets without"
        require(self.search.share == "none", "search.share", self.search.share, rule)
        rule = "one that learns, with asha: those that only compare networks have no most probable"
        is_learning = self.search.strategy not in WITHOUT_HOLD
        require(is_learning, "search.strategy", self.search.strategy, rule)
        first, held = self.asha.first_epoch, self.search.hold_epochs
        rule = f"more than search.hold_epochs ({held}), before which nothing is learnt"
        require(first > held, "asha.first_epoch", first, rule)

    def _check_seeds(self) -> None:
        seeds = self.seeds
        if seeds is not None:
            is_right = len(seeds) > 0 and min(seeds) >= 0 and len(set(seeds)) == len(seeds)
            require(is_right, "seeds", list(seeds), "different whole numbers, e.g. [0, 1, 2]")

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """Seeds that the job runs with."""
        return (self.seed,) if self.seeds is None else self.seeds

    def with_seed(self, seed: int) -> Job:
        """The part of the job that has this seed."""
        return replace(self, seed=seed, seeds=None)

    def _check_targets(self) -> None:
        for i, case in enumerate(self.cases):
            try:
                self.target(case.target)
            except ValueError as error:
                path = f"targets.{case.target}" if case.target in self.targets else f"cases[{i}]"
                raise ValueError(f"{path}.{error}") from None

    def target(self, name: str) -> Target:
        """The target of this name, with the changes from the `targets:` section."""
        return resolve(name, self.targets)

    def _check_ranking(self) -> None:
        name, count = "search.ranking_networks", self.search.ranking_networks
        require(count != 1, name, count, "0, or 2 or more, since one network has no rank")
        require(
            count == 0 or self.retrain is not None,
            name,
            count,
            "0, or a retrain section: it says how those networks are trained alone",
        )
        require(
            count == 0 or self.search.strategy != "rl_trials",
            name,
            count,
            "0 with strategy 'rl_trials': it trains no supernet whose ranking could be measured",
        )

    @property
    def score_epochs(self) -> list[int]:
        """Epochs after which a search reports a score for early stopping.

        Counted from 0, warm-up included.
        """
        rungs = self.asha.rungs(self.search.epochs) if self.asha is not None else []
        return [self.search.warmup_epochs + epoch - 1 for epoch in rungs]

    @property
    def experiment(self) -> str:
        """Name of the MLflow experiment."""
        return self.record.experiment or self.name

    def to_dict(self) -> dict[str, Any]:
        """All settings as JSON values, defaults included."""
        return asdict(self)
