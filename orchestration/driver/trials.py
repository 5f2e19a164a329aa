"""Ray Tune over cases: one trial per case, each in a Ray Train worker group.

A trial only waits for its worker group. It reserves one byte of memory, so that cores are left to
the workers and nested placement groups cannot deadlock. Its process runs further trials after it,
in the same worker group.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from cluster.hardware import KEEP_MEMORY
from cluster.storage import Storage
from orchestration.config.digest import digest
from orchestration.config.job import ClusterSettings
from orchestration.config.storage_layout import TRAIN, TUNE
from orchestration.distributed.control_actor import ControlActor
from orchestration.distributed.shared_group import run_assigned_cases, run_in_own_group
from orchestration.distributed.thread_waiting import WAIT_POLICY
from orchestration.driver.background import repeating
from orchestration.driver.stopping import StopSignal
from orchestration.driver.tune_callbacks import ending_when, graceful_stop, progress
from orchestration.planning.worker_layout import WorkerLayout
from orchestration.stages.worker import case_worker

if TYPE_CHECKING:
    from orchestration.stages.context import CaseTask

Body = Callable[[dict[str, Any]], None]
"""Function that a Ray Train worker runs."""

HEALTH_CHECK_S = "0.5"
"""Interval at which Ray Train's controller looks whether workers have failed or ended; its default
of 2 s would be added to every phase."""

PREEMPTION_WATCHER = "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"
"""Environment variable that starts a process per worker group, which tells preempted nodes."""

NOTES_S = 1.0
"""Seconds between two checks for notes of workers."""

START_TIMEOUT_S = "30"
"""Seconds Ray Train waits for all requested workers before it starts with fewer. After the loss of
a node its default of 60 s would pass; available workers start in 6 s."""

TRIAL_RESOURCES = {"CPU": 0.0, "memory": 1.0}

GROUP_TIMEOUT_S = 7200
"""Limit of the wait of workers for the first one while it measures and exports."""

WORKER_ENVIRONMENT = {**KEEP_MEMORY, "CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""Environment of workers; deterministic algorithms on a GPU need the last variable."""


def run_cases(
    tasks: Sequence[CaseTask],
    layout: WorkerLayout,
    folder: Storage,
    on_epoch: Callable[[str, dict[str, Any]], None],
    stop_signal: StopSignal,
    stop: dict[str, Any] | None = None,
    body: Body = case_worker,
    scheduler: Any = None,
) -> dict[str, str]:
    """Run cases to the end; each fails or finishes independently.

    Args:
        tasks: the cases.
        layout: of their workers.
        folder: storage of the job.
        on_epoch: called with the name of a case and each of its reports.
        stop_signal: stop request of the driver.
        stop: metrics and the values at which Tune ends a case; a later run resumes it.
        body: function that each worker of a case runs.
        scheduler: of Ray Tune, for early stopping; None for none.

    Returns:
        Reasons of failed cases, by name.

    Raises:
        KeyboardInterrupt: a signal was received; the workers have saved a checkpoint and stopped.
    """
    _prepare_environment()
    import ray

    control = _new_control()
    ray.get(control.add_tasks.remote(_by_reference(tasks)))
    with stop_signal.graceful_stop(lambda: ray.get(control.stop.remote(), timeout=10)):
        try:
            with repeating(lambda: _log_notes(control, on_epoch), NOTES_S, "notes"):
                ending = ending_when(
                    lambda: stop_signal.is_stopping and not ray.get(control.any_runs.remote()),
                    stop or {},
                )
                names, settings = [task.case.name for task in tasks], tasks[0].job.cluster
                group = _GroupSettings(settings, layout, scratch(folder), body)
                tuner = _tuner(names, group, folder, on_epoch, control, ending, scheduler)
                errors = _trial_errors(tuner.fit())
                reasons: dict[str, str] = errors | ray.get(control.reasons.remote())
        finally:
            ray.kill(control)
    if stop_signal.is_stopping:
        raise KeyboardInterrupt
    return reasons


def _new_control() -> Any:
    """Start the control actor on the driver's node, since other nodes may be lost."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0, scheduling_strategy=here)(ControlActor).remote()


def _log_notes(control: Any, on_epoch: Callable[[str, dict[str, Any]], None]) -> None:
    """Forward the notes that workers have sent to the control actor since the last call."""
    import ray

    for case, text in ray.get(control.take_notes.remote()):
        on_epoch(case, {"note": text})


def _by_reference(tasks: Sequence[CaseTask]) -> dict[str, dict[str, Any]]:
    """Inputs of cases by name. Parts that cases share are put into Ray's object store once."""
    import ray

    from orchestration.stages.context import values_of

    known: dict[int, Any] = {}

    def share(part: Any) -> Any:
        if id(part) not in known:
            known[id(part)] = ray.put(values_of(part))
        return known[id(part)]

    return {task.case.name: task.to_dict(share) for task in tasks}


@dataclass(frozen=True)
class _GroupSettings:
    """Settings of the worker groups of one call of `run_cases`."""

    cluster: ClusterSettings
    layout: WorkerLayout
    storage_path: str
    """Folder for files of Ray Train."""
    body: Body


