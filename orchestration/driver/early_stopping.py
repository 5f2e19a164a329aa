"""Ray Tune asks here whether a search goes on; `asha.py` has the rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.planning.cases import Case
from orchestration.scheduling.successive_halving import PLACE, group_of, rungs_of


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
            folder.write_json(PLACE, rungs.to_dict())
            return str(self.CONTINUE if reason is None else self.STOP)

    return Asha()
