"""Runs of an experiment: found again by their tags, filled, closed."""

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
"""Key of the job, on its run and on those of its cases."""
PARENT = "mlflow.parentRunId"
IDENTITY = (KIND, KEY, FINISHED, PARENT)
BATCH, PARAMS = 1000, 100
"""Values and params that MLflow takes at once."""

T = TypeVar("T")


@dataclass(frozen=True)
class Runs:
    """The runs of one experiment. Every method may be called again after it was interrupted."""

    client: PatientClient
    experiment_id: str
    known: dict[tuple[str | None, ...], Run] = field(default_factory=dict)
    """Runs by their identity, as far as they were read: they are not looked for again."""
    parents: set[str] = field(default_factory=set)
    """Runs of which all children are known."""
    new: set[str] = field(default_factory=set)
    """Runs that were made here: they have nothing but their tags."""

    def run(self, name: str, tags: dict[str, str], started: int) -> Run:
        """The run with these tags, made if missing; it takes the name that it has by now."""
        identity = {tag: tags[tag] for tag in IDENTITY if tag in tags}
        found = self.known.get(_identity(tags))
        if found is None:
            found = self._found_or_new(name, tags, started, identity)
        if found.info.run_name != name:
            self.client.update_run(found.info.run_id, name=name)
        self.known[_identity(tags)] = found
        return found

    def read_children(self, parent: Run, *kinds: str) -> None:
        """Read all runs below a run, so that none is looked for by itself.

        Args:
            parent: of the first kind.
            kinds: of its children, of their children and so on. MLflow finds children of one run
                alone: those below are read with the whole experiment.
        """
        parents = {parent.info.run_id}
        for depth, kind in enumerate(kinds):
            below = {PARENT: parent.info.run_id} if depth == 0 else {}
            found = self._search({KIND: kind} | below) if parents - self.new else []
            found = [run for run in found if run.data.tags.get(PARENT) in parents]
            self.known.update({_identity(run.data.tags): run for run in self._once(found)})
            self.parents.update(parents)
            parents = {run.info.run_id for run in found}

    def read_again(self, parent: Run, *kinds: str) -> None:
        """The same after failures, of which each may have left a run that was made twice."""
        self.new.clear()
        self.read_children(parent, *kinds)

    def close(self, run: Run, finished: int, state: str) -> None:
        """Say that all of it is written."""
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
        """Write params and values in as few requests as possible.

        Args:
            run: that gets them.
            params: those that it has stay as they are: MLflow refuses to change them.
            values: each may name the model that gets it too, else that is `model_id`.
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
        # Below these parents there is none; but then a request that failed may have made it.
        looks = [] if identity.get(PARENT) in self.parents | self.new else [identity]

        def make() -> Run:
            found = self._once(self._search(looks.pop())) if looks else []
            looks.append(identity)
            return found[0] if found else self._new(name, tags, started)

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
        """Of runs with the same identity the one that has most in it; the others are deleted.

        A server that answers too late has made a run that was then made again.
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
    """All that a search finds, page by page."""
    found: list[Any] = []
    token: str | None = None
    while True:
        page = search(token)
        found += page
        token = page.token
        if not token:
            return found


def tagged(tags: Mapping[str, str]) -> str:
    """The filter that finds what has these tags."""
    return " and ".join(f"tags.`{tag}` = '{value}'" for tag, value in tags.items())