def _tuner(
    names: Sequence[str],
    settings: _GroupSettings,
    folder: Storage,
    on_epoch: Callable[[str, dict[str, Any]], None],
    control: Any,
    ending: Any,
    scheduler: Any,
) -> Any:
    """A tuner with one trial per case."""
    from ray import tune

    def trial(config: dict[str, Any]) -> None:
        run_trial(config["case"], settings, control)

    shutil.rmtree(f"{scratch(folder)}/{TUNE}", ignore_errors=True)  # of no use: cases resume by key
    return tune.Tuner(
        tune.with_resources(graceful_stop(trial, control), _trial_resources()),
        param_space={"case": tune.grid_search(list(names))},
        tune_config=tune.TuneConfig(
            max_concurrent_trials=settings.layout.at_once,
            scheduler=scheduler,
            trial_dirname_creator=lambda t: t.trial_id,
            reuse_actors=True,  # the process of a trial keeps its worker group for the next trial
        ),
        run_config=_run_config(folder, ending, on_epoch, settings.cluster.max_failures),
    )


def scratch(folder: Storage) -> str:
    """Folder for files of Tune and Train, which are not read, since workers save checkpoints
    themselves. A temporary folder if the storage is not local."""
    if folder.is_local:
        return folder.uri
    return f"{tempfile.gettempdir()}/proxyless-{digest({'folder': folder.uri})}"


def _run_config(
    folder: Storage,
    ending: Any,
    on_epoch: Callable[[str, dict[str, Any]], None],
    max_failures: int,
) -> Any:
    from ray import tune

    return tune.RunConfig(
        name=TUNE,
        stop=ending,
        storage_path=scratch(folder),
        callbacks=[progress(on_epoch)],
        verbose=0,
        # Failures of the trial's own process; those of workers go to the control actor.
        failure_config=tune.FailureConfig(max_failures=max_failures),
    )


def _trial_errors(results: Any) -> dict[str, str]:
    """Errors of trials that failed themselves, by case; the control actor has the others."""
    return {
        result.config["case"]: _reason(result.error)
        for result in results
        if result.config is not None and result.error is not None
    }


def _trial_resources() -> Any:
    """Resources of a trial: next to nothing, on a node that is not preemptible if nodes say so."""
    from ray import tune

    from cluster.placement import nodes, steady_selector

    options = (
        {"bundle_label_selector": [selector]} if (selector := steady_selector(nodes())) else {}
    )
    return tune.PlacementGroupFactory([TRIAL_RESOURCES], **options)


def run_trial(case: str, settings: _GroupSettings, control: Any) -> None:
    """Body of one Tune trial: run a case in the worker group of this process, unless it is stopped.

    The control actor gets the reason of a failure. No training error leaves this function: Tune
    would start the trial again, and Train all of its attempts.
    """
    import ray
    from ray import tune
    from ray.train import TrainingFailedError

    ray.get(control.start.remote(case))
    try:
        if not ray.get(control.is_stopping.remote(case)):
            fit = partial(_fit, settings=settings, control=control)
            run_in_own_group(case, control, fit, tune.report)
    except TrainingFailedError as error:
        ray.get(control.fail.remote(case, _reason(error)))
    finally:
        ray.get(control.end.remote(case))


def _fit(name: str, settings: _GroupSettings, control: Any) -> None:
    """Start a worker group of that name, and wait until it ends.

    Raises:
        TrainingFailedError: its workers have failed more often than the job allows.
    """
    import ray.train

    from cluster.placement import nodes
    from orchestration.distributed.ray_backend import LazyTorchBackend, WorkerGroups

    layout, cluster = settings.layout, settings.cluster
    if layout.least is None and len(nodes()) == 1:  # a preempted node would take all with it
        os.environ.setdefault(PREEMPTION_WATCHER, "0")
    WorkerGroups(
        run_assigned_cases,
        train_loop_config={"group": name, "control": control, "body": settings.body},
        backend_config=LazyTorchBackend(
            backend=layout.backend, timeout_s=GROUP_TIMEOUT_S, threads=layout.cpus_per_worker
        ),
        scaling_config=_scaling(layout, cluster),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=f"{settings.storage_path}/{TRAIN}",
            failure_config=ray.train.FailureConfig(
                max_failures=cluster.max_failures, max_preemption_failures=-1
            ),
            worker_runtime_env={"env_vars": worker_environment()},
        ),
    ).fit()


def worker_environment() -> dict[str, str]:
    """Environment variables of training workers. A wait policy that the user has set is kept."""
    own = {WAIT_POLICY: os.environ[WAIT_POLICY]} if WAIT_POLICY in os.environ else {}
    return {**WORKER_ENVIRONMENT, **own}


def _scaling(layout: WorkerLayout, cluster: ClusterSettings) -> Any:
    import ray.train

    resources = {"CPU": float(layout.cpus_per_worker)}
    if layout.gpus_per_worker:
        resources["GPU"] = layout.gpus_per_worker
    return ray.train.ScalingConfig(
        num_workers=layout.workers if layout.least is None else (layout.least, layout.workers),
        elastic_resize_monitor_interval_s=cluster.elastic_resize_monitor_interval_s,
        use_gpu=layout.gpus_per_worker > 0,
        resources_per_worker=resources,
    )


def _prepare_environment() -> None:
    """Settings that Ray reads when its libraries are imported."""
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", HEALTH_CHECK_S)
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", START_TIMEOUT_S)
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # the driver has its own
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # with verbose=0 the old one is silent
    for name in ("ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.WARNING)


def _reason(error: BaseException) -> str:
    """The last line of an error, which is its message; Ray puts the traceback before it."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
