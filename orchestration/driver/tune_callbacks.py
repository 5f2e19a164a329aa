"""What Ray Tune asks and tells while trials run: what they report, how they stop, when they end.

Classes of Ray are extended inside functions: who only names this module does not import it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from orchestration.driver.last_report import LAST, note_taken
from orchestration.driver.stopping import PATIENCE_S


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


def gentle(trial: Callable[[dict[str, Any]], None], board: Any) -> Any:
    """A trainable whose workers end at their next step, with a checkpoint, when Tune stops it."""
    import ray
    from ray.tune.trainable import wrap_function

    class Gentle(wrap_function(trial)):  # type: ignore[misc]  # ray has no types
        def step(self) -> Any:
            result = super().step()
            note_taken(result)
            return result

        def cleanup(self) -> None:
            case, deadline = self.config["case"], time.monotonic() + PATIENCE_S
            if ray.get(board.is_running.remote(case)):
                ray.get(board.stop.remote(case))
            while ray.get(board.is_running.remote(case)) and time.monotonic() < deadline:
                time.sleep(0.2)
            super().cleanup()

    return Gentle
