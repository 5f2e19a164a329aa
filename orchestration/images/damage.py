"""Images that cannot be decoded: named in `bad_samples.csv` of a job, and too many of them refused.

Workers meet them while they train. Each adds what is not named yet; all see the same file, so the
job stops by the images of all workers and all its runs together.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cluster.storage import Storage

MOST_BAD = 0.001
"""Part of a set that may be undecodable."""
BAD = "bad_samples.csv"
HEAD = ("set", "key", "reason")


class DamageError(Exception):
    """Too many images cannot be decoded; another attempt would not mend that."""


@dataclass(frozen=True)
class Damage:
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
            before = self.folder.find_bytes(BAD)
            known = self._parsed(before)
            if told.keys() <= known.keys():
                break
            if self.folder.swap(BAD, before, self._table({**known, **told})):
                break
        self.check()

    def check(self) -> None:
        """Refuse a set of which too many are named.

        Raises:
            DamageError: it is one.
        """
        known = self._parsed(self.folder.find_bytes(BAD))
        if len(known) > MOST_BAD * self.count:
            key, reason = next(iter(known.items()))
            raise DamageError(
                f"{len(known)} of {self.count:,} images cannot be decoded, e.g. {key}: {reason}; "
                f"expected at most {MOST_BAD:.1%}: mend or remove those in "
                f"{self.folder.where(BAD)}, and convert the set again"
            )

    def named(self) -> Mapping[str, str]:
        """By key, why an image cannot be decoded."""
        return self._parsed(self.folder.find_bytes(BAD))

    def _parsed(self, data: bytes | None) -> dict[str, str]:
        rows = csv.DictReader(io.StringIO((data or b"").decode()))
        return {row["key"]: row["reason"] for row in rows if row["set"] == self.fingerprint}

    def _table(self, known: Mapping[str, str]) -> bytes:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(HEAD)
        writer.writerows((self.fingerprint, *pair) for pair in sorted(known.items()))
        return text.getvalue().encode()
