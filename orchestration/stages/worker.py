"""Body of the Ray Train workers of a case: find a network, measure, retrain, write the result.

All workers run `case_worker`. The first worker measures and writes while the others wait. A stage
whose result is in storage is not repeated; one in progress continues from its checkpoint.

The process of a trial and Ray Train's controller import this module only to name its function, so
torch is imported inside functions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestration.distributed.control_actor import RayControlClient
from orchestration.planning.case import WarmUpCase, checkpoints_place
from orchestration.state.results_on_disk import is_done

if TYPE_CHECKING:
    from orchestration.stages.context import WorkerContext
    from orchestration.stages.retrain import TrainedNetwork
    from orchestration.state.result import Retrained


def case_worker(config: dict[str, Any]) -> None:
    """Work on one case and those that are scheduled with it.

    Args:
        config: "task", a `CaseTask` as plain values, and "control", the handle of the control
            actor of the job.
    """
    from orchestration.distributed.process_group import Stopped
    from orchestration.stages.context import CaseTask, worker_context

    task = CaseTask.from_dict(config["task"])
    context = worker_context(task, RayControlClient(config["control"], task.case.name))
    context.group.watchdog.start()
    try:
        context.check_bad_samples()  # an earlier attempt may have found too many
        if isinstance(task.case, WarmUpCase):
            _do_warm_up(context)
        else:
            _do_case(context)
    except Stopped:
        pass  # an error would make Ray restart the case
    except final_errors() as error:  # on all workers alike
        context.control.fail(str(error))
    finally:
        context.group.watchdog.end()


def final_errors() -> tuple[type[Exception], ...]:
    """Errors that another attempt would meet again."""
    from nas_core.train_step import LossError
    from nas_core.workers import DivergenceError
    from orchestration.data.streaming.bad_samples import BadSamplesError

    return DivergenceError, LossError, BadSamplesError


def _do_warm_up(context: WorkerContext) -> None:
    from orchestration.stages.search import warm_up

    warm_up(context)


def _do_case(context: WorkerContext) -> None:
    from orchestration.stages.find import find_network
    from orchestration.stages.result import write_result
    from orchestration.stages.retrain import retrain

    task = context.task
    trained: dict[str, TrainedNetwork] = {}
    cases = (task.case, *task.co_scheduled)
    done = context.group.broadcast_from_first(
        lambda: [is_done(case, context.storage) for case in cases]
    )
    for case, is_finished in zip(cases, done, strict=True):
        if is_finished:
            continue
        own = context.of(case)
        candidate = find_network(own, case)
        outcome: Retrained = (
            {} if task.job.retrain is None else retrain(own, case, candidate.model, trained)
        )
        write_result(own, case, candidate, outcome)
    context.group.barrier()
    if context.group.rank == 0:
        for case in cases:
            context.storage.delete(checkpoints_place(case))
