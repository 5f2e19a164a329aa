from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from mlflow import MlflowClient

from cluster.storage import Storage
from nas_core.architecture import Architecture
from orchestration import record
from orchestration.export import ModelFacts, load_model, save_model
from orchestration.record import RecordError, fetch_model, record_job
from tests.orchestration.job_folder import (
    OPS,
    SPACE,
    START,
    baseline_result,
    pixel1_result,
    result,
    write_job,
)

# What MLflow 3.17 does with SQLAlchemy 2.1; `record_job` keeps it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

CASE, REFERENCE = "mobile-0.31ms", "mobile-reference"


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory):
    """An MLflow database without content: making one takes seconds, copying does not."""
    path = tmp_path_factory.mktemp("mlflow") / "empty.db"
    MlflowClient(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    """A network, exported."""
    import torch

    torch.manual_seed(0)
    network = Architecture(SPACE, OPS)
    facts = ModelFacts(
        classes=tuple("0123456789"),
        input_shape=(1, 8, 8),
        mean=(0.3,),
        std=(0.4,),
        architecture=network.to_dict(),
    )
    folder = tmp_path_factory.mktemp("model")
    save_model(network.build(), torch.randn(4, 1, 8, 8), facts, folder)
    return folder


@pytest.fixture
def place(tmp_path, empty_database, model_folder, monkeypatch):
    """A job with a case and the reference, an empty MLflow, and the way to record one in the other.

    The working directory is another: nothing may be written there.
    """
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    return Place(tmp_path / "a storage", empty_database, model_folder)


class Place:
    def __init__(self, root: Path, database: Path, model: Path) -> None:
        self.root, self.model = root, model
        self.write([result(CASE), result(REFERENCE)])
        shutil.copy(database, root / "mlflow.db")
        self.uri = f"sqlite:///{root}/mlflow.db"
        self.client = MlflowClient(self.uri)

    def write(self, results):
        """Replace the cases in storage."""
        shutil.rmtree(self.root / "search_mobile", ignore_errors=True)
        self.job = write_job(self.root, results, self.model)

    def record(self, uri=None):
        tables = Storage(str(self.root / "tables"))
        return record_job(self.job, tables, tracking_uri=uri or self.uri, experiment="digits")

    def runs(self, kind):
        """Runs of a kind, by name."""
        found = self.client.search_runs(["1"], f"tags.`proxyless.kind` = '{kind}'")
        return {run.info.run_name: run for run in found}

    def artifacts(self, run):
        return {file.path for file in self.client.list_artifacts(run.info.run_id)}

    def state(self):
        """All that MLflow holds, without ids."""
        runs = self.client.search_runs(["1"], order_by=["attributes.run_name"])
        versions = self.client.search_model_versions("name = 'digits-mobile'")
        models = self.client.search_logged_models(["1"])
        return {
            "runs": [self._run_state(run) for run in runs],
            "models": sorted((model.name, str(model.status)) for model in models),
            "versions": [(v.version, sorted(v.tags.items()), v.aliases) for v in versions],
        }

    def _run_state(self, run):
        tags = {k: v for k, v in run.data.tags.items() if k != "mlflow.parentRunId"}
        history = {
            name: [
                (m.step, m.value, m.timestamp)
                for m in self.client.get_metric_history(run.info.run_id, name)
            ]
            for name in run.data.metrics
        }
        facts = (
            run.info.status,
            run.info.start_time,
            run.info.end_time,
            len(run.outputs.model_outputs),
        )
        return tags, run.data.params, history, facts, self.artifacts(run)


def test_the_run_of_a_case_says_what_was_asked_for(place):
    place.record()
    assert place.runs("case")[CASE].data.params == {
        "target": "mobile",
        "budget_ms": "0.31",
        "strategy": "two_path",
        "objective": "absolute",
        "space": "proxyless_small",
        "architecture_hash": Architecture(SPACE, OPS).digest(),
        "seed": "0",
    }


def test_the_run_of_a_case_says_what_was_found(place):
    place.record()
    metrics = place.runs("case")[CASE].data.metrics
    assert {name: value for name, value in metrics.items() if "/" not in name} == {
        "table_ms": 0.309,
        "measured_ms": 0.312,
        "measured_spread": 0.02,
        "top1": 0.981,
        "top5": 0.999,
        "params": 123_456,
        "macs": 7_000_000,
        "search_s": 31.2,
        "search_gpu_hours": 0,
        "retrain_s": 40.1,
        "retrain_gpu_hours": 0,
    }


def test_a_baseline_is_recorded_beside_the_others_and_not_registered(place):
    place.write([result(CASE), baseline_result("mnasnet"), result(REFERENCE)])
    assert place.record().models == ("models:/digits-mobile/1",)
    run = place.runs("case")["mobile-mnasnet"]
    assert run.data.tags["kind"] == "baseline"
    assert run.data.params.keys() == {"target", "architecture_hash", "seed"}
    assert run.data.metrics["total_stride"] == 4
    assert "table_ms" not in run.data.metrics


def test_the_ranking_of_a_supernet_is_recorded(place):
    agreement = {"spearman": 0.6, "kendall": 0.4}
    ranking = {"accuracy": agreement, "cross_entropy": {"spearman": 0.7, "kendall": 0.5}}
    place.write([result(CASE, ranking=ranking | {"networks": [], "seconds": 1.0})])
    place.record()
    metrics = place.runs("case")[CASE].data.metrics
    assert {name: value for name, value in metrics.items() if name.startswith("ranking")} == {
        "ranking_spearman_accuracy": 0.6,
        "ranking_kendall_accuracy": 0.4,
        "ranking_spearman_cross_entropy": 0.7,
        "ranking_kendall_cross_entropy": 0.5,
    }


def test_a_network_that_was_not_measured_has_no_measured_metric(place):
    place.write([pixel1_result("pixel1-0.31ms"), pixel1_result("pixel1-reference")])
    assert place.record().models == ("models:/digits-pixel1/1",)
    for run in place.runs("case").values():
        assert "table_ms" in run.data.metrics
        assert not [name for name in run.data.metrics if name.startswith("measured")]
    version = place.client.get_model_version_by_alias("digits-pixel1", "best")
    assert "measured_ms" not in version.tags


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


def test_search_curves_have_epochs_as_steps_and_the_time_when_they_were_found(place):
    place.record()
    run_id = place.runs("case")[CASE].info.run_id
    history = place.client.get_metric_history(run_id, "search/loss")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (epoch, 2.0 / (1 + epoch), int((START + 2 * epoch + 2) * 1000)) for epoch in range(4)
    ]


