from __future__ import annotations

import logging

import pytest

from orchestration.programs.export import load_model
from orchestration.tracking import RecordError, fetch_model
from tests.support.job_folder import (
    pixel1_result,
    result,
    save_small_network,
)
from tests.support.recording import CASE, Place

# Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
pytestmark = [
    pytest.mark.slow,  # networks are exported, and loaded by MLflow
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy"),
]


def test_the_best_version_of_a_target_that_is_not_measured_keeps_its_budget_by_the_table(place):
    place.write(
        [
            pixel1_result("pixel1-80ms", budget_ms=80.0, table_ms=79.9, top1=0.97),
            pixel1_result("pixel1-75ms", budget_ms=75.0, table_ms=79.9, top1=0.99),
        ]
    )
    place.record()
    version = place.client.get_model_version_by_alias("digits-pixel1", "best")
    assert version.tags["budget_ms"] == "80.0"


def test_the_searched_model_is_registered_and_the_reference_is_not(standing):
    assert standing.record().models == ("models:/digits-mobile/1",)
    version = standing.client.get_model_version_by_alias("digits-mobile", "best")
    assert version.run_id == standing.runs("retrain")[f"{CASE} retrain"].info.run_id


def test_best_is_the_most_accurate_version_that_keeps_its_budget(place):
    place.write(
        [
            result("mobile-0.2ms", budget_ms=0.2, measured_ms=0.201, top1=0.97),
            result("mobile-0.3ms", budget_ms=0.3, measured_ms=0.299, top1=0.98),
            result("mobile-0.4ms", budget_ms=0.4, measured_ms=0.5, top1=0.99),
        ]
    )
    place.record()
    version = place.client.get_model_version_by_alias("digits-mobile", "best")
    assert version.tags["budget_ms"] == "0.3"


def test_best_is_the_nearest_miss_if_no_version_keeps_its_budget(place, caplog):
    place.write([result("mobile-0.3ms", budget_ms=0.3, measured_ms=0.4)])
    with caplog.at_level(logging.WARNING):
        place.record()
    assert "no version of 'digits-mobile' is within its budget" in caplog.text
    assert (
        place.client.get_model_version_by_alias("digits-mobile", "best").tags["measured_ms"]
        == "0.4"
    )


def test_the_best_version_for_a_budget_has_its_name(place):
    place.write(
        [
            result("mobile-0.31ms"),
            result("mobile-0.31ms-seed1", top1=0.99, seed=1),
            result("mobile-0.5ms", budget_ms=0.5, top1=0.995),
        ]
    )
    place.record()
    actual = {
        alias: place.client.get_model_version_by_alias("digits-mobile", alias).tags["top1"]
        for alias in ("best", "budget-0_31", "budget-0_5")
    }
    assert actual == {"best": "0.995", "budget-0_31": "0.99", "budget-0_5": "0.995"}


def test_a_network_that_the_job_no_longer_has_is_not_the_best(place):
    place.write([result(CASE, top1=0.99)])
    place.record()
    place.write([result(CASE, top1=0.5, key="done-again")])
    place.record()
    for alias in ("best", "budget-0_31"):
        assert place.client.get_model_version_by_alias("digits-mobile", alias).tags["top1"] == "0.5"


@pytest.mark.parametrize("images", ["same", "other"])
def test_jobs_compete_where_their_images_are_the_same(place, images):
    place.write([result(CASE, top1=0.99, job="first", parts={"data": "same"})])
    place.record()
    place.write([result(CASE, top1=0.5, key="of-the-second", parts={"data": images})])
    place.record()
    best = place.client.get_model_version_by_alias("digits-mobile", "best")
    assert best.tags["top1"] == ("0.99" if images == "same" else "0.5")


@pytest.fixture(scope="module")
def exported(tmp_path_factory, empty_database):
    """A recorded job whose network can be loaded, for tests that only read."""
    root = tmp_path_factory.mktemp("exported")
    one = Place(root / "a storage", empty_database, save_small_network(root / "model"))
    one.record()
    return one


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_mlflow_loads_the_registered_model_as_it_was_evaluated(exported, batch, monkeypatch):
    import mlflow
    import torch

    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(exported.uri)
    try:
        loaded = mlflow.pytorch.load_model("models:/digits-mobile@best")
    finally:
        mlflow.set_tracking_uri(previous)
    images = torch.randn(batch, 1, 8, 8)
    torch.testing.assert_close(loaded(images), load_model(exported.model)[0](images))


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # mlflow.pyfunc, on import
def test_mlflow_serves_the_model_with_its_signature_and_example(exported):
    import mlflow
    import numpy as np

    model = exported.client.search_logged_models(["1"])[0]
    served = mlflow.pyfunc.load_model(model.artifact_location)
    example = served.input_example
    assert example.shape == (4, 1, 8, 8)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    assert served.predict(example.astype(np.float32)).shape == (4, 10)


def test_a_recorded_model_tells_its_classes_and_how_images_go_in(standing):
    import mlflow

    model = standing.client.search_logged_models(["1"])[0]
    assert mlflow.models.Model.load(model.artifact_location).metadata == {
        "classes": list("0123456789"),
        "input_shape": [1, 8, 8],
        "mean": [0.3],
        "std": [0.4],
    }


@pytest.mark.parametrize("uri", ["models:/digits-mobile/1", "models:/digits-mobile@best", "run"])
def test_a_fetched_model_is_the_one_in_storage(exported, tmp_path, uri):
    run = exported.runs("retrain")[f"{CASE} retrain"].info.run_id
    folder = fetch_model(uri.replace("run", f"runs:/{run}"), exported.uri, tmp_path / "fetched")
    for name in ("model.pt2", "model.json"):
        assert (folder / name).read_bytes() == (exported.model / name).read_bytes()
    assert load_model(folder)[1].classes == tuple("0123456789")


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("models:/flowers-mobile/1", "flowers-mobile"),
        ("models:/digits-mobile/7", "version 7|version=7"),
        ("models:/digits-mobile@worst", "worst"),
        ("digits-mobile", "expected e.g. models:/digits-mobile/1"),
        ("runs:/0123456789abcdef0123456789abcdef", "0123456789abcdef"),
    ],
)
def test_a_model_that_does_not_exist_is_named(standing, tmp_path, uri, reason):
    with pytest.raises(RecordError, match=reason):
        fetch_model(uri, standing.uri, tmp_path / "fetched")


def test_a_job_without_retraining_has_no_model(place):
    place.model = None
    place.write([result(CASE, top1=None, top5=None, retrain_history=[], retrain_s=None)])
    assert place.record().models == ()
    assert "top1" not in place.runs("case")[CASE].data.metrics
