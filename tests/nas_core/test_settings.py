"""Settings: the published recipe is the default; wrong values are rejected."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from nas_core.search_settings import SearchSettings
from nas_core.settings import MeasureSettings, RetrainSettings

RULES: list[tuple[type[Any], str, Any, str]] = [
    (MeasureSettings, "rounds", 1, "2 or more"),
    (MeasureSettings, "samples_per_round", 0, "1 or more"),
    (MeasureSettings, "sample_ms", 0.0, "milliseconds greater than 0"),
    (SearchSettings, "epochs", 0, "a whole number of 1 or more"),
    (SearchSettings, "batch_size", 0, "a whole number of 1 or more"),
    (SearchSettings, "alpha_every", 0, "a whole number of 1 or more"),
    (SearchSettings, "warmup_epochs", -1, "a whole number of 0 or more"),
    (SearchSettings, "hold_epochs", -1, "a whole number of 0 or more"),
    (SearchSettings, "warmup_lr", 0.0, "a number greater than 0"),
    (SearchSettings, "micro_batch_size", 0, "a whole number of 1 or more"),
    (RetrainSettings, "micro_batch_size", 0, "a whole number of 1 or more"),
    (SearchSettings, "max_bad_steps", -1, "a whole number of 0 or more"),
    (SearchSettings, "max_hours", 0.0, "hours greater than 0"),
    (SearchSettings, "lr", -0.1, "a number greater than 0"),
    (SearchSettings, "alpha_lr", 0.0, "a number greater than 0"),
    (SearchSettings, "alpha_lr", float("nan"), "a number greater than 0"),
    (SearchSettings, "beta", -0.1, "0 or more"),
    (SearchSettings, "weight_decay", -1e-5, "0 or more"),
    (SearchSettings, "momentum", 1.0, "0 to below 1"),
    (SearchSettings, "label_smoothing", 1.0, "0 to below 1"),
    (SearchSettings, "architecture_share", 0.0, "a part between 0 and 1"),
    (SearchSettings, "architecture_share", 1.0, "a part between 0 and 1"),
    (SearchSettings, "eta", 0.0, "a number greater than 0"),
    (SearchSettings, "rho", -1.0, "a number greater than 0"),
    (SearchSettings, "op_warmup", 1.5, "a part from 0 to 1"),
    (SearchSettings, "alpha_ramp", -0.1, "a part from 0 to 1"),
    (SearchSettings, "samples", 0, "a whole number of 1 or more"),
    (SearchSettings, "baseline_momentum", 1.0, "0 to below 1"),
    (SearchSettings, "population", 0, "a whole number of 1 or more"),
    (SearchSettings, "tournament", 101, r"population \(100\) or fewer"),
    (SearchSettings, "trial_epochs", 0, "a whole number of 1 or more"),
    (SearchSettings, "score_images", 0, "a whole number of 1 or more"),
    (SearchSettings, "bn_images", -1, "a whole number of 0 or more"),
    (SearchSettings, "ranking_networks", -1, "a whole number of 0 or more"),
    (SearchSettings, "rerank", -1, "a whole number of 0 or more"),
    (SearchSettings, "rerank", 8, "ranking_networks of 2 or more beside it"),
    (SearchSettings, "rerank_min_spearman", 2.0, "a correlation from -1 to 1"),
    (RetrainSettings, "epochs", 0, "a whole number of 1 or more"),
    (RetrainSettings, "batch_size", 0, "a whole number of 1 or more"),
    (RetrainSettings, "lr", 0.0, "a number greater than 0"),
    (RetrainSettings, "weight_decay", -1e-5, "0 or more"),
    (RetrainSettings, "momentum", -0.1, "0 to below 1"),
    (RetrainSettings, "label_smoothing", 1.0, "0 to below 1"),
    (RetrainSettings, "dropout", 1.0, "0 to below 1"),
]


@pytest.mark.parametrize(("section", "name", "value", "rule"), RULES)
def test_a_wrong_value_is_refused_with_its_rule(
    section: type[Any], name: str, value: Any, rule: str
) -> None:
    with pytest.raises(ValueError, match=f"^{name} is {value!r}; expected {rule}"):
        section(**{name: value})


def test_the_search_defaults_are_the_published_recipe() -> None:
    published = {
        "warmup_epochs": 40,
        "epochs": 120,
        "hold_epochs": 1,
        "batch_size": 256,
        "lr": 0.025,
        "momentum": 0.9,
        "weight_decay": 4e-5,
        "label_smoothing": 0.1,
        "alpha_every": 5,
    }
    defaults = SearchSettings()
    assert {name: getattr(defaults, name) for name in published} == published
    assert defaults.total_epochs == 160


def test_trials_longer_than_the_search_are_refused() -> None:
    with pytest.raises(ValueError, match=r"trial_epochs is 5; expected warmup_epochs \+ epochs"):
        SearchSettings(strategy="rl_trials", warmup_epochs=1, epochs=3, hold_epochs=0)


@pytest.mark.parametrize("allowed", [{"ranking_networks": 20}, {"rerank_min_spearman": 0.0}])
def test_reranking_is_allowed_where_the_ranking_is_measured_or_trusted(
    allowed: dict[str, Any],
) -> None:
    assert SearchSettings(rerank=8, **allowed).rerank == 8


@pytest.mark.parametrize(
    ("strategy", "objective"),
    [("two_path", "learnt"), ("random", "none"), ("evolution", "none"), ("rl_trials", "power")],
)
def test_a_strategy_has_an_objective_of_its_own(strategy: Any, objective: str) -> None:
    assert SearchSettings(strategy=strategy).objective_name == objective


def test_a_named_objective_is_taken() -> None:
    assert SearchSettings(strategy="random", objective="power").objective_name == "power"


def test_the_published_architecture_split_is_50_000_images() -> None:
    assert SearchSettings().architecture_share * 1_281_167 == pytest.approx(50_000, rel=0.03)


def test_the_retraining_defaults_are_the_published_recipe() -> None:
    expected = RetrainSettings(
        epochs=300, batch_size=256, lr=0.05, momentum=0.9, weight_decay=4e-5, label_smoothing=0.1
    )
    assert RetrainSettings() == expected


def test_settings_cannot_be_changed_after_their_check() -> None:
    settings: Any = SearchSettings()
    with pytest.raises(FrozenInstanceError):
        settings.epochs = 0
