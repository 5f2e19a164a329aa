from __future__ import annotations

from orchestration.tracking.metrics import curves, moment_ms, settings_params, started_ms

EPOCH = {"loss": 1.0, "seconds": 2.0, "time": 1000.0}


def test_epochs_that_run_on_are_the_steps():
    history = [{"phase": "search", "epoch": epoch, **EPOCH} for epoch in (16, 17)]
    assert {value.step for value in curves("search", history)} == {16, 17}


def test_phases_that_count_anew_follow_one_another():
    history = [{"phase": phase, "epoch": 0, **EPOCH} for phase in ("warmup", "search")]
    losses = [value for value in curves("search", history) if value.name == "search/loss"]
    assert [value.step for value in losses] == [0, 1]


def test_a_run_starts_when_its_first_epoch_began():
    result = {
        "finished": "1970-01-01T02:00:00+00:00",
        "search_history": [],
        "retrain_history": [EPOCH],
    }
    assert started_ms(result) == 998_000


def test_a_warm_up_that_was_trained_for_others_before_is_no_part_of_a_run():
    result = {
        "finished": "1970-01-01T02:00:00+00:00",
        "search_history": [
            {"phase": "warmup", **EPOCH, "time": 10.0},
            {"phase": "search", **EPOCH},
        ],
        "retrain_history": [],
    }
    assert started_ms(result) == 998_000


def test_moments_are_read_with_their_zone():
    assert moment_ms("1970-01-01T01:00:01+01:00") == 1000


def test_nested_settings_become_dotted_params():
    settings = {"search": {"epochs": 6, "strategy": "two_path"}, "cases": [{"target": "mobile"}]}
    assert settings_params(settings) == {
        "search.epochs": "6",
        "search.strategy": "two_path",
        "cases": '[{"target": "mobile"}]',
    }
