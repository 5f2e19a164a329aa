"""State of the cases of a job, read from its storage in one pass.

A driver plans a round from one snapshot, and reads a new one after anything was trained. Reading
storage case by case would cost several requests per case on S3. Workers read storage directly,
since others write concurrently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.storage import Storage
from orchestration.config.early_stopping import AshaSettings
from orchestration.config.storage_layout import CASES, RUNGS_FILE, case_of_result, result_file
from orchestration.planning.case import Case
from orchestration.state.result import Result


@dataclass(frozen=True)
class JobSnapshot:
    """Results and early stops of a job at one moment."""

    results: Mapping[str, Result]
    """Content of every `result.json`, sorted by the name of the case's folder."""
    stopped: Mapping[str, str]
    """Reasons of searches stopped early, by case key."""

    def is_done(self, case: Case) -> bool:
        """Whether storage has the result of exactly this case."""
        result = self.results.get(case.name)
        return result is not None and result.get("key") == case.key

    def finished(self, cases: Sequence[Case]) -> list[Result]:
        """Results of the cases that are done."""
        return [self.results[case.name] for case in cases if self.is_done(case)]

    def stopped_early(self, cases: Sequence[Case]) -> dict[str, str]:
        """Reasons of cases that were stopped early, by name.

        A search may finish before the decision to stop reaches it; such a case is done.
        """
        ended = [case for case in cases if case.key in self.stopped and not self.is_done(case)]
        return {case.name: self.stopped[case.key] for case in ended}

    def renamed(self, cases: Sequence[Case]) -> dict[str, str]:
        """Cases whose result is stored under another name: the old name by the case's name.

        Results are identified by content, so a renamed architecture file renames its case.
        """
        known = {result.get("key"): name for name, result in self.results.items()}
        missing = [case for case in cases if not self.is_done(case)]
        return {case.name: known[case.key] for case in missing if case.key in known}

    def missing(self, cases: Sequence[Case]) -> list[Case]:
        """Cases that have to be run."""
        known = self.stopped_early(cases).keys() | self.renamed(cases).keys()
        return [case for case in cases if not self.is_done(case) and case.name not in known]


def read_snapshot(folder: Storage, asha: AshaSettings | None = None) -> JobSnapshot:
    """Read the state of a job with one listing and one request per result.

    Args:
        folder: of the job.
        asha: settings of early stopping, None without it; decisions under other settings are
            ignored.
    """
    names = sorted(filter(None, map(case_of_result, folder.list(CASES))))
    stored = {name: folder.find_json(result_file(name)) for name in names}
    results = {name: values for name, values in stored.items() if values is not None}
    return JobSnapshot(results, {} if asha is None else _stopped(folder, asha))


def _stopped(folder: Storage, asha: AshaSettings) -> Mapping[str, str]:
    values = folder.find_json(RUNGS_FILE) or {}
    stopped: Mapping[str, str] = values["stopped"] if values.get("settings") == asdict(asha) else {}
    return stopped
