"""A plan with its time and price: tables measured, a few steps of each phase timed, kept for later.

What was timed is kept in the storage under all that it depends on, so the run that follows a plan
knows what to expect, and says in the end how right that was.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from cluster.hardware import facts
from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.cases import Case, cases_of
from orchestration.crewing import Room, crewing
from orchestration.estimate import Estimate, Timings, estimate
from orchestration.keys import digest, training_parts
from orchestration.plan import Plan
from orchestration.plan_text import plan_lines
from orchestration.progress import Say
from orchestration.spec import SpecError
from orchestration.widths import width_cases

if TYPE_CHECKING:
    from orchestration.prepared import Prepared


def show_known_plan(
    plan: Plan, storage: Storage, tables: dict[str, LatencyTable], say: Say
) -> None:
    """Say what a run would do, as far as storage tells; nothing is measured."""
    _check_places(plan)
    cases, folder = cases_of(plan, tables), storage.sub(plan.job.name)
    cases += width_cases(plan, cases, tables, storage)
    cores = int(facts()["cores"])
    workers = f"{crewing(plan.job.cluster, [Room(cores)])}, on this machine's {cores} cores"
    for line in plan_lines(plan, tables, cases, folder, workers):
        say(line)


def show_plan(plan: Plan, storage: Storage, tables: dict[str, LatencyTable], say: Say) -> None:
    """Say what a run would do, need and cost: tables that are missing are measured, steps timed."""
    from orchestration.prepared import prepared

    _check_places(plan)
    cases_of(plan, tables)  # what is wrong is said before Ray is started
    with prepared(plan, storage, tables, say) as ready:
        expected = known_estimate(ready) or _timed_estimate(ready, say)
        words = (ready.tables, ready.cases, ready.folder, str(ready.crew), expected)
        for line in plan_lines(plan, *words):
            say(line)


def known_estimate(ready: Prepared) -> Estimate | None:
    """What a run will take, if its steps were timed before and something is left to do."""
    place = _timings_place(ready)
    if not ready.storage.exists(place):
        return None
    return _estimate(ready, Timings.from_dict(ready.storage.read_json(place)))


def _estimate(ready: Prepared, timings: Timings) -> Estimate:
    order = ready.order()
    return estimate(ready.plan, order, timings, ready.crew, len(ready.rooms))


def _timings_place(ready: Prepared) -> str:
    """Under what steps depend on: images, space, settings, networks, the machines, the targets."""
    job, plan = ready.plan.job, ready.plan
    settings = {"search": asdict(job.search), "retrain": job.retrain and asdict(job.retrain)}
    values: dict[str, Any] = {
        **training_parts(job.with_seed(0), plan.data, plan.space, "any"),
        **settings,
        "crews": [str(ready.crew), str(ready.warmup_crew)],
        "processor": facts()["cpu"],
        "tables": plan.table_keys,
        "models": sorted(case.name for case in ready.cases if case.model is not None),
    }
    return f"timings/{digest(values)}.json"


def _timed_estimate(ready: Prepared, say: Say) -> Estimate | None:
    """Time a few steps, unless nothing is left to do."""
    order = ready.order()
    if not order.cases:
        return None
    say("time     a few steps of each phase ...")
    place = _timings_place(ready)
    folder = place.removesuffix(".json")
    try:
        timings = _timed(ready, order.cases, folder)
    except RuntimeError as error:
        raise SpecError(str(error)) from None
    finally:
        ready.storage.delete(folder)
    ready.storage.write_json(place, timings.to_dict())
    return _estimate(ready, timings)


def _timed(ready: Prepared, cases: Sequence[Case], folder: str) -> Timings:
    from orchestration.timing import timed_steps

    searches = [case for case in cases if case.kind == "search"] or list(cases)
    models = [case for case in ready.cases if case.model is not None]
    count = min(ready.crew.at_once, max(1, len(cases)))
    place = ready.storage.sub(folder)
    lanes = [
        replace(searches[i % len(searches)], name=f"lane-{i}", kind="search") for i in range(count)
    ]
    works = [
        ready.work(lane, models[i::count], ready.crew, place.uri) for i, lane in enumerate(lanes)
    ]
    warmup = None
    if ready.warmup_crew != ready.crew and lanes[0].warmup_key is not None:
        first = replace(lanes[0], name="warm-up")
        warmup = ready.work(first, (), ready.warmup_crew, place.uri)
    return timed_steps(works, warmup, (ready.crew, ready.warmup_crew), place, ready.stopper)


def _check_places(plan: Plan) -> None:
    """Refuse a plan with a target that no node offers: of the Ray that is named, else of here."""
    from cluster.connect import connect
    from cluster.placement import PlacementError, node_for, nodes, this_machine

    measured = [target for target in plan.targets if target.is_measured]
    try:
        if os.environ.get("RAY_ADDRESS") and any(t.resources or t.labels for t in measured):
            with connect():
                there = nodes()
        else:
            there = [this_machine()]
        for target in measured:
            node_for(target, there)
    except PlacementError as error:
        raise SpecError(str(error)) from None
