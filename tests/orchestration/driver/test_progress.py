"""Progress lines of a job, and the worker group that trains the reference network."""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import pytest
from rich.progress import Progress

from orchestration.driver.progress import ProgressLines, case_bars
from orchestration.reports.text import duration

EPOCH = {"phase": "search", "epoch": 3, "epochs": 12, "loss": 1.25, "top1": 0.5, "seconds": 2.0}


def said(record: dict[str, Any], named: bool = False) -> str:
    lines: list[str] = []
    ProgressLines(lines.append, named)("mobile-0.3ms", record)
    assert len(lines) == 1
    return lines[0]


def test_an_epoch_is_an_aligned_line() -> None:
    latency = {"latency_ms": 0.4, "budget_ms": 0.3, "entropy": 1.5}
    assert said(EPOCH | latency) == (
        "search  004/012  loss 1.250  top-1  50.0 %  latency 0.4000 ms (budget 0.3000)  "
        "entropy 1.50    2.0 s"
    )


def test_an_epoch_tells_its_speed_and_where_the_time_goes() -> None:
    speed = {"images_per_s": 1234.5, "share_data": 0.1, "share_communication": 0.25, "eta_s": 700.0}
    assert said(EPOCH | speed).endswith(
        "2.0 s  1,234 images/s  data 10 % compute 65 % communication 25 %  12 min left"
    )


@pytest.mark.parametrize(("seconds", "words"), [(4.4, "4 s"), (600, "10 min"), (9000, "2.5 h")])
def test_durations_are_for_people(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_beside_other_cases_a_line_names_its_own() -> None:
    assert said(EPOCH, named=True).startswith("mobile-0.3ms  search  004/012")


def test_a_ranked_network_shows_both_of_its_scores() -> None:
    record = EPOCH | {"phase": "ranking", "supernet_loss": 1.9, "supernet_top1": 0.25}
    assert said(record) == (
        "ranking 004/012  supernet loss 1.900 top-1  25.0 %  "
        "alone loss 1.250 top-1  50.0 %    2.0 s"
    )


def test_a_random_network_shows_what_it_reaches_and_what_it_takes() -> None:
    record = EPOCH | {"phase": "random", "latency_ms": 0.29, "budget_ms": 0.3}
    assert said(record) == (
        "random  004/012  loss 1.250  top-1  50.0 %  latency 0.2900 ms (budget 0.3000)    2.0 s"
    )


def test_a_note_is_a_line_of_its_own() -> None:
    assert said({"note": "too weak"}) == "NOTE mobile-0.3ms: too weak"


def test_in_a_terminal_warm_up_and_search_are_one_bar_and_retraining_another(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("rich.progress.Progress", partial(Progress, auto_refresh=False))
    with case_bars() as bars:
        for epoch, phase in enumerate(["warmup", "search", "retrain"]):
            bars("a", {"phase": phase, "epoch": epoch, "epochs": 4, "eta_s": 1.0})
    said = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().out)
    shown = [(line.split()[:2], "2/4" in line) for line in said.splitlines() if line.strip()]
    assert shown[-3][0] != ["a", "warmup"]
    assert shown[-2:] == [(["a", "search"], True), (["a", "retrain"], False)]
