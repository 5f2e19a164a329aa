"""What Ray Tune asks and tells while trials run: what they report, how they stop, when they end.

Classes of Ray are extended inside functions: who only names this module does not import it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.config.storage_layout import RUNGS_FILE
from orchestration.driver.stopping import PATIENCE_S
from orchestration.planning.cases import Case
from orchestration.scheduling.successive_halving import group_of, rungs_of


class StaysHere:
    """A function of this process. Tune pickles its callbacks to keep them, not to call them."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call

    def __reduce__(self) -> tuple[Any, ...]:
        return StaysHere, (print,)


def progress(told: Callable[[str, dict[str, Any]], None]) -> Any:
    """In place of Ray's own callback, which prints a line for a trial that reported nothing."""
    from ray.tune.experiment import Trial
    from ray.tune.progress_reporter import TrialProgressCallback

    here = StaysHere(told)

    class Progress(TrialProgressCallback):  # type: ignore[misc]  # ray has no types
        def on_trial_result(self, *_: Any, trial: Trial, result: dict[str, Any], **__: Any) -> None:
            if LAST not in result:
                here.call(trial.config["case"], result)

        def on_trial_complete(self, *_: Any, **__: Any) -> None: ...

        def on_trial_error(self, *_: Any, **__: Any) -> None: ...

    return Progress()


def ending_when(is_over: Callable[[], bool], stop: dict[str, Any]) -> Any:
    """What Tune asks for the end of a case, and of all of them.

    Args:
        is_over: whether the job ends, cases that wait included. Without it each of them would be
            begun, in a process of its own, only to see that it is to stop.
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
    """A trainable whose workers end at their next step, with a checkpoint, when Tune stops it."""
    import ray
    from ray.tune.trainable import wrap_function

    class Gentle(wrap_function(trial)):  # type: ignore[misc]  # ray has no types
        def step(self) -> Any:
            result = super().step()
            mark_drained(result)
            return result

        def cleanup(self) -> None:
            case, deadline = self.config["case"], time.monotonic() + PATIENCE_S
            if ray.get(control.is_running.remote(case)):
                ray.get(control.stop.remote(case))
            while ray.get(control.is_running.remote(case)) and time.monotonic() < deadline:
                time.sleep(0.2)
            super().cleanup()

    return Gentle


def asha_scheduler(job: Job, cases: Sequence[Case], folder: Storage) -> Any:
    """A scheduler of Ray Tune that ends searches early; None where the job does not ask for that.

    It runs in the driver. Its rungs are in the job's storage after every report, so that a job that
    is submitted again goes on with them.

    Args:
        job: whose searches.
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
"""In the report that is nothing but the last; nobody else needs to hear of it."""


TIMEOUT_S = 60.0
"""Who has stopped the trial takes no more reports."""


_taken = threading.Event()
"""Of the one trial of this process."""


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
    """In the trial's main thread, with every report that it hands to the driver."""
    if LAST in result:
        _taken.set()
