"""Images that cannot be decoded: they are listed in `bad_samples.csv`; too many stop the job.

Workers that stream a set find them during training. All workers and all runs of a job add to one
file, and the limit applies to that file.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.storage import Storage
from orchestration.config.storage_layout import BAD_SAMPLES_FILE

MOST_BAD = 0.001
"""Largest fraction of a set that may be impossible to decode, or to read for a conversion."""


class BadSamplesError(Exception):
    """Too many images cannot be decoded. Another attempt would not help."""


@dataclass(frozen=True)
class BadSamples:
    """Bad samples of one set, as found by one job."""

    folder: Storage
    """Folder of the job."""
    fingerprint: str
    """Fingerprint of the set. Bad samples of other sets are ignored."""
    count: int
    """Number of images of the set."""

    def note(self, problems: Sequence[str]) -> None:
        """Add bad samples to the file: "key<TAB>reason" of each.

        Raises:
            BadSamplesError: the set has too many of them now.
        """
        new = dict(text.split("\t", 1) for text in problems)
        while True:
            before = self.folder.find_bytes(BAD_SAMPLES_FILE)
            known = self._parsed(before)
            if new.keys() <= known.keys():
                break
            if self.folder.swap(BAD_SAMPLES_FILE, before, self._table({**known, **new})):
                break
        self.check()

    def check(self) -> None:
        """Check the number of bad samples in the file.

        Raises:
            BadSamplesError: there are too many.
        """
        if problem := complaint(self.named(), self.count, self.folder.where(BAD_SAMPLES_FILE)):
            raise BadSamplesError(problem)

    def named(self) -> Mapping[str, str]:
        """Reasons why images cannot be decoded, by key."""
        return self._parsed(self.folder.find_bytes(BAD_SAMPLES_FILE))

    def _parsed(self, data: bytes | None) -> dict[str, str]:
        rows = csv.DictReader(io.StringIO((data or b"").decode()))
        return {row["key"]: row["reason"] for row in rows if row["set"] == self.fingerprint}

    def _table(self, known: Mapping[str, str]) -> bytes:
        return bad_table({"set": self.fingerprint, "key": k, "reason": known[k]} for k in known)


def complaint(bad: Mapping[str, str], count: int, path: str | None) -> str | None:
    """Error message if too many images of a set are bad; None if few enough are.

    Args:
        bad: reasons why images cannot be read, by key.
        count: number of images of the set.
        path: path of the list of bad samples, if there is one.
    """
    if len(bad) <= MOST_BAD * count:
        return None
    key, reason = next(iter(bad.items()))
    listed = f"those in {path}" if path else "them"
    return (
        f"{len(bad)} of {count:,} images cannot be decoded, e.g. {key}: {reason}; expected at most "
        f"{MOST_BAD:.1%}: mend or remove {listed}, and convert the set again"
    )


def bad_table(rows: Iterable[Mapping[str, str]]) -> bytes:
    """Content of `bad_samples.csv`, sorted by key."""
    ordered = sorted(rows, key=lambda row: row["key"])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ordered[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(ordered)
    return text.getvalue().encode()
