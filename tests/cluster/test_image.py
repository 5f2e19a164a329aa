"""Docker images: pinned, closed and complete."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from cluster.head import NODE_SETTINGS
from tests.conftest import REPOSITORY
from tests.support.deployment_files import DOCKERFILES, SECRET, instructions, pinned_versions

IMAGE, SERVER = DOCKERFILES
WORKING_FOLDER = "/opt/proxyless"


@pytest.fixture(params=DOCKERFILES, ids=["jobs", "mlflow"])
def dockerfile(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


def words_of(dockerfile: Path, name: str) -> list[str]:
    return [words for instruction, words in instructions(dockerfile) if instruction == name]


def copied(dockerfile: Path) -> list[str]:
    """Files that an image copies from the checkout."""
    return [source for words in words_of(dockerfile, "COPY") for source in words.split()[:-1]]


def test_hadolint_has_nothing_to_say(dockerfile: Path) -> None:
    program = shutil.which("hadolint", path=str(Path(sys.executable).parent)) or "hadolint"
    done = subprocess.run([program, dockerfile], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_the_base_is_pinned_to_the_python_that_was_tested(dockerfile: Path) -> None:
    (base,) = words_of(dockerfile, "FROM")
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
    first = (REPOSITORY / "constraints.txt").read_text().splitlines()[0]
    assert "(Python 3.11)" in first


def test_every_package_has_the_version_that_was_tested(dockerfile: Path) -> None:
    lines = [run for run in words_of(dockerfile, "RUN") if "pip install" in run]
    assert lines
    for line in lines:
        assert line.count("pip install") == line.count("-c constraints.txt")


def test_it_ends_as_a_user_without_rights(dockerfile: Path) -> None:
    assert words_of(dockerfile, "USER") == ["1000:1000"]
    names = [name for name, _ in instructions(dockerfile)]
    assert not {"RUN", "COPY", "ADD"} & set(names[names.index("USER") :])
    assert any("useradd --uid 1000" in run for run in words_of(dockerfile, "RUN"))


def test_no_secret_is_built_in(dockerfile: Path) -> None:
    settings = words_of(dockerfile, "ENV") + words_of(dockerfile, "ARG")
    names = re.findall(r"(\w+)=", " ".join(settings))
    assert [name for name in names if SECRET.search(name)] == []
    assert words_of(dockerfile, "ADD") == []


def test_what_is_copied_is_there_and_travels(dockerfile: Path) -> None:
    ignored = dockerfile.with_name("Dockerfile.dockerignore").read_text().splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert "*" in ignored
    assert set(copied(dockerfile)) == kept
    for source in kept:
        assert (REPOSITORY / source).exists()


def test_the_image_holds_all_packages_and_what_they_are_built_from() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    sources = copied(IMAGE)
    packages = project["tool"]["setuptools"]["packages"]["find"]["include"]
    assert {name.removesuffix("*") for name in packages} <= set(sources)
    assert {"requirements.txt", "constraints.txt", "pyproject.toml"} <= set(sources)
    assert project["project"]["readme"] in sources
    extras = set(project["project"]["optional-dependencies"])
    assert any(f".[{','.join(sorted(extras))}]" in run for run in words_of(IMAGE, "RUN"))


def test_job_files_of_the_image_can_be_run() -> None:
    assert words_of(IMAGE, "WORKDIR") == [WORKING_FOLDER]
    assert "jobs" in copied(IMAGE)
    for job in (REPOSITORY / "jobs").glob("*.yaml"):
        assert job.stat().st_mode & 0o111


def test_no_result_or_key_of_a_checkout_travels() -> None:
    ignored = IMAGE.with_name("Dockerfile.dockerignore").read_text().splitlines()
    kept = [line[1:] for line in ignored if line.startswith("!")]
    for name in (".git", ".venv", "tests", ".env", "s3.env", "mlruns", "shared"):
        assert not any(fnmatch.fnmatch(name, pattern) for pattern in kept)


def test_ray_in_the_image_asks_for_the_token() -> None:
    assert "RAY_AUTH_MODE=token" in " ".join(words_of(IMAGE, "ENV"))


def test_nodes_of_the_image_have_the_settings_of_others() -> None:
    given = " ".join(words_of(IMAGE, "ENV")).split()
    assert {f"{name}={value}" for name, value in NODE_SETTINGS.items()} <= set(given)


def test_the_server_asks_for_a_login_at_every_start() -> None:
    (command,) = words_of(SERVER, "CMD")
    words = json.loads(command)
    assert words[:4] == ["mlflow", "server", "--app-name", "basic-auth"]
    assert "--disable-security-middleware" not in words
    assert "MLFLOW_AUTH_CONFIG_PATH=/srv/mlflow/auth.ini" in " ".join(words_of(SERVER, "ENV"))


def test_packages_of_the_server_are_pinned() -> None:
    assert {"mlflow", "flask-wtf", "wtforms", "psycopg", "psycopg-binary", "boto3"} <= set(
        pinned_versions()
    )
