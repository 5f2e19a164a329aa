"""The wheel holds every package and works where nothing of the checkout is on the path."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow  # builds a wheel and an environment

PACKAGES = ("nas_core", "cluster", "orchestration")


def run(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the checkout stays as it is."""
    source = tmp_path_factory.mktemp("source")
    for name in PACKAGES:
        shutil.copytree(REPOSITORY / name, source / name)
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE"):
        shutil.copy(REPOSITORY / name, source)
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--wheel-dir", "built")
    run(sys.executable, "-m", "pip", "wheel", ".", *options, cwd=source)
    (result,) = (source / "built").glob("*.whl")
    return result


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel; its dependencies are those of the tests."""
    environment = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=environment)
    programs = environment / "bin"
    options = ("--no-deps", "--no-index", "--quiet", wheel)
    pip = (sys.executable, "-m", "pip", "--python", programs / "python")
    run(*pip, "install", *options, cwd=environment)
    (packages,) = environment.glob("lib/python*/site-packages")
    # A path in a .pth file does not read the .pth files there: no editable install is found.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return programs


def test_every_package_of_the_checkout_is_in_the_wheel(wheel: Path) -> None:
    files = {
        str(path.relative_to(REPOSITORY))
        for package in PACKAGES
        for path in (REPOSITORY / package).rglob("*.py")
    }
    assert len(files) > 200
    assert files == {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}


def test_the_installed_command_line_tells_how_it_is_used(installed: Path, tmp_path: Path) -> None:
    text = run(installed / "proxyless", "--help", cwd=tmp_path)
    assert all(command in text for command in ("run", "plan", "measure", "compare", "record"))


def test_the_installed_packages_are_imported_from_the_environment(
    installed: Path, tmp_path: Path
) -> None:
    code = "import orchestration, nas_core, cluster; print(orchestration.__file__)"
    place = run(installed / "python", "-W", "ignore", "-c", code, cwd=tmp_path)
    assert Path(place.strip()).is_relative_to(installed.parent)
