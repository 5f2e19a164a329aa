"""The task of one case inside its worker group: find a network, measure, retrain, write the result.

All workers run `case_worker`; the first one measures and writes, the others wait for it. A stage
whose result is in storage already is not repeated, one in progress goes on from its checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch

from cluster.storage import Storage
from nas_core.train_step import LossError
from nas_core.workers import DivergenceError
from orchestration.data.dataset import Dataset
from orchestration.data.info import is_streamed
from orchestration.data.loading import keep_images, load_dataset
from orchestration.data.streaming.bad_samples import BadSamplesError
from orchestration.data.streaming.dataset import StreamedDataset, load_streamed
from orchestration.distributed.control_actor import RayControlClient
from orchestration.distributed.process_group import RayProcessGroup, Stopped, worker_device
from orchestration.planning.cases import WarmUpCase, checkpoints_place
from orchestration.stages.context import CaseTask, WorkerContext
from orchestration.state.result import Retrained
from orchestration.state.results_on_disk import is_done

FINAL = (DivergenceError, LossError, BadSamplesError)
"""What another attempt would not mend."""


def case_worker(config: dict[str, Any]) -> None:
    """Body of one Ray Train worker: `work` as plain values, and the actor of the `control`."""
    task = CaseTask.from_dict(config["task"])
    context = worker_context(task, RayControlClient(config["control"], task.case.name))
    context.group.watchdog.start()
    try:
        if isinstance(context.dataset, StreamedDataset):
            context.damage.check()  # as an attempt before this one may have left it
        if isinstance(task.case, WarmUpCase):
            _do_warm_up(context)
        else:
            _do_case(context)
    except Stopped:
        pass  # to raise would start the case again
    except FINAL as error:  # on all workers alike; it would come again
        context.control.fail(str(error))
    finally:
        context.group.watchdog.end()


def _do_warm_up(context: WorkerContext) -> None:
    from orchestration.stages.search import warm_up

    warm_up(context)


def _do_case(context: WorkerContext) -> None:
    from orchestration.stages.find import find_network
    from orchestration.stages.result import write_result
    from orchestration.stages.retrain import TrainedNetwork, retrain

    task, trained = context.task, dict[str, TrainedNetwork]()
    cases = (task.case, *task.co_scheduled)
    done = context.group.broadcast_from_first(
        lambda: [is_done(case, context.storage) for case in cases]
    )
    for case, is_finished in zip(cases, done, strict=True):
        if is_finished:
            continue
        own = context.of(case)
        found = find_network(own, case)
        outcome: Retrained = (
            {} if task.job.retrain is None else retrain(own, case, found.model, trained)
        )
        write_result(own, case, found, outcome)
    context.group.barrier()
    if context.group.rank == 0:
        for case in cases:
            context.storage.delete(checkpoints_place(case))


def worker_context(task: CaseTask, control: RayControlClient) -> WorkerContext:
    """The surroundings of this Ray Train worker."""
    torch.set_num_threads(task.threads)
    cluster = task.job.cluster
    if cluster.deterministic:
        torch.use_deterministic_algorithms(True)
    device = worker_device()
    group = RayProcessGroup(device, control, cluster.hang_timeout_s)
    if group.rank == 0:
        control.begin()
    dataset = load_images(task, group)
    return WorkerContext(task, group, device, dataset, Storage(task.folder), control)


def load_images(task: CaseTask, group: RayProcessGroup) -> Dataset | StreamedDataset:
    """Load the images of a job, with the facts that the driver has found out about them.

    What takes long is done by the first worker, and the others find it in storage.

    Raises:
        SpecError: an image cannot be decoded, or the images have changed since.
    """
    job, facts = task.job, task.data
    storage = Storage(job.storage)
    streams = is_streamed(job.data, facts)
    if group.rank == 0 and streams:
        load_streamed(job.data, storage, facts)
    elif group.rank == 0:
        keep_images(job.data, storage, facts)
    group.barrier()
    if streams:
        return load_streamed(job.data, storage, facts)
    return load_dataset(job.data, job.seed, storage, facts)
