"""What a case has left in storage: its result, the network that it found, its checkpoints.

Only read, and workers may be writing meanwhile. No torch in here.
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
from orchestration.planning.cases import Case, checkpoints_place
from orchestration.state.checkpoint_index import StageProgress, stage_progress
from orchestration.state.result import Latencies, Result
from orchestration.state.run_file import JobPlan

Values = Mapping[str, Any]


@dataclass(frozen=True)
class CaseFiles:
    """What there is of a case."""

    result: Result | None
    """Of exactly this case."""
    is_outdated: bool
    """Whether there is a result of other settings in its place."""
    found: Latencies | None
    """The network that its search ended with, measured, not retrained."""
    search: StageProgress | None
    """Its own or one that it shares."""
    retraining: StageProgress | None
    networks: int
    """Trained alone: random ones, or those of a ranking."""

    @property
    def is_found(self) -> bool:
        """Whether its network is known, so that it has only to be retrained."""
        return self.found is not None or self.retraining is not None

    @property
    def stage(self) -> StageProgress | None:
        """The one in progress."""
        return self.retraining or (None if self.is_found else self.search)

    def epochs(self) -> Iterator[Values]:
        """What happened in every epoch that is known of."""
        if self.result is not None:
            yield from self.result.get("search_history", ())
            yield from self.result.get("retrain_history", ())
            return
        for stage in (self.search, self.retraining):
            yield from () if stage is None else stage.history


def case_files(case: Case, folder: Storage) -> CaseFiles:
    """What there is of a case in the folder of its job."""
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
    """By key of a case whose search was ended early, why; what other settings decided does not
    hold."""
    values = _read(folder, RUNGS_FILE) or {}
    is_asked = plan.asha is not None and values.get("settings") == plan.asha
    stopped: Mapping[str, str] = values["stopped"] if is_asked else {}
    return stopped


def _own(case: Case, folder: Storage, file: str) -> Any:
    """A file of the case, if it is of exactly this one."""
    values = _read(folder, f"{case.folder}/{file}")
    return values if values is not None and values.get("key") == case.key else None


def _read(folder: Storage, place: str) -> Values | None:
    values: Values | None = folder.find_json(place)
    return values
