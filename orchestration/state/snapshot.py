"""State of the cases of a job, read from its storage in one pass.

A driver decides by one snapshot what is to be done in a round, and reads a new one after anything
was trained. Asking storage case by case instead costs a request each time, on S3 for every case of
a job. Workers keep asking storage: others write meanwhile.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from cluster.storage import Storage
from orchestration.config.early_stopping import AshaSettings
from orchestration.config.storage_layout import CASES, RUNGS_FILE, case_of_result, result_file
from orchestration.planning.cases import Case
from orchestration.state.result import Result


@dataclass(frozen=True)
class JobSnapshot:
    """Results and early stops of a job, as its storage held them at one moment."""

    results: Mapping[str, Result]
    """Content of every `result.json`, by the name of the folder of its case, sorted."""
    stopped: Mapping[str, str]
    """Reason why a search was told to end early, by key of its case."""

    def is_done(self, case: Case) -> bool:
        """Whether there is a result of exactly this case."""
        result = self.results.get(case.name)
        return result is not None and result.get("key") == case.key

    def finished(self, cases: Sequence[Case]) -> list[Result]:
        """Results of the cases that are done."""
        return [self.results[case.name] for case in cases if self.is_done(case)]

    def stopped_early(self, cases: Sequence[Case]) -> dict[str, str]:
        """Reason by name, for the cases whose search was ended early.

        A search may reach its end before it is told to stop: then it is done.
        """
        ended = [case for case in cases if case.key in self.stopped and not self.is_done(case)]
        return {case.name: self.stopped[case.key] for case in ended}

    def renamed(self, cases: Sequence[Case]) -> dict[str, str]:
        """Other name by name, for the cases that are finished under another one.

        A result is known by its content: a file of an architecture may be called otherwise by now.
        """
        known = {result.get("key"): name for name, result in self.results.items()}
        missing = [case for case in cases if not self.is_done(case)]
        return {case.name: known[case.key] for case in missing if case.key in known}

    def missing(self, cases: Sequence[Case]) -> list[Case]:
        """Cases that are to be done."""
        known = self.stopped_early(cases).keys() | self.renamed(cases).keys()
        return [case for case in cases if not self.is_done(case) and case.name not in known]


def read_snapshot(folder: Storage, asha: AshaSettings | None = None) -> JobSnapshot:
    """Read the state of a job: one listing, and each result once.

    Args:
        folder: the job's.
        asha: its settings of early stopping; what was stopped under other settings does not count.
            None: searches are not stopped early.
    """
    names = sorted(filter(None, map(case_of_result, folder.list(CASES))))
    found = {name: folder.find_json(result_file(name)) for name in names}
    results = {name: values for name, values in found.items() if values is not None}
    return JobSnapshot(results, {} if asha is None else _stopped(folder, asha))


def _stopped(folder: Storage, asha: AshaSettings) -> Mapping[str, str]:
    values = folder.find_json(RUNGS_FILE) or {}
    stopped: Mapping[str, str] = values["stopped"] if values.get("settings") == asdict(asha) else {}
    return stopped
