"""What is missing of a job, done on Ray: latency tables, then cases in waves.

A warm-up is trained once and by all workers that the cluster holds; it belongs to no job, so the
driver that trains it holds its folder meanwhile, and another one that needs it waits.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from cluster.hardware import Target
from cluster.lease import Lease, LeaseHeld
from cluster.runtimes import MeasurementError
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.asha import stopped_early
from orchestration.asha_scheduler import asha_scheduler
from orchestration.cases import Case, cases_of, is_done, search_place, warmup_place
from orchestration.crewing import Crewing, Room, check_placeable, crewing, warmup_crewing
from orchestration.estimate import RAY_S
from orchestration.ledger import Ledger
from orchestration.order import Waves, waves, with_references
from orchestration.plan import Plan
from orchestration.plan_text import plan_lines
from orchestration.planning import known_estimate
from orchestration.progress import OnRecord, ProgressLines, Say, case_bars, duration
from orchestration.spec import SpecError
from orchestration.stage_end import is_ended
from orchestration.stopping import Stopper
from orchestration.widths import measure_widths, width_cases

if TYPE_CHECKING:
    from cluster.placement import Node
    from orchestration.case import CaseWork

POLL_S = 5.0
"""Between two looks at a warm-up that another job trains."""


@dataclass(frozen=True)
class Done:
    """What became of a job."""

    cases: list[Case]
    failed: dict[str, str]
    """By name of a case that failed, why."""
    facts: dict[str, Any]
    """What the run spent; see `Ledger`."""


@dataclass(frozen=True)
class Ground:
    """What a job stands on once its tables are there."""

    plan: Plan
    storage: Storage
    tables: dict[str, LatencyTable]
    cases: list[Case]
    rooms: Sequence[Room]
    crew: Crewing
    stopper: Stopper

    @property
    def folder(self) -> Storage:
        """The job's."""
        return self.storage.sub(self.plan.job.name)

    @property
    def large(self) -> Crewing:
        """Workers of a warm-up that is trained by itself."""
        return warmup_crewing(self.crew, self.rooms, self.plan.job.search.batch_size)

    def missing(self) -> list[Case]:
        """Cases that are to be done."""
        stopped = self.stopped()
        undone = [case for case in self.cases if not is_done(case, self.folder)]
        return [case for case in undone if case.name not in stopped]

    def stopped(self) -> dict[str, str]:
        """By name of a case whose search was ended early, why."""
        return stopped_early(self.plan.job.asha, self.cases, self.folder)

    def order(self) -> Waves:
        """In which order."""
        return waves(self.missing(), self.storage, self.folder)

    def work(self, case: Case, references: Sequence[Case], crew: Crewing, place: str) -> CaseWork:
        """What the workers of a case are given; `place` is the storage that they write to."""
        from orchestration.case import CaseWork

        targets = {target.name: target for target in self.plan.targets}
        return CaseWork(
            self.plan.job.with_seed(case.seed),
            case,
            tuple(references),
            targets.get(case.target),
            self.tables.get(case.target),
            place,
            crew.cpus_per_worker,
        )


def _rooms() -> list[Room]:
    from cluster.placement import nodes

    return [
        Room(int(node.resources.get("CPU", 0)), node.resources.get("GPU", 0.0)) for node in nodes()
    ]


@contextmanager
def prepared(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], say: Say
) -> Iterator[Ground]:
    """Ray for the time of the block, with all tables measured.

    Raises:
        SpecError: the cluster has not what the job needs; nothing was trained.
    """
    from cluster.connect import connect
    from cluster.head import stop_signals_to

    stopper = Stopper()
    # The signals after Ray, which installs its own.
    with connect(), stop_signals_to(stopper.on_signal), _compilers_running(plan):
        rooms = _rooms()
        crew = crewing(plan.job.cluster, rooms)
        problem = check_placeable(crew, rooms)
        if problem:
            raise SpecError(problem)
        _check_devices(plan, storage, tables)
        tables = {**tables, **_measure_missing(plan, storage, tables, say)}
        cases = cases_of(plan, tables)
        measure_widths(plan, cases, tables, storage, say)
        cases += width_cases(plan, cases, tables, storage)
        yield Ground(plan, storage, tables, cases, rooms, crew, stopper)