def test_a_number_that_an_epoch_lacks_is_left_out(place):
    place.record()
    run_id = place.runs("case")[CASE].info.run_id
    history = place.client.get_metric_history(run_id, "search/latency_ms")
    assert [m.step for m in history] == [2, 3]


def test_runs_are_nested_as_job_case_and_retraining(place):
    place.record()
    job, cases, retrained = (place.runs(kind) for kind in ("job", "case", "retrain"))
    parent = {
        name: run.data.tags["mlflow.parentRunId"] for name, run in (cases | retrained).items()
    }
    job_id = job["search_mobile"].info.run_id
    assert parent == {
        CASE: job_id,
        REFERENCE: job_id,
        f"{CASE} retrain": cases[CASE].info.run_id,
        f"{REFERENCE} retrain": cases[REFERENCE].info.run_id,
    }


def test_a_stand_in_is_named_on_every_run_of_a_case(place):
    place.record()
    for run in (place.runs("case") | place.runs("retrain")).values():
        assert run.data.tags["stand_in"] == "true"
        assert run.data.tags["hardware"] == "mobile on host x86-64 (XNNPACK)"


def test_a_run_has_its_files(place):
    place.job.write_bytes(f"comparison/{CASE}.png", b"picture")
    place.record()
    assert place.artifacts(place.runs("case")[CASE]) == {
        "architecture.json",
        "result.json",
        "latency_table.json",
        "architecture.png",
    }
    assert place.artifacts(place.runs("job")["search_mobile"]) == {
        "search_mobile.yaml",
        "job.json",
        "comparison",
    }


