"""Images that cannot be decoded: named in `bad_samples.csv`, and too many of them refused.

Where a set is streamed, workers meet them while they train. Each adds what is not named yet; all
see the same file, so the job stops by the images of all workers and all its runs together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cluster.storage import Storage
from orchestration.config.storage_layout import BAD_SAMPLES_FILE

MOST_BAD = 0.001
"""Part of a set that may be undecodable, or unreadable when it is converted."""


class BadSamplesError(Exception):
    """Too many images cannot be decoded; another attempt would not mend that."""


@dataclass(frozen=True)
class BadSamples:
    """What is known of one set in one job."""

    folder: Storage
    """The job's."""
    fingerprint: str
    """Of the set: images of an earlier one are forgotten."""
    count: int
    """Images of the set."""

    def note(self, problems: Sequence[str]) -> None:
        """Name images: key and reason of each, with a tabulator between them.

        Raises:
            DamageError: they are too many by now.
        """
        told = dict(text.split("\t", 1) for text in problems)
        while True:
            before = self.folder.find_bytes(BAD_SAMPLES_FILE)
            known = self._parsed(before)
            if told.keys() <= known.keys():
                break
            if self.folder.swap(BAD_SAMPLES_FILE, before, self._table({**known, **told})):
                break
        self.check()

    def check(self) -> None:
        """Refuse a set of which too many are named.

        Raises:
            DamageError: it is one.
        """
        if problem := complaint(self.named(), self.count, self.folder.where(BAD_SAMPLES_FILE)):
            raise BadSamplesError(problem)

    def named(self) -> Mapping[str, str]:
        """By key, why an image cannot be decoded."""
        return self._parsed(self.folder.find_bytes(BAD_SAMPLES_FILE))

    def _parsed(self, data: bytes | None) -> dict[str, str]:
        rows = csv.DictReader(io.StringIO((data or b"").decode()))
        return {row["key"]: row["reason"] for row in rows if row["set"] == self.fingerprint}

    def _table(self, known: Mapping[str, str]) -> bytes:
        return bad_table({"set": self.fingerprint, "key": k, "reason": known[k]} for k in known)


def complaint(bad: Mapping[str, str], count: int, place: str | None) -> str | None:
    """What is wrong if too many images of a set are bad; None if they are few enough.

    Args:
        bad: by key, why an image cannot be read.
        count: images of the set.
        place: where all are named, if anywhere.
    """
    if len(bad) <= MOST_BAD * count:
        return None
    key, reason = next(iter(bad.items()))
    named = f"those in {place}" if place else "them"
    return (
        f"{len(bad)} of {count:,} images cannot be decoded, e.g. {key}: {reason}; expected at most "
        f"{MOST_BAD:.1%}: mend or remove {named}, and convert the set again"
    )


def bad_table(rows: Iterable[Mapping[str, str]]) -> bytes:
    """Content of `bad_samples.csv`, sorted by key."""
    ordered = sorted(rows, key=lambda row: row["key"])
    text = io.StringIO()
    writer = csv.DictWriter(text, list(ordered[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(ordered)
    return text.getvalue().encode()
