"""Order of the cases of a job, and groups of cases that share a worker group.

Searches start from a warm-up, and budgets that share a search start from its end. So cases run in
phases: warm-ups on all workers of the cluster, then cases without further dependencies, then cases
that start from a search of the previous phase.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.storage import Storage
from orchestration.config.storage_layout import search_folder, warmup_folder
from orchestration.planning.case import KNOWN, ORDER, Case, WarmUpCase, training_of
from orchestration.planning.cases import warmup_case
from orchestration.state.checkpoint_index import is_ended


@dataclass(frozen=True)
class Schedule:
    """Phases of the cases that are left to run."""

    warmups: tuple[WarmUpCase, ...]
    first: tuple[Case, ...]
    followers: tuple[Case, ...]
    """Cases whose search is run by one of `first`."""

    @property
    def cases(self) -> tuple[Case, ...]:
        """Cases that yield a network, i.e. all but warm-ups."""
        return (*self.first, *self.followers)


def schedule(missing: Sequence[Case], root: Storage, folder: Storage) -> Schedule:
    """Divide cases into phases.

    Args:
        missing: cases that are not done.
        root: storage of all jobs, with the warm-ups.
        folder: of the job, with searches that cases share.
    """
    first, followers, searching = list[Case](), list[Case](), set[str]()
    for case in sorted(missing, key=lambda case: not case.hosts_search):
        key = case.search_key
        is_follower = key is not None and key in searching
        (followers if is_follower else first).append(case)
        if key is not None and not is_ended(folder.sub(search_folder(key))):
            searching.add(key)
    order = {case.name: number for number, case in enumerate(missing)}
    first.sort(key=lambda case: order[case.name])
    return Schedule(tuple(_warmups(first, root, folder)), tuple(first), tuple(followers))


def _warmups(cases: Sequence[Case], root: Storage, folder: Storage) -> list[WarmUpCase]:
    """Warm-ups that are missing, without duplicates."""
    warmups: dict[str, WarmUpCase] = {}
    for case in cases:
        key = case.warmup_key
        is_searched = case.search_key and is_ended(folder.sub(search_folder(case.search_key)))
        if key is not None and not is_searched and not is_ended(root.sub(warmup_folder(key))):
            warmups.setdefault(key, warmup_case(key, case.seed))
    return list(warmups.values())


Groups = list[tuple[Case, list[Case]]]
"""Cases, each with the cases co-scheduled in its worker group."""


def co_scheduled_groups(
    missing: Sequence[Case], at_once: int
) -> list[tuple[Case, tuple[Case, ...]]]:
    """Cases to run, each with the cases co-scheduled in its worker group.

    A worker group takes some 15 s to start, so networks without a search are trained in groups of
    other cases of their target and seed, spread evenly: references always, baselines and given
    networks only if the searches alone occupy all slots. A network that several targets share is
    trained once, so all of its cases are in one group.

    Args:
        missing: cases that are not done.
        at_once: number of worker groups that run concurrently.
    """
    ordered = sorted(missing, key=lambda case: ORDER.index(case.kind))
    searches = [case for case in ordered if case.kind not in KNOWN]
    others = [case for case in ordered if case.kind in KNOWN - {"reference"}]
    references = [case for case in ordered if case.kind == "reference"]
    if len(searches) < at_once:
        hosts, guests = [*searches, *others], references
    else:
        hosts, guests = searches, [*others, *references]
    groups: Groups = []
    for case in hosts:
        _join(case, groups, _with_its_training(case, groups))
    for case in guests:
        _join(case, groups, _with_its_training(case, groups) or _of_its_target(case, groups))
    return [(host, tuple(co_scheduled)) for host, co_scheduled in groups]


def _join(case: Case, groups: Groups, like: Sequence[list[Case]]) -> None:
    """Add a case to the smallest of the groups `like`, or to a new group if there is none."""
    if like:
        min(like, key=len).append(case)
    else:
        groups.append((case, []))


def _with_its_training(case: Case, groups: Groups) -> list[list[Case]]:
    training = training_of(case)
    return [
        co_scheduled
        for host, co_scheduled in groups
        if training in map(training_of, (host, *co_scheduled))
    ]


def _of_its_target(case: Case, groups: Groups) -> list[list[Case]]:
    wanted = (case.target, case.seed)
    return [co_scheduled for host, co_scheduled in groups if (host.target, host.seed) == wanted]