def test_settings_of_the_job_are_params_of_its_run(place):
    place.record()
    assert place.runs("job")["search_mobile"].data.params == {
        "search.epochs": "6",
        "cases": '[{"target": "mobile"}]',
        "retrain": "null",
    }


def test_recording_twice_changes_nothing(place):
    links = place.record()
    before = place.state()
    assert place.record() == links
    assert place.state() == before


class Killed(BaseException):
    """The recorder's process ends here."""


def client_that_dies(before_write):
    """An MLflow client that raises Killed before its n-th call that writes."""

    class Dying(MlflowClient):
        writes = 0

        def __getattribute__(self, name):
            if name.startswith(("create_", "log_", "set_", "finalize_")):
                Dying.writes += 1
                if Dying.writes == before_write:
                    raise Killed
            return super().__getattribute__(name)

    return Dying


def killed(place, monkeypatch, before_write):
    """Whether a recording came to its n-th write, and was killed there."""
    with monkeypatch.context() as patch:
        patch.setattr(record, "MlflowClient", client_that_dies(before_write))
        try:
            place.record()
        except Killed:
            return True
    return False


def test_a_recorder_that_is_killed_again_and_again_completes(
    place, tmp_path, empty_database, monkeypatch
):
    undisturbed = Place(tmp_path / "undisturbed", empty_database, place.model)
    undisturbed.record()
    attempts = 1
    while killed(place, monkeypatch, before_write=attempts):
        attempts += 1
    assert attempts > 5
    assert place.state() == undisturbed.state()


@pytest.mark.slow
def test_recording_goes_on_from_every_single_write(place, tmp_path, empty_database, monkeypatch):
    place.write([result(CASE)])
    place.record()
    for before_write in range(1, 100):
        again = Place(tmp_path / f"killed{before_write}", empty_database, place.model)
        again.write([result(CASE)])
        if not killed(again, monkeypatch, before_write):
            break
        again.record()
        assert again.state() == place.state(), before_write
    assert before_write > 15


def test_nothing_is_written_to_the_working_directory(place):
    place.record()
    assert not list(Path.cwd().iterdir())


def test_the_searched_model_is_registered_and_the_reference_is_not(place):
    assert place.record().models == ("models:/digits-mobile/1",)
    version = place.client.get_model_version_by_alias("digits-mobile", "best")
    assert version.run_id == place.runs("retrain")[f"{CASE} retrain"].info.run_id


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
    assert "no version of 'digits-mobile' keeps its budget" in caplog.text
    assert (
        place.client.get_model_version_by_alias("digits-mobile", "best").tags["measured_ms"]
        == "0.4"
    )


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_mlflow_loads_the_registered_model_as_it_was_evaluated(place, batch, monkeypatch):
    import mlflow
    import torch

    place.record()
    previous = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(place.uri)
    try:
        loaded = mlflow.pytorch.load_model("models:/digits-mobile@best")
    finally:
        mlflow.set_tracking_uri(previous)
    images = torch.randn(batch, 1, 8, 8)
    torch.testing.assert_close(loaded(images), load_model(place.model)[0](images))


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred")  # mlflow.pyfunc, on import
def test_mlflow_serves_the_model_with_its_signature_and_example(place):
    import mlflow
    import numpy as np

    place.record()
    model = place.client.search_logged_models(["1"])[0]
    served = mlflow.pyfunc.load_model(model.artifact_location)
    example = served.input_example
    assert example.shape == (4, 1, 8, 8)
    assert served.metadata.signature.inputs.inputs[0].shape == (-1, 1, 8, 8)
    assert served.predict(example.astype(np.float32)).shape == (4, 10)


