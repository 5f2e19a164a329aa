"""Results of a job in storage, identified by content keys, and the progress towards them."""

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
from orchestration.planning.case import Case, checkpoints_place
from orchestration.planning.content_keys import Parts
from orchestration.state.checkpoint_index import is_ended
from orchestration.state.snapshot import JobSnapshot, read_snapshot


def stored_key(folder: Storage, name: str) -> str | None:
    """Key of the result in the folder of a case."""
    return key_in(folder, result_file(name))


def key_in(folder: Storage, place: str) -> str | None:
    """Case key in a JSON file; None if the file does not exist."""
    return (folder.find_json(place) or {}).get("key")


def is_done(case: Case, folder: Storage) -> bool:
    """Whether storage has the result of exactly this case."""
    return stored_key(folder, case.name) == case.key


def is_found(case: Case, folder: Storage) -> bool:
    """Whether the network is derived and measured, so that only retraining is left."""
    return key_in(folder, f"{case.folder}/{DERIVED_FILE}") == case.key


def is_searched(case: Case, folder: Storage) -> bool:
    """Whether the search of a case, its own or a shared one, has finished."""
    shared = case.search_key
    return is_found(case, folder) or (
        shared is not None and is_ended(folder.sub(search_folder(shared)))
    )


def adopt(
    cases: Sequence[Case], folder: Storage, snapshot: JobSnapshot | None = None
) -> dict[str, str]:
    """Move the results of renamed cases to their current names.

    All results are copied aside before any is put in place, since cases may swap names. Names that
    the job no longer has are deleted. After an interruption the next call continues.

    Args:
        cases: of the job.
        folder: of the job.
        snapshot: state of the job, read after `finish_adopting`; None to read it here.

    Returns:
        The old name of each renamed case, by its current name.
    """
    if snapshot is None:
        finish_adopting(folder)
        snapshot = read_snapshot(folder)
    old_names = snapshot.renamed(cases)
    if not old_names:
        return {}
    for name, old in old_names.items():
        _copy(folder, case_folder(old), f"{RENAMED}/{name}", {"case": name})
    folder.write_json(RENAMED_FILE, sorted(old_names))
    finish_adopting(folder)
    current = {case.name for case in cases}
    for old in set(old_names.values()) - current:
        folder.delete(case_folder(old))
    return old_names


def finish_adopting(folder: Storage) -> None:
    """Complete an interrupted `adopt`.

    Results are moved to their names if all were copied aside; otherwise the originals still exist.
    """
    for name in folder.find_json(RENAMED_FILE) or ():
        folder.delete(case_folder(name))
        _copy(folder, f"{RENAMED}/{name}", case_folder(name), {})
    folder.delete(RENAMED_FILE)
    folder.delete(RENAMED)


def _copy(folder: Storage, old: str, new: str, changes: Mapping[str, str]) -> None:
    """Copy a finished case. Its result is written last, since it marks the case as finished."""
    for key in folder.list(old):
        if key != f"{old}/{RESULT_FILE}":
            folder.write_bytes(f"{new}{key.removeprefix(old)}", folder.read_bytes(key))
    folder.write_json(
        f"{new}/{RESULT_FILE}", {**folder.read_json(f"{old}/{RESULT_FILE}"), **changes}
    )


def why(case: Case, folder: Storage, snapshot: JobSnapshot) -> str:
    """State of a case as text, with the reason why it has to be run."""
    if snapshot.is_done(case):
        return "done"
    if is_found(case, folder):
        return "to do: derived and measured, not retrained"
    result = snapshot.results.get(case.name)
    if result is None:
        is_begun = bool(folder.list(checkpoints_place(case)))
        return "to do: resumes from its checkpoint" if is_begun else "to do"
    before: Parts = result.get("parts", {})
    changed = [name for name in case.parts if before.get(name) != case.parts[name]]
    return f"to do again: {' and '.join(changed)} changed" if before else "to do again"
