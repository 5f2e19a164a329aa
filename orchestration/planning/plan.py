"""Plan of a job: checked images, space, networks and targets.

Needs no torch, so that a finished job is recognised quickly.
"""

from __future__ import annotations

from dataclasses import dataclass

from cluster.hardware import Target
from cluster.runtimes import present
from cluster.runtimes.base import MeasurementError
from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable
from nas_core.space import SearchSpace
from orchestration.config.cases import CaseSettings
from orchestration.config.job import Job
from orchestration.config.loading import SpecError
from orchestration.data.info import DataFacts, is_streamed
from orchestration.data.sources import describe
from orchestration.latency.table_store import shipped_table
from orchestration.planning.content_keys import shipped_key, table_key
from orchestration.planning.named_models import named_model


@dataclass(frozen=True)
class Plan:
    """A checked job and what follows from it."""

    job: Job
    data: DataFacts
    space: SearchSpace
    models: tuple[Model | None, ...]
    """Model that each entry of `cases:` names; None if the entry asks for a search."""
    targets: tuple[Target, ...]
    """Targets of the job, in its order, as they are measured: stand-ins in place of phones."""
    table_keys: dict[str, str]
    """Key of the latency table, by target."""
    shipped: dict[str, LatencyTable]
    """Tables of targets that are not measured, by target."""
    notes: tuple[str, ...] = ()
    """Notes about the data for the plan."""

    @property
    def lanes(self) -> int | None:
        """Largest number of workers of a case, if images are streamed; None: no limit."""
        data = self.job.data
        return data.stream.lanes if is_streamed(data, self.data) else None


def make_plan(job: Job) -> Plan:
    """Inspect the data, build the space, and load the models that the job names.

    Raises:
        SpecError: the data is missing, the space or a model does not fit it, or the table of a
            target that is not measured does not cover the space or a model.
    """
    data = describe(job.data)
    try:
        space = job.space.build(len(data.classes), data.channels, data.resolution)
    except ValueError as error:
        raise SpecError(f"space: {error}") from None
    _check_ranking(job, space)
    _check_seeds(job)
    _check_updates(job, data)
    notes = _check_files(job, data)
    models = tuple(named_model(case, space, f"cases[{i}]") for i, case in enumerate(job.cases))
    targets = _present_targets(job)
    tables = {target.name: shipped_table(target, space) for target in targets}
    shipped = {name: table for name, table in tables.items() if table is not None}
    for i, (case, model) in enumerate(zip(job.cases, models, strict=True)):
        if model is not None and case.target in shipped:
            _check_covered(f"cases[{i}]", case, model, shipped[case.target])
    keys = {
        target.name: shipped_key(shipped[target.name])
        if target.name in shipped
        else _table_key(space, target, job)
        for target in targets
    }
    return Plan(job, data, space, models, targets, keys, shipped, notes)


def _check_files(job: Job, data: DataFacts) -> tuple[str, ...]:
    if job.data.source != "parquet":
        return ()
    from orchestration.data.parquet.checks import check_set

    return tuple(check_set(job, data))


def _present_targets(job: Job) -> tuple[Target, ...]:
    """Targets of the job as they are measured: stand-ins in place of phones that are missing."""
    names = dict.fromkeys(case.target for case in job.cases)
    try:
        return tuple(present(job.target(name)) for name in names)
    except MeasurementError as error:
        raise SpecError(str(error)) from None


def _table_key(space: SearchSpace, target: Target, job: Job) -> str:
    try:
        return table_key(space, target, job.measure)
    except MeasurementError as error:  # its runtime is not installed
        raise SpecError(f"target '{target.name}': {error}") from None


def _check_ranking(job: Job, space: SearchSpace) -> None:
    count = job.search.ranking_networks
    if count > space.size():
        raise SpecError(
            f"search.ranking_networks is {count}; expected {space.size()} or fewer, which is how "
            f"many networks '{space.name}' has"
        )


def _check_seeds(job: Job) -> None:
    if job.asha is not None and len(job.all_seeds) < 2:
        raise SpecError(
            f"seeds is {list(job.all_seeds)}; expected two or more with asha, which compares the "
            "same search from several, e.g. [0, 1, 2]"
        )


def search_steps(job: Job, data: DataFacts) -> int:
    """Approximate number of weight steps per epoch of the search: classes are split separately."""
    images = data.count - data.test_count
    return -(-round(images * (1 - job.search.architecture_share)) // job.search.batch_size)


def _check_updates(job: Job, data: DataFacts) -> None:
    if all(case.kind != "search" for case in job.cases):
        return
    try:
        job.search.check_updates(search_steps(job, data))
    except ValueError as error:
        raise SpecError(f"search.{error}") from None


def _check_covered(entry: str, case: CaseSettings, model: Model, table: LatencyTable) -> None:
    reason = "its table has rows for parts of the searched space alone"
    if isinstance(model, Architecture):
        try:
            table.latency_ms(model)
        except ValueError as error:
            reason = str(error).partition(";")[0]
        else:
            return
    raise SpecError(
        f"{entry}.{case.setting}: nothing is measured on '{case.target}', and {reason}; "
        "name a target that is measured, e.g. mobile"
    )