def test_a_recorded_model_tells_its_classes_and_how_images_go_in(place):
    import mlflow

    place.record()
    model = place.client.search_logged_models(["1"])[0]
    assert mlflow.models.Model.load(model.artifact_location).metadata == {
        "classes": list("0123456789"),
        "input_shape": [1, 8, 8],
        "mean": [0.3],
        "std": [0.4],
    }


@pytest.mark.parametrize("uri", ["models:/digits-mobile/1", "models:/digits-mobile@best", "run"])
def test_a_fetched_model_is_the_one_in_storage(place, tmp_path, uri):
    place.record()
    run = place.runs("retrain")[f"{CASE} retrain"].info.run_id
    folder = fetch_model(uri.replace("run", f"runs:/{run}"), place.uri, tmp_path / "fetched")
    for name in ("model.pt2", "model.json"):
        assert (folder / name).read_bytes() == (place.model / name).read_bytes()
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
def test_a_model_that_does_not_exist_is_named(place, tmp_path, uri, reason):
    place.record()
    with pytest.raises(RecordError, match=reason):
        fetch_model(uri, place.uri, tmp_path / "fetched")


def test_links_open_the_view_that_shows_runs(place):
    links = place.record()
    assert links.runs == "http://127.0.0.1:5000/#/experiments/1/runs?workflowType=machine_learning"
    cases = {run.info.run_id for run in place.runs("case").values()}
    compared = re.fullmatch(r".*/#/compare-runs\?runs=(.*)&experiments=(.*)", links.compare)
    assert set(json.loads(unquote(compared[1]))) == cases
    assert json.loads(unquote(compared[2])) == ["1"]


def test_the_view_of_all_cases_is_stored_where_the_ui_looks_for_it(place):
    key = place.record().cases.rpartition("viewStateShareKey=")[2]
    state = json.loads(place.client.get_experiment("1").tags[f"mlflow.sharedViewState.{key}"])
    found = place.client.search_runs(["1"], state["searchFilter"])
    assert {run.info.run_name for run in found} == {CASE, REFERENCE}


def test_a_job_without_retraining_has_no_model(place):
    place.model = None
    place.write([result(CASE, top1=None, top5=None, retrain_history=[], retrain_s=None)])
    assert place.record().models == ()
    assert "top1" not in place.runs("case")[CASE].data.metrics


def test_a_job_that_went_on_gets_its_new_cases(place):
    place.write([result(CASE)])
    place.record()
    place.write([result(CASE), result(REFERENCE)])
    place.record()
    assert place.runs("case").keys() == {CASE, REFERENCE}
    assert len(place.runs("job")) == 1


def test_a_case_that_was_done_again_gets_a_run_of_its_own(place):
    place.record()
    place.write([result(CASE, finished="2026-11-23T08:00:00+00:00"), result(REFERENCE)])
    assert place.record().models == ("models:/digits-mobile/2",)


def test_a_deleted_experiment_is_named_with_the_way_out(place):
    place.record()
    place.client.delete_experiment("1")
    with pytest.raises(RecordError, match=r"'digits' was deleted .* experiments restore -x 1"):
        place.record()


def test_a_database_that_cannot_be_opened_is_one_clear_line(place):
    uri = f"sqlite:///{place.root}/mlflow.db/no-folder/x.db"
    with pytest.raises(RecordError, match=f"^MLflow at {uri}: [^\n]*$"):
        place.record(uri)


def test_a_password_is_in_no_message_and_no_link():
    assert record.ui_address("https://me:secret@mlflow.example/") == "https://mlflow.example"


def test_recording_prints_nothing_and_needs_no_torch(place):
    code = (
        "import sys; from cluster.storage import Storage; from orchestration.record import *\n"
        f"root = Storage({str(place.root)!r})\n"
        "record_job(root.sub('search_mobile'), root.sub('tables'),\n"
        f"    tracking_uri={place.uri!r}, experiment='digits')\n"
        "assert 'torch' not in sys.modules and 'ray' not in sys.modules"
    )
    repository = Path(record.__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, cwd=repository)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
