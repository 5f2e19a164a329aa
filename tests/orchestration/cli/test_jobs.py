"""Commands about what a storage holds start quickly and tell how they are used."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cli.app import app, main
from tests.conftest import REPOSITORY
from tests.support.job_folder import result, write_job

COMMANDS = ("compare", "show", "status", "clean")
SLOW = ("torch", "ray", "mlflow", "sklearn")
FOR_PICTURES = ("matplotlib", "pandas", "pyarrow")
"""Comparing draws and writes Parquet."""


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_needs_no_torch_ray_or_mlflow(tmp_path: Path, command: str) -> None:
    job = write_job(tmp_path, [result("mobile-reference")])
    what = f"{job.uri}/cases/mobile-reference" if command == "show" else job.uri
    forbidden = {*SLOW, *(FOR_PICTURES if command != "compare" else ())}
    code = (
        "import sys; from orchestration.cli.app import main;"
        f"end = main([{command!r}, {what!r}]);"
        f"print(end, sorted({forbidden!r} & set(sys.modules)))"
    )
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_tells_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f" {command} [OPTIONS] " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_what_it_is_about_ends_with_code_2(command: str) -> None:
    assert main([command]) == 2


def test_no_command_is_taken_for_a_job_file() -> None:
    assert {command.name for command in app.registered_commands} >= {*COMMANDS, "run", "record"}
