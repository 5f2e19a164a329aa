"""Callbacks of Ray Tune: reports of trials, graceful stops, early stopping, draining of reports.

Ray's classes are extended inside functions, so that importing this module does not import Ray.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.config.storage_layout import RUNGS_FILE
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
            if LAST not in result:
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
    """A trainable whose workers save a checkpoint and end at their next step when Tune stops it."""
    import ray
    from ray.tune.trainable import wrap_function

    class Gentle(wrap_function(trial)):  # type: ignore[misc]  # ray has no types
        def step(self) -> Any:
            result = super().step()
            mark_drained(result)
            return result

        def cleanup(self) -> None:
            case, deadline = self.config["case"], time.monotonic() + STOP_TIMEOUT_S
            if ray.get(control.is_running.remote(case)):
                ray.get(control.stop.remote(case))
            while ray.get(control.is_running.remote(case)) and time.monotonic() < deadline:
                time.sleep(0.2)
            super().cleanup()

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


LAST = "is_last_report"
"""Key of the extra, last report of a trial, which is not forwarded."""


TIMEOUT_S = 60.0
"""Limit of the wait for the last report; a stopped trial takes no more reports."""


_taken = threading.Event()
"""Set when the last report of this process's trial has been taken."""


def drain_reports() -> None:
    """Wait at the end of a trial until the main thread has taken all of its reports.

    Reports wait in a queue of Tune's until the trial's main thread takes them. If the trial ends
    first, its own last message fills the slot that the main thread needs, which then waits for
    itself forever (Ray 2.60; seen with workers that end right after a report on a busy machine).
    So the trial sends one more report and ends when that one has been taken.
    """
    from ray.util.queue import Full

    from cluster.ray_internals import trial_reports

    _taken.clear()
    try:
        trial_reports().put({LAST: True}, timeout=TIMEOUT_S)
    except Full:
        return
    _taken.wait(TIMEOUT_S)


def mark_drained(result: Mapping[str, Any]) -> None:
    """Note that the last report was taken. Called with every report in the trial's main thread."""
    if LAST in result:
        _taken.set()
