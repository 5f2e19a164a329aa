"""Logins and keys, planted wherever they can occur, do not appear in any output."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.storage import Storage
from orchestration.cli.app import main
from orchestration.config.job import Job
from orchestration.config.loading import load_job
from orchestration.driver import pipeline
from orchestration.planning.cases import cases_of
from orchestration.planning.plan import make_plan
from orchestration.reports.table import ordered_results
from orchestration.stages.context import CaseTask
from orchestration.state.snapshot import read_snapshot
from tests.support.faulty_proxy import Proxy
from tests.support.job_folder import result, write_job
from tests.support.latency_tables import by_kernel, table_of
from tests.support.recording import CASE, REFERENCE

# Raised by MLflow 3.17 with SQLAlchemy 2.1; recording hides it from its callers.
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy")

SECRETS = [f"hunter2{letter}" for letter in "abcdefg"]
ENVIRONMENT = ("AWS_SECRET_ACCESS_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN")


@pytest.fixture(autouse=True)
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secrets in the environment."""
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    for name, secret in zip(ENVIRONMENT, SECRETS, strict=False):
        monkeypatch.setenv(name, secret)


def job_with_secrets(folder: Path, uri: str) -> tuple[Job, str]:
    """A job and its file, which has logins in a setting, in a path and in a comment."""
    login = uri.replace("://", f"://me:{SECRETS[3]}@")
    text = f"""
name: search_mobile
data: {{source: digits}}
targets: {{mobile: {{stand_in: true}}}}
cases: [{{target: mobile, budgets_ms: [0.31]}}]  # as in https://me:{SECRETS[5]}@example.com/a
storage: {folder}
record: {{tracking_uri: "{login}", experiment: secrets, patience_s: 60}}
"""
    path = folder.parent / "job.yaml"
    path.write_text(text)
    return load_job(path), text


def files_with(folder: Path, secrets: list[str]) -> list[str]:
    """Files that contain a secret in any encoding."""
    return [
        f"{path.relative_to(folder)}: {secret}"
        for path in folder.rglob("*")
        if path.is_file()
        for secret in secrets
        if secret.encode() in path.read_bytes()
    ]


def written(job: Job, text: str, model: Path) -> Storage:
    """The storage of the job after its end, with synthetic results."""
    storage = Storage(job.storage)
    folder = write_job(storage.path(), [result(CASE), result(REFERENCE)], model)
    folder.delete("job.json")
    data = replace(job.data, source="imagefolder", path=f"/images?password={SECRETS[4]}")
    plan = replace(make_plan(job), job=replace(job, data=data))
    pipeline._write_job(plan, folder, [], text, None, [], {})
    return storage


def recorded(job: Job, storage: Storage, log: Callable[[str], None]) -> tuple[str, ...]:
    """Links that the driver logs when it has recorded the job."""
    folder = storage.sub(job.name)
    facts = folder.read_json("job.json")
    results = ordered_results(read_snapshot(folder, job.asha).results.values(), facts)
    return pipeline._record(job, storage, results, facts, log)


@pytest.mark.slow
def test_no_secret_is_in_mlflow_in_storage_or_in_what_is_said(
    proxy: Proxy,
    server: tuple[Path, int],
    model_folder: Path,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    job, text = job_with_secrets(tmp_path / "storage", proxy.uri)
    storage, said = written(job, text, model_folder), list[str]()
    with caplog.at_level(logging.DEBUG):
        links = recorded(job, storage, said.append)
        assert (len(links), said) == (4, [])
        proxy.fault = lambda _number: "before"
        hurried = replace(job, record=replace(job.record, patience_s=2))
        assert recorded(hurried, storage, said.append) == ()
        proxy.fault = lambda _number: 403
        assert main(["record", str(storage.path("search_mobile"))]) == 1
    proxy.heal()
    assert main(["record", str(storage.path("search_mobile"))]) == 0
    output = capfd.readouterr()
    everything = "\n".join([*said, *links, output.out, output.err, caplog.text])
    assert "WARNING not recorded: MLflow at http://127.0.0.1" in everything
    assert "not recorded" in output.err
    assert not [secret for secret in SECRETS if secret in everything]
    assert not files_with(tmp_path / "storage", SECRETS)
    assert not files_with(server[0], SECRETS)


@pytest.mark.slow
def test_a_job_that_was_written_with_its_login_is_recorded_without(
    proxy: Proxy, server: tuple[Path, int], model_folder: Path, tmp_path: Path
) -> None:
    job, text = job_with_secrets(tmp_path / "storage", proxy.uri)
    storage = written(job, text, model_folder)
    facts = storage.read_json("search_mobile/job.json")
    settings = facts["settings"] | {"record": {"tracking_uri": job.record.tracking_uri}}
    old = facts | {"job_file": text, "settings": settings}
    storage.write_json("search_mobile/job.json", old)  # as earlier versions wrote it
    assert files_with(tmp_path / "storage", SECRETS)
    assert main(["record", str(storage.path("search_mobile"))]) == 0
    assert not files_with(server[0], SECRETS)


def test_a_login_in_a_database_address_is_in_no_message(tmp_path: Path) -> None:
    job, _ = job_with_secrets(tmp_path, "postgresql://127.0.0.1:1/x")
    job = replace(job, record=replace(job.record, patience_s=2))
    said: list[str] = []
    write_job(tmp_path, [result(CASE)])
    assert recorded(job, Storage(str(tmp_path)), said.append) == ()
    assert said[0].startswith("WARNING not recorded: MLflow at postgresql://127.0.0.1:1/x: ")
    assert "MLFLOW_TRACKING_URI" in said[2]
    assert not [secret for secret in SECRETS if secret in "\n".join(said)]


def test_workers_are_not_told_where_a_job_is_recorded(tmp_path: Path) -> None:
    job, _ = job_with_secrets(tmp_path, "http://127.0.0.1:1")
    plan = make_plan(job)
    table = table_of(plan.space, by_kernel)
    case = cases_of(plan, {"mobile": table})[0]
    task = CaseTask(job, plan.data, case, (), None, table, str(tmp_path), threads=1)
    assert CaseTask.from_dict(task.to_dict()).job.record.tracking_uri is None


@pytest.mark.parametrize(
    ("own", "environment", "taken"),
    [
        ("http://host", "http://me:secret@host", "http://me:secret@host"),
        ("http://host", "http://me:secret@other", "http://host"),
        ("http://host", None, "http://host"),
        (None, "http://me:secret@host", "http://me:secret@host"),
    ],
)
def test_a_login_that_storage_has_not_kept_comes_from_the_environment(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    own: str | None,
    environment: str | None,
    taken: str,
) -> None:
    if environment:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", environment)
    values = f"{{tracking_uri: {own or 'null'}}}"
    path = tmp_path / "job.yaml"
    path.write_text("name: a\ndata: {source: digits}\ncases: [{target: mobile}]\n")
    job = load_job(path, [f"record={values}"])
    assert pipeline.tracking_uri(job, Storage(str(tmp_path))) == taken
