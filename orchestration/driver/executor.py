"""Run the missing parts of a job on Ray: latency tables, then cases in phases.

A warm-up is trained once, by as many workers as the cluster can hold. Jobs share warm-ups: the
driver that trains one holds a lease on its folder, and other drivers wait for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from cluster.lease import Lease, LeaseHeld
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.config.storage_layout import search_folder, warmup_folder
from orchestration.driver.cross_target import measure_cross_target
from orchestration.driver.preview import known_estimate
from orchestration.driver.progress import Log, OnRecord, ProgressLines, case_bars
from orchestration.driver.run_stats import RunStats
from orchestration.driver.session import JobSession, open_session
from orchestration.driver.tune_callbacks import asha_scheduler
from orchestration.planning.case import KNOWN, Case
from orchestration.planning.plan import Plan
from orchestration.planning.worker_layout import WorkerLayout
from orchestration.reports.plan import plan_lines
from orchestration.reports.text import duration
from orchestration.scheduling.estimate import RAY_S
from orchestration.scheduling.order import Schedule, co_scheduled_groups
from orchestration.state.checkpoint_index import is_ended
from orchestration.state.run_file import known_further
from orchestration.state.snapshot import JobSnapshot

POLL_S = 5.0
"""Seconds between two checks of a warm-up that another job trains."""


@dataclass(frozen=True)
class Done:
    """Outcome of a run of a job."""

    cases: list[Case]
    failed: dict[str, str]
    """Reasons of failed cases, by name."""
    facts: dict[str, Any]
    """Statistics of the run; see `RunStats`."""


def run_missing(
    plan: Plan,
    storage: Storage,
    tables: dict[str, LatencyTable],
    log: Log,
    on_record: OnRecord,
) -> Done:
    """Measure, search and retrain everything that is not in storage.

    Args:
        plan: of the job.
        storage: of all jobs.
        tables: latency tables that are known, by target.
        log: called with each progress line.
        on_record: called with each report of a case.

    Raises:
        SpecError: the cluster lacks resources that the job needs; nothing was trained.
        KeyboardInterrupt: the run was stopped.
    """
    began, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    stats = RunStats()
    with open_session(plan, storage, tables, log) as session:
        stats.measured_s = time.monotonic() - began
        known_further(session.cases, session.folder, session.layout.at_once)
        snapshot = session.snapshot()
        expected = known_estimate(session, snapshot)
        for line in plan_lines(
            plan,
            session.tables,
            session.cases,
            session.folder,
            str(session.layout),
            expected,
            snapshot=snapshot,
        ):
            log(line)
        stats.networks = len(session.order(snapshot).cases)
        failed = CaseRunner(session, stats, log, on_record).run(snapshot)
        ended = time.monotonic()
        if not session.stop_signal.is_stopping:
            results = session.snapshot().finished(session.cases)
            measure_cross_target(plan, results, session.tables, session.folder, log)
        stats.measured_s += time.monotonic() - ended
        stats.timed(session.timing_spans())
    wall_s = time.monotonic() - began
    facts = {"started": started, **stats.to_dict(wall_s)}
    if expected is not None:
        facts |= _compared(expected.seconds, wall_s - stats.measured_s + RAY_S, log)
    return Done(session.cases, failed, facts)


def _compared(estimate_s: float, took_s: float, log: Log) -> dict[str, float]:
    """Log and return the error of the plan's estimate."""
    error = estimate_s / took_s - 1
    log(f"time     {duration(took_s)}; the plan estimated {duration(estimate_s)} ({error:+.0%})")
    return {"estimate_s": estimate_s, "took_s": took_s, "estimate_error": error}