def do_missing(
    plan: Plan,
    storage: Storage,
    tables: dict[str, LatencyTable],
    say: Say,
    on_record: OnRecord,
) -> Done:
    """Measure, search and retrain what is not in storage.

    Args:
        plan: what to do.
        storage: of all jobs.
        tables: by target, those that are known.
        say: takes the lines that a person reads.
        on_record: told what cases report.

    Raises:
        SpecError: the cluster has not what the job needs; nothing was trained.
        KeyboardInterrupt: it was stopped.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    ledger = Ledger()
    with prepared(plan, storage, tables, say) as ground:
        ledger.measured_s = time.monotonic() - began
        expected = known_estimate(ground)
        for line in plan_lines(
            plan, ground.tables, ground.cases, ground.folder, str(ground.crew), expected
        ):
            say(line)
        ledger.networks = len(ground.order().cases)
        failed = _Runner(ground, ledger, say, on_record).run()
    wall_s = time.monotonic() - began
    facts = {"started": started, **ledger.to_dict(wall_s)}
    if expected is not None:
        facts |= _compared(expected.seconds, wall_s - ledger.measured_s + RAY_S, say)
    return Done(ground.cases, failed, facts)


def _compared(estimate_s: float, took_s: float, say: Say) -> dict[str, float]:
    """The plan against what happened."""
    error = estimate_s / took_s - 1
    say(f"time     {duration(took_s)}; the plan said {duration(estimate_s)} ({error:+.0%})")
    return {"estimate_s": estimate_s, "took_s": took_s, "estimate_error": error}


@dataclass(frozen=True)
class _Runner:
    """Runs cases of a job, wave by wave."""

    ground: Ground
    ledger: Ledger
    say: Say
    on_record: OnRecord

    def run(self) -> dict[str, str]:
        """Why cases failed, by name."""
        with self._shown() as show, ExitStack() as held:
            for case in self.ground.order().warmups:
                held.enter_context(self._warmup_held(case))
            order = self.ground.order()  # another job may have trained a warm-up meanwhile
            failed = self._warm_up(order, show)
            first = with_references(self._startable(order.first, failed))
            failed |= self._run_wave(first, self.ground.crew, show)
            failed |= self._follow(order.followers, failed, show)
            return failed | self._run_wave(self._left_behind(failed), self.ground.crew, show)

    def _left_behind(self, failed: dict[str, str]) -> list[tuple[Case, tuple[Case, ...]]]:
        """Reference networks that a search would have trained, had it not ended early."""
        stopped = self.ground.stopped()
        hosts = {(case.target, case.seed) for case in self.ground.cases if case.name in stopped}
        references = [case for case in self.ground.missing() if case.kind == "reference"]
        left = [case for case in references if (case.target, case.seed) in hosts]
        return with_references(self._startable(left, failed))

    def _warm_up(self, order: Waves, show: Any) -> dict[str, str]:
        """Train what is missing where all of the cluster can; the cases that fail with it.

        Where the workers of a case are all that there are, the first case does it, since a group
        of workers takes a while to start.
        """
        crew = self.ground.large
        if crew == self.ground.crew or not order.warmups:
            return {}
        reasons = self._run_wave([(one, ()) for one in order.warmups], crew, show)
        broken = {one.key: reasons[one.name] for one in order.warmups if one.name in reasons}
        return {
            case.name: f"its warm-up failed: {broken[case.warmup_key]}"
            for case in order.cases
            if case.warmup_key in broken
        }

    def _startable(self, cases: Sequence[Case], failed: dict[str, str]) -> list[Case]:
        return [case for case in cases if case.name not in failed]

    def _follow(
        self, followers: Sequence[Case], failed: dict[str, str], show: Any
    ) -> dict[str, str]:
        """Run what starts from a search of the wave before; the cases that fail."""
        reasons = {
            case.name: "the search that it shares with other budgets of its target failed"
            for case in self._startable(followers, failed)
            if not is_ended(self.ground.folder.sub(search_place(str(case.search_key))))
        }
        rest = with_references(self._startable(followers, failed | reasons))
        return reasons | self._run_wave(rest, self.ground.crew, show)

    def _run_wave(
        self, cases: Sequence[tuple[Case, tuple[Case, ...]]], crew: Crewing, show: Any
    ) -> dict[str, str]:
        from orchestration.trials import run_cases

        if not cases:
            return {}
        ground, folder = self.ground, self.ground.folder
        works = [ground.work(case, extra, crew, folder.uri) for case, extra in cases]
        scheduler = asha_scheduler(ground.plan.job, [case for case, _ in cases], folder)
        return run_cases(works, crew, folder, show, ground.stopper, scheduler=scheduler)

    @contextmanager
    def _shown(self) -> Iterator[Any]:
        named = sum(case.kind != "reference" for case in self.ground.missing()) > 1
        lines = ProgressLines(self.say, named=named)
        with case_bars() as bars:

            def show(case: str, record: dict[str, Any]) -> None:
                self.ledger(case, record)
                self.on_record(case, record)
                lines(case, record)
                bars(case, record)

            yield show

    @contextmanager
    def _warmup_held(self, case: Case) -> Iterator[None]:
        """Own the folder of a warm-up; wait for another job that trains it."""
        lease, is_said = Lease(self.ground.storage.sub(warmup_place(case.key))), False
        with ExitStack() as held:
            while True:
                try:
                    held.enter_context(lease)
                    break
                except LeaseHeld as error:
                    if not is_said:
                        self.say(f"waiting for a warm-up that another job trains: {error}")
                    is_said = True
                    time.sleep(POLL_S)
            yield


def _check_devices(plan: Plan, storage: Storage, tables: dict[str, LatencyTable]) -> None:
    """Refuse to go on with tables of other devices than those that are there."""
    from orchestration.devices import check_same_device

    for target in plan.targets:
        if target.is_measured and target.name in tables:
            place = storage.path(f"tables/{plan.table_keys[target.name]}.json")
            try:
                check_same_device(tables[target.name], target, str(place))
            except MeasurementError as error:
                raise SpecError(str(error)) from None


def _compilers_running(plan: Plan) -> AbstractContextManager[None]:
    """Compilers from the start, if something is going to be lowered: they take a while to come."""
    from orchestration.compilers import compilers_running

    is_measured = any(target.is_measured for target in plan.targets)
    if is_measured or plan.job.retrain is not None:
        return compilers_running(_nodes_of(plan))
    return nullcontext()


def _nodes_of(plan: Plan) -> list[Node]:
    """Where the targets of a job are measured, each node once."""
    from cluster.placement import PlacementError, node_for, nodes

    there, measured = nodes(), [target for target in plan.targets if target.is_measured]
    try:
        found = {node.id: node for target in measured for node in [node_for(target, there)]}
    except PlacementError as error:
        raise SpecError(str(error)) from None
    return list(found.values())


def _measure_missing(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], say: Say
) -> dict[str, LatencyTable]:
    measured = {}
    for target in plan.targets:
        if target.name not in tables:
            say(f"measure  {target.hardware()} ...")
            measured[target.name] = _measured(plan, target, storage, say)
    return measured


def _measured(plan: Plan, target: Target, storage: Storage, say: Say) -> LatencyTable:
    from orchestration.measure import measure_table

    def say_each(text: str) -> None:
        for line in text.splitlines():
            say(f"measure  {line}")

    settings, key = plan.job.measure, plan.table_keys[target.name]
    try:
        return measure_table(plan.space, target, settings, storage, key, say=say_each)
    except MeasurementError as error:
        raise SpecError(str(error)) from None
