"""Runs of an experiment: looked up by their tags, filled, closed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from mlflow.entities import Metric, Param, Run

from orchestration.tracking.metrics import Value
from orchestration.tracking.retries import PatientClient

KIND, KEY, FINISHED = "proxyless.kind", "proxyless.key", "proxyless.finished"
RECORDED = "proxyless.recorded"
JOB = "proxyless.job"
"""Tag with the key of the job, on its run and on the runs of its cases."""
PARENT = "mlflow.parentRunId"
IDENTITY = (KIND, KEY, FINISHED, PARENT)
BATCH, PARAMS = 1000, 100
"""Number of metric values and of params that MLflow accepts in one request."""

T = TypeVar("T")


@dataclass(frozen=True)
class Runs:
    """The runs of one experiment. Every method can be repeated after an interruption."""

    client: PatientClient
    experiment_id: str
    known: dict[tuple[str | None, ...], Run] = field(default_factory=dict)
    """Runs read so far by their identity; they are not looked up again."""
    parents: set[str] = field(default_factory=set)
    """Ids of runs whose children are all known."""
    new: set[str] = field(default_factory=set)
    """Ids of runs created by this object: they have only their tags."""

    def run(self, name: str, tags: dict[str, str], started: int) -> Run:
        """The run with these tags, created if missing; renamed if its name has changed."""
        identity = {tag: tags[tag] for tag in IDENTITY if tag in tags}
        run = self.known.get(_identity(tags))
        if run is None:
            run = self._found_or_new(name, tags, started, identity)
        if run.info.run_name != name:
            self.client.update_run(run.info.run_id, name=name)
        self.known[_identity(tags)] = run
        return run

    def read_children(self, parent: Run, *kinds: str) -> None:
        """Read all runs below a run at once, to save a request for each.

        Args:
            parent: of the runs of the first kind.
            kinds: kind of its children, of their children and so on. MLflow can search for the
                children of one run only, so deeper levels are read for the whole experiment.
        """
        parents = {parent.info.run_id}
        for depth, kind in enumerate(kinds):
            below = {PARENT: parent.info.run_id} if depth == 0 else {}
            runs = self._search({KIND: kind} | below) if parents - self.new else []
            runs = [run for run in runs if run.data.tags.get(PARENT) in parents]
            self.known.update({_identity(run.data.tags): run for run in self._once(runs)})
            self.parents.update(parents)
            parents = {run.info.run_id for run in runs}

    def read_again(self, parent: Run, *kinds: str) -> None:
        """Read them again after failures, each of which may have left a duplicate run."""
        self.new.clear()
        self.read_children(parent, *kinds)

    def close(self, run: Run, finished: int, state: str) -> None:
        """Mark a run as finished and completely recorded."""
        self.client.set_terminated(run.info.run_id, "FINISHED", finished)
        self.client.set_tag(run.info.run_id, RECORDED, state)
        run.data.tags[RECORDED] = state

    def log(
        self,
        run: Run,
        params: Mapping[str, str],
        values: Sequence[Value | tuple[Value, str | None]] = (),
        model_id: str | None = None,
    ) -> None:
        """Write params and metric values in as few requests as possible.

        Args:
            run: to write to.
            params: params that the run has already are skipped, since MLflow refuses changes.
            values: each may name a model that gets it as well; the default is `model_id`.
            model_id: of a model, if there is one.
        """
        new = [Param(key, value) for key, value in params.items() if key not in run.data.params]
        rest = [_metric(value, model_id) for value in values]
        while new or rest:
            now, new = new[:PARAMS], new[PARAMS:]
            room = BATCH - len(now)
            self.client.log_batch(run.info.run_id, metrics=rest[:room], params=now)
            rest = rest[room:]

    def _found_or_new(
        self, name: str, tags: dict[str, str], started: int, identity: Mapping[str, str]
    ) -> Run:
        # All children of these parents are known, unless a request that failed has created one.
        pending = [] if identity.get(PARENT) in self.parents | self.new else [identity]

        def make() -> Run:
            runs = self._once(self._search(pending.pop())) if pending else []
            pending.append(identity)
            return runs[0] if runs else self._new(name, tags, started)

        return self.client.patience.until_done(make)

    def _new(self, name: str, tags: dict[str, str], started: int) -> Run:
        run = self.client.create_run(self.experiment_id, started, tags, name)
        self.new.add(run.info.run_id)
        return run

    def _search(self, tags: Mapping[str, str]) -> list[Run]:
        return pages(
            lambda token: self.client.search_runs(
                [self.experiment_id], tagged(tags), page_token=token
            )
        )

    def _once(self, runs: Sequence[Run]) -> list[Run]:
        """The most complete of the runs of equal identity; deletes the others.

        If a server responds after the timeout, the retried request creates the run twice.
        """
        best: dict[tuple[str | None, ...], Run] = {}
        for run in sorted(runs, key=_fullness, reverse=True):
            if best.setdefault(_identity(run.data.tags), run) is not run:
                self.client.delete_run(run.info.run_id)
        return list(best.values())


def _metric(value: Value | tuple[Value, str | None], model_id: str | None) -> Metric:
    plain, named = (value, model_id) if isinstance(value, Value) else value
    return Metric(*plain, named)


def _identity(tags: Mapping[str, str]) -> tuple[str | None, ...]:
    return tuple(tags.get(tag) for tag in IDENTITY)


def _fullness(run: Run) -> tuple[bool, int, str]:
    data = run.data
    return RECORDED in data.tags, len(data.params) + len(data.metrics), run.info.run_id


def pages(search: Callable[[str | None], Any]) -> list[Any]:
    """All results of a paginated search."""
    items: list[Any] = []
    token: str | None = None
    while True:
        page = search(token)
        items += page
        token = page.token
        if not token:
            return items


def tagged(tags: Mapping[str, str]) -> str:
    """Filter string for objects with these tags."""
    return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
