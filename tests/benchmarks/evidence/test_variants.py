"""Variants of the evidence's job against the job as it is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from orchestration import load_job
from tests.benchmarks.evidence.test_rows import network
from tests.benchmarks.evidence.variants import TARGETS, VARIANTS, settings, variant_row


@pytest.mark.parametrize("what", list(VARIANTS))
def test_a_variant_shares_the_warm_up_and_nothing_else_is_changed(what: str) -> None:
    job, varied = (load_job("jobs/compare_mobilenet.yaml", words) for words in ([], settings(what)))
    assert varied.search != job.search
    assert varied.search.warmup_facts() == job.search.warmup_facts()
    assert (varied.seeds, varied.retrain, varied.data) == (job.seeds, job.retrain, job.data)
    assert [case.target for case in varied.cases] == list(TARGETS)


def test_what_a_variant_finds_is_held_against_the_same_seeds_and_budgets() -> None:
    found = [network("search", "cpu", 90.0 + seed, 1.0, seed, budget="50%") for seed in (0, 1)]
    elsewhere = network("search", "cpu", 10.0, 1.0, 0, budget="75%")
    changed = [replace(one, top1=one.top1 + 1 + one.seed) for one in found]
    row = variant_row("a change", [*found, elsewhere], changed)
    assert (row["top1"], row["n"], row["points"][0]) == (92.0, 2, 1.5)
