"""Which cases run when, and together with what.

Searches start from a warm-up, and budgets that share a search start from its end, so cases run in
waves: warm-ups by all workers that the cluster holds, then all that waits for nothing else, then
what starts from a search of the wave before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cluster.storage import Storage
from orchestration.config.storage_layout import search_folder, warmup_folder
from orchestration.planning.cases import (
    KNOWN,
    ORDER,
    Case,
    WarmUpCase,
    training_of,
    warmup_case,
)
from orchestration.state.checkpoint_index import is_ended


@dataclass(frozen=True)
class Schedule:
    """What is to be run, one after the other."""

    warmups: tuple[WarmUpCase, ...]
    first: tuple[Case, ...]
    followers: tuple[Case, ...]
    """Cases whose search is run by one of `first`."""

    @property
    def cases(self) -> tuple[Case, ...]:
        """All that make a network."""
        return (*self.first, *self.followers)


def schedule(missing: Sequence[Case], root: Storage, folder: Storage) -> Schedule:
    """The waves of cases that are to be done.

    Args:
        missing: the cases.
        root: storage of all jobs, with the warm-ups.
        folder: storage of the job, with searches that cases share.
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
    """Those that are missing, each once."""
    found: dict[str, WarmUpCase] = {}
    for case in cases:
        key = case.warmup_key
        is_searched = case.search_key and is_ended(folder.sub(search_folder(case.search_key)))
        if key is not None and not is_searched and not is_ended(root.sub(warmup_folder(key))):
            found.setdefault(key, warmup_case(key, case.seed))
    return list(found.values())


Groups = list[tuple[Case, list[Case]]]
"""Cases, each with what is trained behind it."""


def co_scheduled_groups(
    missing: Sequence[Case], at_once: int
) -> list[tuple[Case, tuple[Case, ...]]]:
    """Cases to run, each with the networks that it trains behind its own in its worker group.

    A worker group takes some 15 s to start, so networks that need no search are trained in those of
    other cases of their target and seed, evenly over them: references always, baselines and given
    networks where the searches alone fill all places. A network that several targets ask for is
    trained once, so it is in one group for all of them.

    Args:
        missing: the cases.
        at_once: places, i.e. how many groups run beside each other.
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
    return [(host, tuple(behind)) for host, behind in groups]


def _join(case: Case, groups: Groups, like: Sequence[list[Case]]) -> None:
    """Behind the host with the least behind it; a group of its own where there is none."""
    if like:
        min(like, key=len).append(case)
    else:
        groups.append((case, []))


def _with_its_training(case: Case, groups: Groups) -> list[list[Case]]:
    training = training_of(case)
    return [behind for host, behind in groups if training in map(training_of, (host, *behind))]


def _of_its_target(case: Case, groups: Groups) -> list[list[Case]]:
    wanted = (case.target, case.seed)
    return [behind for host, behind in groups if (host.target, host.seed) == wanted]
