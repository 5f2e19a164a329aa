"""Cross-target evaluation: measure every network of a job on every target.

Includes baselines, given networks and the reference. On a target that can be measured, all networks
are timed in one run together with the reference network, whose drift since the latency table was
measured is divided out, so that latencies on a target are comparable. Measurements are stored in
the job's folder, and repeated when there are other networks. On a target that cannot be measured,
latencies come from its table.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from cluster.hardware import Target
from cluster.runtimes.base import MeasurementError, ProgramError
from cluster.storage import Storage
from nas_core.architecture import Architecture, Model
from nas_core.latency import LatencyTable
from orchestration.config.storage_layout import (
    CROSS_TARGET_FORMAT,
    MODEL,
    case_folder,
    cross_target_file,
)
from orchestration.planning.plan import Plan
from orchestration.reports.cross_target import (
    Tables,
    known_measurements,
    networks_by_hash,
    specialized,
)
from orchestration.state.result import Result

if TYPE_CHECKING:
    from cluster.runtimes.timing import Timing
    from orchestration.programs.timing_workers import Program

FAILED = "failed"

Log = Callable[[str], None]


def targets_to_measure(
    plan: Plan, results: Sequence[Result], tables: Tables, folder: Storage
) -> list[Target]:
    """Targets on which networks are not measured yet; empty if the job has a single target."""
    wanted = _networks(plan, results)
    if (
        not plan.job.measure.across
        or len({result["target"] for result in specialized(results)}) < 2
    ):
        return []
    return [
        target
        for target in plan.targets
        if target.is_measured
        and target.name in tables
        and not wanted.keys() <= known_measurements(folder, target.name, tables[target.name]).keys()
    ]


def measure_cross_target(
    plan: Plan, results: Sequence[Result], tables: Tables, folder: Storage, log: Log
) -> None:
    """Measure all networks on each target with missing measurements. Ray has to be running.

    Failures do not fail the job: they are logged and stored, so that a finished job does not try
    again. Deleting `across/` in its folder makes it try again.

    Args:
        plan: of the job.
        results: of its finished cases.
        tables: by target.
        folder: of the job; measurements are stored there.
        log: called with each progress line.
    """
    networks = _networks(plan, results)
    for target in targets_to_measure(plan, results, tables, folder):
        log(f"measure  {len(networks)} networks on {target.hardware()} ...")
        measured, reason = dict[str, dict[str, Any]](), ""
        exported = _exported(plan, target, results, folder)
        try:
            measured = _measured(plan, target, tables[target.name], networks, exported, log)
        except _refusals() as error:
            reason = str(error)
            log(f"WARNING not measured on {target.hardware()}: {reason}")
        unknown = {key: {"ms": None, "spread": None} for key in networks.keys() - measured.keys()}
        values = {"format": CROSS_TARGET_FORMAT, "reference_ms": tables[target.name].reference_ms}
        folder.write_json(
            cross_target_file(target.name),
            {**values, "networks": measured | unknown, FAILED: reason},
        )


def _refusals() -> tuple[type[Exception], ...]:
    """Errors of a target, its node or Ray that prevent a measurement."""
    from ray.exceptions import RayError

    from cluster.placement import PlacementError

    return (MeasurementError, PlacementError, RayError)


def _networks(plan: Plan, results: Sequence[Result]) -> dict[str, Model]:
    """Networks of the job's space and baselines, by hash."""
    return {
        key: model
        for key, model in networks_by_hash(results).items()
        if not isinstance(model, Architecture) or model.space == plan.space
    }


def _measured(
    plan: Plan,
    target: Target,
    table: LatencyTable,
    networks: Mapping[str, Model],
    made: Mapping[str, Program],
    log: Log,
) -> dict[str, dict[str, Any]]:
    """Measure all networks on a node on which nothing trains meanwhile."""
    from cluster.placement import cores_reserved
    from orchestration.latency.calibrate import timed_networks
    from orchestration.latency.device import node_of
    from orchestration.latency.measurement_setup import MeasurementSetup
    from orchestration.programs.compile_workers import compile_workers_running, lower

    node = node_of(table, target)
    with compile_workers_running([node]), cores_reserved(node, log):
        missing = {key: model for key, model in networks.items() if key not in made}
        programs = {**made, **dict(_lowered(plan, target, missing))}
        beside = lower(plan.space, target, [Architecture.reference(plan.space), None])
        setup = MeasurementSetup(plan.space, target, plan.job.measure, node)
        *timings, reference, empty = timed_networks(setup, [*programs.values(), *beside])
    now = reference.without(empty.median_ms).median_ms
    drift = now / (table.reference_ms or now)
    return {
        key: _values(timing.without(empty.median_ms), drift)
        for key, timing in zip(programs, timings, strict=True)
    }


def _values(timing: Timing, drift: float) -> dict[str, Any]:
    return {"ms": timing.median_ms / drift, "spread": timing.spread}


def _exported(
    plan: Plan, target: Target, results: Sequence[Result], folder: Storage
) -> dict[str, Program]:
    """Exported programs of trained networks for the target, by hash; saves lowering them again."""
    from cluster.runtimes import runtime_of
    from orchestration.programs.compile_workers import is_beside
    from orchestration.programs.timing_workers import Program

    networks, programs = _networks(plan, results), dict[str, Program]()
    owns = {own.name for own in plan.targets if is_beside(target, own)}
    for result in results:
        if result["target"] not in owns or result["architecture_hash"] not in networks:
            continue
        file = f"{case_folder(result['case'])}/{MODEL}/{runtime_of(target).file_name}"
        if (code := folder.find_bytes(file)) is not None:
            shape = (target.batch_size, *result["input_shape"])
            programs[result["architecture_hash"]] = Program(code, shape)
    return programs


def _lowered(
    plan: Plan, target: Target, networks: Mapping[str, Model]
) -> Iterator[tuple[str, Program]]:
    """Programs of the networks; networks that the runtime rejects are left out."""
    from orchestration.programs.compile_workers import lower

    try:
        lowered = lower(plan.space, target, list(networks.values()))
        yield from zip(networks, lowered, strict=True)
        return
    except ProgramError:
        pass
    for key, network in networks.items():
        try:
            (program,) = lower(plan.space, target, [network])
        except ProgramError:
            continue
        yield key, program
