"""Checks of a set of Parquet files for a job, from its row index, while planning.

Shapes: N rows, K classes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from cluster.storage import Storage
from orchestration.config.job import Job
from orchestration.config.loading import SpecError
from orchestration.data.info import DataFacts, is_streamed
from orchestration.data.parquet.row_index import RowIndex, row_index
from orchestration.data.split import Numbers, check_classes, is_architecture, is_test

LOOKED_AT = 64
"""Number of row groups whose mix of classes is checked."""
ALIKE = 2.0
"""Limit of how much more often than in the whole set two images of a row group share a class."""


def check_set(job: Job, facts: DataFacts) -> list[str]:
    """Check a set, and return notes for the plan if the set is streamed.

    Raises:
        SpecError: a part has no image of some class, or there are too many lanes for the batches or
            too few for the workers.
    """
    index = row_index(job.data, facts, Storage(job.storage))
    _check_parts(job, facts, index)
    if not is_streamed(job.data, facts):
        return []
    _check_lanes(job)
    return list(_notes(index, len(facts.classes)))


def _check_parts(job: Job, facts: DataFacts, index: RowIndex) -> None:
    share, test_share = job.search.architecture_share, job.data.test_share
    test = is_test(index.hashes, test_share)
    held = is_architecture(index.hashes, share, test_share)
    for part, rows in (("test", test), ("architecture", held), ("weight", ~test & ~held)):
        check_classes(index.labels[rows], facts.classes, part)


def _check_lanes(job: Job) -> None:
    lanes, workers = job.data.stream.lanes, job.cluster.workers
    most = workers[1] if isinstance(workers, tuple) else workers
    if most != "auto" and most > lanes:
        raise SpecError(
            f"data.stream.lanes is {lanes}, and cluster.workers asks for {most}; expected a lane "
            "for each at least: raise it"
        )
    sizes = {"search.batch_size": job.search.batch_size}
    if job.retrain is not None:
        sizes["retrain.batch_size"] = job.retrain.batch_size
    for name, size in sizes.items():
        if size < 2 * lanes:
            raise SpecError(
                f"{name} is {size}, and every batch takes a share of {lanes} lanes; expected "
                f"{2 * lanes} or more, or lower data.stream.lanes"
            )


def _notes(index: RowIndex, classes: int) -> Iterator[str]:
    if not index.is_ordered:
        yield (
            "rows do not stand in the order of their keys' hashes, so the small parts are read "
            "with all others around them; `proxyless data convert` writes a set that is"
        )
    whole = _alike(index.labels, classes)
    groups = np.linspace(0, len(index.files) - 1, min(LOOKED_AT, len(index.files))).astype(int)
    within = [_alike(index.labels[index.starts[g] : index.starts[g + 1]], classes) for g in groups]
    if np.mean(within) > ALIKE * whole:
        yield (
            f"two images of a row group are of one class in {np.mean(within):.0%} of cases, in the "
            f"whole set in {whole:.1%}: batches will be badly mixed; `proxyless data convert` "
            "writes a set that is mixed"
        )


def _alike(labels: Numbers, classes: int) -> float:
    """Probability that two rows, drawn at random, have the same label."""
    shares = np.bincount(labels, minlength=classes) / len(labels)
    return float((shares**2).sum())
