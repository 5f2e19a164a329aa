"""The work of one case inside its worker group: find a network, measure, retrain, write the result.

All workers run `case_worker`; the first one measures and writes, the others wait for it. A stage
whose result is in storage already is not repeated, one in progress goes on from its checkpoint.
"""

from __future__ import annotations

from typing import Any

import torch

from cluster.storage import Storage
from nas_core.train_step import LossError
from nas_core.workers import DivergenceError
from orchestration.config.job import Job
from orchestration.data.dataset import Dataset
from orchestration.data.info import is_streamed
from orchestration.data.loading import keep_images, load_dataset
from orchestration.data.sources import describe
from orchestration.data.streaming.bad_samples import DamageError
from orchestration.data.streaming.dataset import StreamedDataset, load_streamed
from orchestration.distributed.control_actor import RayBoard
from orchestration.distributed.process_group import RayTeam, Stopped, worker_device
from orchestration.planning.cases import checkpoints_place
from orchestration.stages.context import CaseWork, Crew
from orchestration.state.results_on_disk import is_done

FINAL = (DivergenceError, LossError, DamageError)
"""What another attempt would not mend."""


def case_worker(config: dict[str, Any]) -> None:
    """Body of one Ray Train worker: `work` as plain values, and the actor of the `board`."""
    work = CaseWork.from_dict(config["work"])
    crew = crew_of_worker(work, RayBoard(config["board"], work.case.name))
    crew.team.watch.start()
    try:
        if isinstance(crew.dataset, StreamedDataset):
            crew.damage.check()  # as an attempt before this one may have left it
        if work.case.kind == "warmup":
            _do_warm_up(crew)
        else:
            _do_case(crew)
    except Stopped:
        pass  # to raise would start the case again
    except FINAL as error:  # on all workers alike; it would come again
        crew.board.fail(str(error))
    finally:
        crew.team.watch.end()


def _do_warm_up(crew: Crew) -> None:
    from orchestration.stages.search import warm_up

    warm_up(crew)


def _do_case(crew: Crew) -> None:
    from orchestration.stages.find import found_for
    from orchestration.stages.result import write_result
    from orchestration.stages.retrain import TrainedNetwork, retrain

    work, trained = crew.work, dict[str, TrainedNetwork]()
    missing = [case for case in (work.case, *work.behind) if not is_done(case, crew.storage)]
    crew.team.wait()  # until all have looked, or one would see what another has just written
    for case in missing:
        own = crew.of(case)
        found = found_for(own, case)
        outcome = {} if work.job.retrain is None else retrain(own, case, found.model, trained)
        write_result(own, case, found, outcome)
    crew.team.wait()
    if crew.team.rank == 0:
        for case in (work.case, *work.behind):
            crew.storage.delete(checkpoints_place(case))


def crew_of_worker(work: CaseWork, board: RayBoard) -> Crew:
    """The surroundings of this Ray Train worker."""
    torch.set_num_threads(work.threads)
    cluster = work.job.cluster
    if cluster.deterministic:
        torch.use_deterministic_algorithms(True)
    device = worker_device()
    team = RayTeam(device, board, cluster.hang_timeout_s)
    if team.rank == 0:
        board.begin()
    dataset = _dataset(work.job, team)
    return Crew(work, team, device, dataset, Storage(work.folder), board)


def _dataset(job: Job, team: RayTeam) -> Dataset | StreamedDataset:
    """The images of a job: what takes long is done by the first worker, and the others find it."""
    storage, facts = Storage(job.storage), describe(job.data)
    streams = is_streamed(job.data, facts)
    if team.rank == 0 and streams:
        load_streamed(job.data, storage, facts)
    elif team.rank == 0:
        keep_images(job.data, storage)
    team.wait()
    if streams:
        return load_streamed(job.data, storage, facts)
    return load_dataset(job.data, job.seed, storage)
