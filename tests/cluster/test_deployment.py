"""Consistency of the deployment files with each other, the code and the tested versions."""

from __future__ import annotations

import re
import shlex
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.head import NODE_SETTINGS
from orchestration.config.loading import load_job
from tests.conftest import REPOSITORY
from tests.support.deployment_files import (
    CLUSTER,
    DOCKERFILES,
    IMAGES,
    SECRET,
    compose,
    documents,
    instructions,
    mappings,
    pinned_versions,
    required_variables,
)

FILES = sorted(
    path.relative_to(CLUSTER).as_posix()
    for path in CLUSTER.rglob("*.yaml")
    if path.name != "compose.yaml"
)
README = (CLUSTER / "README.md").read_text()
NAME = re.compile(r"\b(?:MLFLOW|AWS|RAY|PROXYLESS)_[A-Z0-9_]*[A-Z0-9]\b")
POSTGRES = {"POSTGRES_USER", "POSTGRES_DB", "POSTGRES_PASSWORD", "PGDATA", "PGPASSWORD"}
"""Variables of PostgreSQL's image and client."""

CONTAINER = {"NVIDIA_DRIVER_CAPABILITIES", "PYTHONUNBUFFERED"}


def rays() -> list[dict[str, Any]]:
    """The Ray clusters on Kubernetes."""
    result = [item for name in FILES for document in documents(name) for item in mappings(document)]
    return [item for item in result if "rayVersion" in item]


def test_ray_on_kubernetes_is_the_tested_one() -> None:
    assert [ray["rayVersion"] for ray in rays()] == [pinned_versions()["ray"]] * 2


def test_the_server_of_mlflow_is_the_tested_one() -> None:
    tags = [name.split(":")[1] for name in IMAGES if name.startswith("proxyless-mlflow:")]
    assert tags == [pinned_versions()["mlflow"]]


def test_the_image_is_named_like_the_version_of_the_project() -> None:
    project = (REPOSITORY / "pyproject.toml").read_text()
    (version,) = re.findall(r'^version = "(.+)"$', project, re.M)
    assert f"proxyless:{version}" in IMAGES


def test_every_image_is_one_of_the_project_or_pinned() -> None:
    names = [
        mapping["image"]
        for document in [compose(dict.fromkeys(required_variables(), "x"))]
        + [document for name in FILES for document in documents(name)]
        for mapping in mappings(document)
        if isinstance(mapping.get("image"), str)
    ]
    assert set(IMAGES) <= set(names)
    assert {name for name in names if name not in IMAGES} == {"postgres:17.6-alpine"}


def test_both_images_are_of_one_python() -> None:
    bases = {words for file in DOCKERFILES for name, words in instructions(file) if name == "FROM"}
    assert len(bases) == 1


def named_variables() -> set[str]:
    """Environment variables that the deployment files and their README mention."""
    files = [*CLUSTER.rglob("*.yaml"), *CLUSTER.rglob("*.ini"), *DOCKERFILES]
    texts = [README, *(path.read_text() for path in files)]
    return {name for text in texts for name in NAME.findall(text)}


def known_variables() -> set[str]:
    """Environment variables that the code and MLflow read."""
    mlflow = Path(str(distribution("mlflow").locate_file("mlflow")))
    files = [*CLUSTER.rglob("*.py"), mlflow / "environment_variables.py"]
    files += [mlflow / "cli" / "__init__.py", mlflow / "utils" / "cli_args.py"]
    return {name for path in files for name in NAME.findall(path.read_text())}


def test_every_variable_that_is_named_is_read_by_something() -> None:
    ray = {"RAY_HEAD_IP", "RAY_USAGE_STATS_ENABLED"}  # set by `ray up`; read by Ray
    pod = {"MLFLOW_PORT"}  # Kubernetes sets it for a service of this name; it is unset
    assert named_variables() - known_variables() - ray - pod == set()


def test_variables_of_containers_are_known_too() -> None:
    words = [words for file in DOCKERFILES for name, words in instructions(file) if name == "ENV"]
    names = {word.split("=")[0] for item in words for word in item.split()}
    others = {name for name in names if not NAME.fullmatch(name)}
    assert others == CONTAINER | NODE_SETTINGS.keys()
    services = compose(dict.fromkeys(required_variables(), "x"))["services"].values()
    told = {name for service in services for name in service["environment"]}
    assert {name for name in told if not NAME.fullmatch(name)} <= POSTGRES


def entrypoint() -> list[str]:
    (job,) = documents("kuberay/rayjob.yaml")
    return shlex.split(job["spec"]["entrypoint"])


def test_the_job_of_the_cluster_is_one_that_can_be_run() -> None:
    path, *words = entrypoint()
    assert words[::2] == ["--set"] * (len(words) // 2)
    assert (REPOSITORY / path).parent == REPOSITORY / "jobs"
    assert (REPOSITORY / path).stat().st_mode & 0o111
    job = load_job(str(REPOSITORY / path), words[1::2])
    assert job.storage.startswith("s3://")  # nodes have no other shared storage
    assert job.cluster.workers == (1, 8)


def test_workers_are_asked_for_as_many_as_there_may_be() -> None:
    path, *words = entrypoint()
    job = load_job(str(REPOSITORY / path), words[1::2])
    (most,) = {
        group["maxReplicas"]
        for ray in rays()
        for group in ray["workerGroupSpecs"]
        if group["groupName"] == "gpu-spot"
    }
    assert isinstance(job.cluster.workers, tuple)
    assert job.cluster.workers[1] == most


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_named_in_the_readme(name: str) -> None:
    assert f"cluster/{name}" in README


def test_secrets_that_files_need_are_made_in_the_readme() -> None:
    needed = {
        item["name"]
        for file in FILES
        for document in documents(file)
        for parent in mappings(document)
        for key, item in parent.items()
        if key in ("secretRef", "secretKeyRef")
    } | {item["authOptions"]["secretName"] for item in rays()}
    made = set(re.findall(r"kubectl (?:-n \w+ )?create secret generic ([\w-]+)", README))
    assert made == needed


def test_no_secret_has_a_value_anywhere() -> None:
    for path in sorted(CLUSTER.rglob("*")):
        if path.suffix in (".yaml", ".ini", "") and path.is_file():
            for line in path.read_text().splitlines():
                result = re.match(rf"\s*-?\s*(\w*(?:{SECRET.pattern})\w*)\s*[:=]\s*(\S+)", line)
                assert result is None or result[2].startswith("${"), f"{path.name}: {line}"


def test_yaml_files_have_no_key_twice() -> None:
    for path in CLUSTER.rglob("*.yaml"):
        assert list(yaml.load_all(path.read_text(), _Once))


class _Once(yaml.SafeLoader):
    """YAML loader that rejects a mapping with a duplicate key."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if key.tag != "tag:yaml.org,2002:merge"]
        assert len(keys) == len(set(keys)), f"{node.start_mark}: {keys}"
        made: dict[Any, Any] = super().construct_mapping(node, deep)
        return made


def test_the_schemas_have_their_source() -> None:
    folder = Path(__file__).parent / "schemas"
    text = (folder / "README.md").read_text()
    assert all(path.name in text for path in folder.glob("*.gz"))
