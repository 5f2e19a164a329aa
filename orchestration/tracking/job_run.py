"""The run of a job: costs, report, and the state of its cases."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.entities import Run

from cluster.storage import Storage
from nas_core.latency import LatencyTable
from orchestration.config.digest import digest
from orchestration.config.storage_layout import (
    COMPARISON,
    JOB_FILE,
    PICTURES_FILE,
    REPORT_FILE,
    comparison_file,
    table_name,
)
from orchestration.state.result import Result
from orchestration.tracking.artifacts import upload
from orchestration.tracking.dataset import Images
from orchestration.tracking.links import RecordLinks
from orchestration.tracking.metrics import (
    Value,
    case_params,
    finished_ms,
    moment_ms,
    run_values,
    settings_params,
    table_values,
)
from orchestration.tracking.note import NOTE, job_note
from orchestration.tracking.runs import FINISHED, JOB, KEY, KIND, PARENT, RECORDED, Runs

STATUS, DONE, FAILED, OUTDATED = "status", "done", "failed", "outdated"


@dataclass(frozen=True)
class JobRun:
    """The run of one job. Every method can be repeated after an interruption."""

    runs: Runs
    job: Storage
    tables: Storage
    facts: Mapping[str, Any]
    """Content of `job.json`."""
    run: Run

    @property
    def _failed(self) -> Mapping[str, str]:
        """Reasons of failed cases, by case name."""
        failed: Mapping[str, str] = self.facts.get("failed", {})
        return failed

    @property
    def _plan(self) -> Mapping[str, Any]:
        plan: Mapping[str, Any] = self.facts.get("plan", {})
        return plan

    def mark_outdated(self, run_ids: Collection[str]) -> None:
        """Mark runs of earlier settings as outdated and remove them from the job's lists.

        Args:
            run_ids: of the current cases of the job.
        """
        for run in self._children():
            is_old = run.info.run_id not in run_ids and run.data.tags.get(STATUS) == DONE
            if is_old:
                self.runs.client.set_tag(run.info.run_id, STATUS, OUTDATED)
                if JOB in run.data.tags:
                    self.runs.client.delete_tag(run.info.run_id, JOB)
            elif run.info.run_id in run_ids and run.data.tags.get(STATUS) == OUTDATED:
                self.runs.client.set_tag(run.info.run_id, STATUS, DONE)
                self.runs.client.set_tag(run.info.run_id, JOB, self.facts["key"])

    def write_failures(self) -> None:
        """Write a run for every failed case; delete those of cases that have succeeded since."""
        cases = {case["name"]: case for case in self._plan.get("cases", ())}
        failed = {name: reason for name, reason in self._failed.items() if name in cases}
        keys = {cases[name]["key"] for name in failed}
        for old in self._children():
            if old.data.tags.get(FINISHED) == FAILED and old.data.tags[KEY] not in keys:
                self.runs.client.delete_run(old.info.run_id)
        for name, reason in failed.items():
            self._write_failure(cases[name], reason)

    def _write_failure(self, case: Mapping[str, Any], reason: str) -> None:
        moment = moment_ms(self.facts["submitted"])
        tags = {KIND: "case", KEY: case["key"], FINISHED: FAILED, PARENT: self.run.info.run_id}
        status_tags = {"kind": case["kind"], STATUS: FAILED, JOB: self.facts["key"]}
        run = self.runs.run(case["name"], {**tags, **status_tags}, moment)
        self.runs.log(run, case_params(case))
        if run.data.tags.get(NOTE) != reason:
            self.runs.client.set_tag(run.info.run_id, NOTE, reason)
        self.runs.client.set_terminated(run.info.run_id, "FAILED", moment)

    def _children(self) -> list[Run]:
        """Runs of cases below this one that are known."""
        return [
            run
            for run in self.runs.known.values()
            if run.data.tags.get(PARENT) == self.run.info.run_id
            and run.data.tags.get(KIND) == "case"
        ]

    def write(self, results: Sequence[Result], links: RecordLinks) -> None:
        """Write everything about the job as a whole, unless it has been recorded already."""
        # A resumed job has more cases than when it was last recorded.
        state = digest(
            {
                "done": sorted(result["key"] for result in results),
                "facts": {name: self.facts.get(name) for name in ("failed", "runs", "settings")},
                "pictures": self.job.find_json(comparison_file(PICTURES_FILE)),
            }
        )
        if self.run.data.tags.get(RECORDED) == state:
            return
        self._write_values()
        self._write_files()
        self._write_tags(results)
        self._write_note(results, links)
        ends = map(finished_ms, results)
        self.runs.close(self.run, max([moment_ms(self.facts["submitted"]), *ends]), state)

    def _write_values(self) -> None:
        values = [*self._table_values(), *run_values(self.facts)]
        self.runs.log(self.run, settings_params(self.facts["settings"]), values)
        if (data := self._plan.get("data")) is not None:
            images = Images(self.facts["settings"]["data"], data)
            self.runs.client.log_inputs(self.run.info.run_id, [images.as_input()])

    def _table_values(self) -> Iterator[Value]:
        """Accuracy of the latency table of each target."""
        for target, key in self._plan.get("tables", {}).items():
            if (values := self.tables.find_json(table_name(key))) is not None:
                yield from table_values(LatencyTable.from_dict(values), target)

    def _write_files(self) -> None:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            (folder / f"{self.facts['name']}.yaml").write_text(self.facts["job_file"], "utf-8")
            index = comparison_file(PICTURES_FILE)
            pictures = [key for key in self.job.list(COMPARISON) if key != index]
            self.job.copy_to(folder, [JOB_FILE, *pictures])
            upload(self.runs.client, folder, self.run.info.artifact_uri)

    def _write_tags(self, results: Sequence[Result]) -> None:
        devices = ", ".join(dict.fromkeys(result["hardware"] for result in results))
        for name, value in ((STATUS, FAILED if self._failed else DONE), ("hardware", devices)):
            if self.run.data.tags.get(name) != value:
                self.runs.client.set_tag(self.run.info.run_id, name, value)

    def _write_note(self, results: Sequence[Result], links: RecordLinks) -> None:
        """Write the description of the run. Relative links work whatever the server's address."""
        compare, listed = (link[link.index("#") :] for link in (links.compare, links.runs))
        has_report = bool(results) and self.job.exists(comparison_file(REPORT_FILE))
        text = job_note(self.facts, results, compare, listed, has_report=has_report)
        self.runs.client.set_tag(self.run.info.run_id, NOTE, text)
