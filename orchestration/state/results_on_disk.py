"""What the storage of a job holds of its cases: results, found by content, and what led to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cluster.storage import Storage
from orchestration.config.storage_layout import (
    DERIVED_FILE,
    RENAMED,
    RENAMED_FILE,
    RESULT_FILE,
    case_folder,
    result_file,
    search_folder,
)
from orchestration.planning.cases import Case, checkpoints_place
from orchestration.planning.content_keys import Parts
from orchestration.state.checkpoint_index import is_ended
from orchestration.state.snapshot import JobSnapshot, read_snapshot


def stored_key(folder: Storage, name: str) -> str | None:
    """Key of the result that the folder of a case holds."""
    return key_in(folder, result_file(name))


def key_in(folder: Storage, place: str) -> str | None:
    """Key of the case that a file tells of, None where there is no such file."""
    return (folder.find_json(place) or {}).get("key")


def is_done(case: Case, folder: Storage) -> bool:
    """Whether the job's storage holds the result of exactly this case."""
    return stored_key(folder, case.name) == case.key


def is_found(case: Case, folder: Storage) -> bool:
    """Whether its network is known and measured, and only to be retrained."""
    return key_in(folder, f"{case.folder}/{DERIVED_FILE}") == case.key


def is_searched(case: Case, folder: Storage) -> bool:
    """Whether nothing of its search is left to do, its own or one that it shares."""
    shared = case.search_key
    return is_found(case, folder) or (
        shared is not None and is_ended(folder.sub(search_folder(shared)))
    )


def adopt(
    cases: Sequence[Case], folder: Storage, seen: JobSnapshot | None = None
) -> dict[str, str]:
    """Let finished cases have the names that they have by now.

    All are laid aside before any takes its place, since one may want the name of another. What is
    no name of the job any more is gone behind it; killed meanwhile, the next call goes on.

    Args:
        cases: of the job.
        folder: the job's.
        seen: its state, read after `finish_adopting`; None: it is read here.

    Returns:
        By name of a case that was taken over, where its result was.
    """
    if seen is None:
        finish_adopting(folder)
        seen = read_snapshot(folder)
    found = seen.renamed(cases)
    if not found:
        return {}
    for name, old in found.items():
        _copy(folder, case_folder(old), f"{RENAMED}/{name}", {"case": name})
    folder.write_json(RENAMED_FILE, sorted(found))
    finish_adopting(folder)
    kept = {case.name for case in cases}
    for old in set(found.values()) - kept:
        folder.delete(case_folder(old))
    return found


def finish_adopting(folder: Storage) -> None:
    """Finish what an `adopt` that was killed has begun.

    Results are put in place if all are laid aside; otherwise they are still where they were.
    """
    for name in folder.find_json(RENAMED_FILE) or ():
        folder.delete(case_folder(name))
        _copy(folder, f"{RENAMED}/{name}", case_folder(name), {})
    folder.delete(RENAMED_FILE)
    folder.delete(RENAMED)


def _copy(folder: Storage, old: str, new: str, changes: Mapping[str, str]) -> None:
    """A finished case at another place; its result last, since that says that it is finished."""
    for key in folder.list(old):
        if key != f"{old}/{RESULT_FILE}":
            folder.write_bytes(f"{new}{key.removeprefix(old)}", folder.read_bytes(key))
    folder.write_json(
        f"{new}/{RESULT_FILE}", {**folder.read_json(f"{old}/{RESULT_FILE}"), **changes}
    )


def why(case: Case, folder: Storage, seen: JobSnapshot) -> str:
    """What there is of a case, and why something is to be done."""
    if seen.is_done(case):
        return "done"
    if is_found(case, folder):
        return "to do: found and measured, not retrained"
    found = seen.results.get(case.name)
    if found is None:
        is_begun = bool(folder.list(checkpoints_place(case)))
        return "to do: goes on from its checkpoint" if is_begun else "to do"
    before: Parts = found.get("parts", {})
    changed = [name for name in case.parts if before.get(name) != case.parts[name]]
    return f"to do again: {' and '.join(changed)} changed" if before else "to do again"
