"""Exit codes and error messages of the command line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from cluster.storage import Storage
from orchestration.cli.app import main
from orchestration.config.loading import load_job
from orchestration.planning.plan import make_plan
from tests.conftest import REPOSITORY
from tests.support.latency_tables import by_kernel, table_of


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    returncode: int
    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def command(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """Function that runs a command. Starting Ray would fail: its address does not exist."""

    def run(*args: str) -> Done:
        monkeypatch.setenv("RAY_ADDRESS", "no-such-cluster:1")
        code = main(list(args))
        return Done(code, *capfd.readouterr())

    return run


@pytest.mark.parametrize(
    ("override", "complaint"),
    [
        ("search.epoch=3", "search.epoch is not a setting; did you mean 'epochs'?"),
        ("search.epochs=six", "search.epochs is 'six'; expected a whole number"),
        ("cases.0.budgets_ms=[-1.0]", "cases[0].budgets_ms[0] is -1.0; expected milliseconds"),
        ("space.ops=[conv]", "space.ops[0] is 'conv'; expected one of mbconv_k3_e3"),
        ("cases.0.target=phone", "cases[0].target is 'phone'; expected one of cpu, gpu, mobile"),
        ("search.strategy=luck", "search.strategy is 'luck'; expected one of 'two_path'"),
        ("data.source=web", "data.source is 'web'; expected one of 'digits', "),
        ("storage=/proc/nowhere", "storage /proc/nowhere cannot be written"),
    ],
)
def test_a_wrong_job_ends_with_code_2_and_one_line(
    job_file: Path, override: str, complaint: str, command: Command
) -> None:
    done = command(str(job_file), "--set", override)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{job_file}: {complaint}")
    assert done.stderr.count("\n") == 1


def test_a_yaml_error_names_the_line(job_file: Path, command: Command) -> None:
    job_file.write_text("name: x\n data: [\n")
    done = command(str(job_file))
    assert done.returncode == 2
    assert "line 2" in done.stderr


def test_a_budget_outside_the_stored_table_is_refused_at_the_plan(
    job_file: Path, command: Command
) -> None:
    job = load_job(job_file)
    plan = make_plan(job)
    table = table_of(plan.space, by_kernel)
    path = f"tables/{plan.table_keys['mobile']}.json"
    Storage(job.storage).write_json(path, table.to_dict())
    for args in (["--plan"], []):
        done = command(str(job_file), "--set", "cases.0.budgets_ms=[0.01]", *args)
        assert done.returncode == 2
        assert "take from 0.11 to 0.44 ms on 'mobile on host" in done.stderr


def test_a_target_that_is_not_here_is_refused_at_the_plan_with_what_is_here(
    job_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    asked = "targets={far: {runtime: onnxruntime, resources: {quantum: 2}}}"
    args = ("--set", asked, "--set", "cases.0.target=far", "--plan")
    assert main([str(job_file), *args]) == 2
    stderr = capfd.readouterr().err
    assert "target 'far' needs a node with 2 quantum; the cluster has this machine (" in stderr
    assert stderr.count("\n") == 1


@pytest.mark.slow
def test_a_table_is_read_from_a_file_and_a_job_can_take_it(
    job_file: Path, tmp_path: Path, command: Command
) -> None:
    plan = make_plan(load_job(job_file))
    (tmp_path / "mine.json").write_text(json.dumps(table_of(plan.space, by_kernel).to_dict()))
    space = ("--space", "proxyless_small", "--set", "resolution=32", "--set", "channels=1")
    source = ("--import", str(tmp_path / "mine.json"), "--storage", str(tmp_path / "kept"))
    done = command("measure", "--target", "board", *space, "--set", "classes=10", *source)
    assert done.returncode == 0, done.stderr
    last = done.stdout.splitlines()[-1]
    assert last.startswith("use      in a job file: targets: {board: {table: ")
    table = last.rpartition("table: ")[2].rstrip("}")
    args = ("--set", f"targets={{board: {{table: {table}}}}}", "--set", "cases.0.target=board")
    planned = command(str(job_file), *args, "--plan", "--quick")
    assert planned.returncode == 0, planned.stderr
    assert f"latency table from {table}" in planned.stdout


def test_a_quick_plan_starts_nothing_and_writes_nothing(
    job_file: Path, tmp_path: Path, command: Command
) -> None:
    done = command(str(job_file), "--plan", "--quick")
    assert done.returncode == 0, done.stderr
    assert "latency table to be measured" in done.stdout
    assert {path.name for path in tmp_path.iterdir()} == {"job.yaml"}


def test_an_unknown_option_ends_with_code_2(job_file: Path, command: Command) -> None:
    assert command(str(job_file), "--plam").returncode == 2


def test_a_process_ends_with_the_code_of_its_command(job_file: Path) -> None:
    args = [sys.executable, "-W", "ignore", "-m", "orchestration", str(job_file)]
    override = ["--set", "search.epoch=3"]
    done = subprocess.run([*args, *override], capture_output=True, text=True, cwd=REPOSITORY)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"{job_file}: search.epoch is not a setting")
