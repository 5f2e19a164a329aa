"""Commands that read storage: their imports and their help."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestration.cli.app import app, main
from tests.conftest import REPOSITORY
from tests.support.job_folder import result, write_job

COMMANDS = ("show", "status", "clean", "compare")
"""`compare` is last: the modules that it loads stay loaded in the process."""

SLOW = ("torch", "ray", "mlflow", "sklearn")
FOR_PICTURES = ("matplotlib", "pandas", "pyarrow")
"""Imported by `compare` alone, which draws figures and writes Parquet."""


def test_commands_need_no_torch_ray_or_mlflow(tmp_path: Path) -> None:
    job = write_job(tmp_path, [result("mobile-reference")])
    code = (
        "import sys; from orchestration.cli.app import main\n"
        f"for command in {COMMANDS!r}:\n"
        f"    argument = {job.uri!r} + ('/cases/mobile-reference' if command == 'show' else '')\n"
        f"    forbidden = set({SLOW!r}) | set(() if command == 'compare' else {FOR_PICTURES!r})\n"
        "    end = main([command, argument])\n"
        "    print('loaded', command, end, sorted(forbidden & set(sys.modules)))"
    )
    args = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(args, capture_output=True, text=True, cwd=REPOSITORY, check=True)
    loaded = [line for line in done.stdout.splitlines() if line.startswith("loaded ")]
    assert loaded == [f"loaded {command} 0 []" for command in COMMANDS]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_tells_how_it_is_used(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert f" {command} [OPTIONS] " in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_without_what_it_is_about_ends_with_code_2(command: str) -> None:
    assert main([command]) == 2


def test_no_command_is_taken_for_a_job_file() -> None:
    assert {command.name for command in app.registered_commands} >= {*COMMANDS, "run", "record"}
