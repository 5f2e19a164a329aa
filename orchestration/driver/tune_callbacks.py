"""Callbacks of Ray Tune: reports of trials, graceful stops, early stopping.

Ray's classes are extended inside functions, so that importing this module does not import Ray.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.config.storage_layout import RUNGS_FILE
from orchestration.distributed.shared_group import close_own_group
from orchestration.driver.stopping import STOP_TIMEOUT_S
from orchestration.planning.case import Case
from orchestration.scheduling.successive_halving import group_of, rungs_of


class StaysHere:
    """A function that need not be picklable: Tune pickles callbacks but calls only the original."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return StaysHere, (print,)


def progress(on_report: Callable[[str, dict[str, Any]], None]) -> Any:
    """Callback that forwards reports.

    Replaces Ray's own callback, which prints a line for trials without reports.
    """
    from ray.tune.experiment import Trial
    from ray.tune.progress_reporter import TrialProgressCallback

    here = StaysHere(on_report)

    class Progress(TrialProgressCallback):  # type: ignore[misc]  # ray has no types
        def on_trial_result(self, *_: Any, trial: Trial, result: dict[str, Any], **__: Any) -> None:
            here.call(trial.config["case"], result)

        def on_trial_complete(self, *_: Any, **__: Any) -> None: ...

        def on_trial_error(self, *_: Any, **__: Any) -> None: ...

    return Progress()


def ending_when(is_over: Callable[[], bool], stop: dict[str, Any]) -> Any:
    """Stopper of Tune for single cases and for all of them.

    Args:
        is_over: whether the job ends, including pending cases. Without it each pending case would
            start a process only to find that it has to stop.
        stop: metrics and the values at which a case ends.
    """
    from ray import tune

    asked = StaysHere(is_over)

    class Ending(tune.Stopper):  # type: ignore[misc]  # ray has no types
        def __call__(self, _trial: str, result: dict[str, Any]) -> bool:
            return any(name in result and result[name] >= value for name, value in stop.items())

        def stop_all(self) -> bool:
            return bool(asked.call())

    return Ending()


def graceful_stop(trial: Callable[[dict[str, Any]], None], control: Any) -> Any:
    """A trainable whose workers save a checkpoint and end their case when Tune stops it.

    Tune uses it again for the next trial, in the same worker group.
    """
    import ray
    from ray.tune.trainable import wrap_function

    class Gentle(wrap_function(trial)):  # type: ignore[misc]  # ray has no types
        def step(self) -> Any:
            self._case = self.config["case"]
            return super().step()

        def reset_config(self, new_config: dict[str, Any]) -> bool:
            self._end_case()
            return bool(super().reset_config(new_config))

        def cleanup(self) -> None:
            self._end_case()
            close_own_group(STOP_TIMEOUT_S)
            super().cleanup()

        def _end_case(self) -> None:
            case, deadline = getattr(self, "_case", None), time.monotonic() + STOP_TIMEOUT_S
            if case is None or not ray.get(control.is_assigned.remote(case)):
                return
            ray.get(control.stop.remote(case))
            while ray.get(control.is_assigned.remote(case)) and time.monotonic() < deadline:
                time.sleep(0.2)

    return Gentle


def asha_scheduler(job: Job, cases: Sequence[Case], folder: Storage) -> Any:
    """A scheduler of Ray Tune that stops searches early; None unless the job requests it.

    It runs in the driver. Its rungs are written to storage after every report, so that a job that
    is submitted again resumes with them.

    Args:
        job: the job.
        cases: of the job.
        folder: the job's storage.
    """
    if job.asha is None:
        return None
    from ray.tune.schedulers import FIFOScheduler

    warmup_epochs = job.search.warmup_epochs
    rungs = rungs_of(job.asha, job.search.epochs, folder)
    known = {case.name: (group_of(case), case.key) for case in cases}

    class Asha(FIFOScheduler):  # type: ignore[misc]  # ray has no types
        def on_trial_result(self, _controller: Any, trial: Any, result: dict[str, Any]) -> str:
            if result.get("score") is None:
                return str(self.CONTINUE)
            epoch = result["epoch"] + 1 - warmup_epochs
            reason = rungs.report(*known[trial.config["case"]], epoch, result["score"])
            folder.write_json(RUNGS_FILE, rungs.to_dict())
            return str(self.CONTINUE if reason is None else self.STOP)

    return Asha()