@dataclass(frozen=True)
class CaseRunner:
    """Runs the missing cases of a job, phase by phase."""

    session: JobSession
    stats: RunStats
    log: Log
    on_record: OnRecord

    def run(self, snapshot: JobSnapshot) -> dict[str, str]:
        """Run the missing cases; returns the reasons of failures, by name.

        Args:
            snapshot: state of the job before anything is trained.
        """
        session = self.session
        with self._shown(session.missing(snapshot)) as show, ExitStack() as held:
            # All drivers acquire leases in the same order, which avoids deadlocks.
            for case in sorted(session.order(snapshot).warmups, key=lambda case: case.key):
                self._hold_warmup(case, held)
            order = session.order(snapshot)  # another job may have finished a warm-up since
            failed = self._warm_up(order, show)
            if session.warmup_layout != session.layout:
                held.close()
            failed |= self._run(self._groups(order.first, failed), session.layout, show)
            failed |= self._follow(order.followers, failed, show)
            # Co-scheduled cases whose search has failed.
            left = [case for case in session.missing(session.snapshot()) if case.kind in KNOWN]
            return failed | self._run(self._groups(left, failed), session.layout, show)

    def _warm_up(self, order: Schedule, show: Any) -> dict[str, str]:
        """Train missing warm-ups; returns the reasons of cases that fail with them.

        If the workers of one case occupy the cluster anyway, the first case of each warm-up trains
        it before the others start, which saves starting another worker group.
        """
        if not order.warmups:
            return {}
        if self.session.warmup_layout != self.session.layout:
            tasks = [(warmup, ()) for warmup in order.warmups]
            reasons = self._run(tasks, self.session.warmup_layout, show)
            broken = {w.key: reasons[w.name] for w in order.warmups if w.name in reasons}
            return self._failed_with(broken, order.cases)
        hosts = [_first_of(warmup.key, order.first) for warmup in order.warmups]
        groups = self._groups([*hosts, *_references_of(hosts, order.first)], {})
        failed = self._run(groups, self.session.layout, show)
        broken = {
            str(host.warmup_key): failed[host.name]
            for host in hosts
            if host.name in failed and not self._is_warm(host)
        }
        return failed | self._failed_with(broken, [c for c in order.cases if c not in hosts])

    def _is_warm(self, case: Case) -> bool:
        return is_ended(self.session.storage.sub(warmup_folder(str(case.warmup_key))))

    def _failed_with(self, broken: dict[str, str], cases: Sequence[Case]) -> dict[str, str]:
        """Reasons of cases whose warm-up failed; `broken` has the reasons by warm-up key."""
        return {
            case.name: f"its warm-up failed: {broken[case.warmup_key]}"
            for case in cases
            if case.warmup_key in broken
        }

    def _groups(
        self, cases: Sequence[Case], failed: dict[str, str]
    ) -> list[tuple[Case, tuple[Case, ...]]]:
        """Co-scheduled groups of the cases that are neither done nor failed."""
        session = self.session
        missing = {case.name for case in session.missing(session.snapshot())}
        rest = [case for case in self._startable(cases, failed) if case.name in missing]
        return co_scheduled_groups(rest, session.layout.at_once)

    def _startable(self, cases: Sequence[Case], failed: dict[str, str]) -> list[Case]:
        return [case for case in cases if case.name not in failed]

    def _follow(
        self, followers: Sequence[Case], failed: dict[str, str], show: Any
    ) -> dict[str, str]:
        """Run cases that start from a search of the previous phase; returns reasons of failures."""
        reasons = {
            case.name: "the search that it shares with other budgets of its target failed"
            for case in self._startable(followers, failed)
            if not is_ended(self.session.folder.sub(search_folder(str(case.search_key))))
        }
        groups = self._groups(followers, failed | reasons)
        return reasons | self._run(groups, self.session.layout, show)

    def _run(
        self, cases: Sequence[tuple[Case, tuple[Case, ...]]], layout: WorkerLayout, show: Any
    ) -> dict[str, str]:
        """Run groups of cases to the end; returns the reasons of failures, by name."""
        from orchestration.driver.trials import run_cases

        if not cases:
            return {}
        session, folder = self.session, self.session.folder
        tasks = [session.task(case, extra, layout, folder.uri) for case, extra in cases]
        scheduler = asha_scheduler(session.plan.job, [case for case, _ in cases], folder)
        return run_cases(tasks, layout, folder, show, session.stop_signal, scheduler=scheduler)

    @contextmanager
    def _shown(self, missing: Sequence[Case]) -> Iterator[Any]:
        named = sum(case.kind != "reference" for case in missing) > 1
        lines = ProgressLines(self.log, named=named)
        with case_bars() as bars:

            def show(case: str, record: dict[str, Any]) -> None:
                self.stats(case, record)
                self.on_record(case, record)
                lines(case, record)
                bars(case, record)

            yield show

    def _hold_warmup(self, case: Case, held: ExitStack) -> None:
        """Acquire the lease of a warm-up, or wait until another job has trained it."""
        folder, is_said = self.session.storage.sub(warmup_folder(case.key)), False
        while not is_ended(folder):
            try:
                held.enter_context(Lease(folder))
                return
            except LeaseHeld as error:
                if not is_said:
                    self.log(f"waiting for a warm-up that another job trains: {error}")
                is_said = True
                time.sleep(POLL_S)


def _references_of(hosts: Sequence[Case], cases: Sequence[Case]) -> list[Case]:
    """Reference cases that can be co-scheduled with one of the hosts, for all targets."""
    seeds = {host.seed for host in hosts}
    return [case for case in cases if case.kind == "reference" and case.seed in seeds]


def _first_of(warmup_key: str, cases: Sequence[Case]) -> Case:
    """The first case that starts from a warm-up."""
    return next(case for case in cases if case.warmup_key == warmup_key)
