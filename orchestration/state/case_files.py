"""Files of a case in storage: result, derived network, checkpoints.

Read-only, and safe while workers are writing. Must not import torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cluster.storage import Storage
from orchestration.config.storage_layout import (
    DERIVED_FILE,
    RANDOM_FILE,
    RANKING_FILE,
    RESULT_FILE,
    RETRAIN,
    RUNGS_FILE,
    SEARCH,
    search_folder,
)
from orchestration.planning.case import Case, checkpoints_place
from orchestration.state.checkpoint_index import StageProgress, stage_progress
from orchestration.state.result import Latencies, Result
from orchestration.state.run_file import JobPlan

Values = Mapping[str, Any]


@dataclass(frozen=True)
class CaseFiles:
    """Contents of the files of a case."""

    result: Result | None
    """The result with exactly this case's key; None if there is none."""
    is_outdated: bool
    """Whether there is a result of other settings under the case's name."""
    found: Latencies | None
    """The derived and measured network before retraining; None if there is none."""
    search: StageProgress | None
    """Progress of the search, its own or a shared one."""
    retraining: StageProgress | None
    networks: int
    """Number of networks trained alone: random ones, or those of a ranking."""

    @property
    def is_found(self) -> bool:
        """Whether the network is known, so that only retraining is left."""
        return self.found is not None or self.retraining is not None

    @property
    def stage(self) -> StageProgress | None:
        """Progress of the current stage."""
        return self.retraining or (None if self.is_found else self.search)

    def epochs(self) -> Iterator[Values]:
        """Reports of all known epochs."""
        if self.result is not None:
            yield from self.result.get("search_history", ())
            yield from self.result.get("retrain_history", ())
            return
        for stage in (self.search, self.retraining):
            yield from () if stage is None else stage.history


def case_files(case: Case, folder: Storage) -> CaseFiles:
    """Read the files of a case in the folder of its job."""
    result: Result | None = folder.find_json(f"{case.folder}/{RESULT_FILE}")
    is_result = result is not None and result.get("key") == case.key
    own, shared = folder.sub(checkpoints_place(case)), case.search_key
    return CaseFiles(
        result=result if is_result else None,
        is_outdated=result is not None and not is_result,
        found=_own(case, folder, DERIVED_FILE),
        search=stage_progress(
            own.sub(SEARCH) if shared is None else folder.sub(search_folder(shared))
        ),
        retraining=stage_progress(own.sub(RETRAIN)),
        networks=sum(
            len((_own(case, folder, file) or {}).get("networks", ()))
            for file in (RANDOM_FILE, RANKING_FILE)
        ),
    )


def stopped_searches(plan: JobPlan, folder: Storage) -> Mapping[str, str]:
    """Reasons of searches stopped early, by case key; ignores decisions under other settings."""
    values = _read(folder, RUNGS_FILE) or {}
    is_asked = plan.asha is not None and values.get("settings") == plan.asha
    stopped: Mapping[str, str] = values["stopped"] if is_asked else {}
    return stopped


def _own(case: Case, folder: Storage, file: str) -> Any:
    """Content of a file of the case, if it has exactly this case's key."""
    values = _read(folder, f"{case.folder}/{file}")
    return values if values is not None and values.get("key") == case.key else None


def _read(folder: Storage, place: str) -> Values | None:
    values: Values | None = folder.find_json(place)
    return values
