"""Readers of the deployment files in `cluster/`."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from tests.support.repository import REPOSITORY

CLUSTER = REPOSITORY / "cluster"
SCHEMAS = Path(__file__).parents[1] / "cluster" / "schemas"
DOCKERFILES = (CLUSTER / "Dockerfile", CLUSTER / "mlflow" / "Dockerfile")
IMAGES = {"proxyless:0.1.0": DOCKERFILES[0], "proxyless-mlflow:3.17.2": DOCKERFILES[1]}
"""Images of the project, by the name used in the files."""

VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
"""`${NAME}`, `${NAME:-default}` and `${NAME:?message}` of a compose file."""

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
"""Matches names of environment variables that hold a secret."""


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file below `cluster/`."""
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def crd_schema(name: str) -> dict[str, Any]:
    """JSON schema of a custom resource that rejects unknown fields."""
    crd = json.loads(gzip.decompress((SCHEMAS / f"ray.io_{name}.json.gz").read_bytes()))
    (version,) = crd["spec"]["versions"]
    schema: dict[str, Any] = closed(version["schema"]["openAPIV3Schema"])
    return schema


def closed(schema: Any) -> Any:
    """A structural schema whose objects allow known fields only; the API server prunes others."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items()}
    is_open = result.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in result
    if (
        isinstance(result.get("properties"), dict)
        and result.get("type") == "object"
        and not is_open
    ):
        result["additionalProperties"] = False
    return result


def complaints(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """Validation errors of a document, each with the path of the value."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return sorted(f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors)


def compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with its variables substituted.

    Raises:
        KeyError: a required variable is missing.
    """
    text = (CLUSTER / "mlflow" / "compose.yaml").read_text()
    result: dict[str, Any] = yaml.safe_load(
        VARIABLE.sub(lambda actual: _substitute(actual, environment), text)
    )
    return result


def _substitute(match: re.Match[str], environment: Mapping[str, str]) -> str:
    name, rule, default = match.groups()
    if rule in ("-", ":-"):
        return environment.get(name, default)
    return environment[name]


def required_variables() -> set[str]:
    """Variables without which compose refuses to start."""
    text = (CLUSTER / "mlflow" / "compose.yaml").read_text()
    return {name for name, rule, _ in VARIABLE.findall(text) if rule in ("?", ":?")}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Name and arguments of each instruction of a Dockerfile."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    relevant = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in relevant]


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    """Mappings in a document, including the document itself."""
    if isinstance(value, dict):
        yield value
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        yield from mappings(child)


def pod_specs(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Pod specs contained in a document."""
    return [mapping for mapping in mappings(document) if "containers" in mapping]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Containers of all pods in a document."""
    return [container for pod in pod_specs(document) for container in pod["containers"]]


def pinned_versions() -> dict[str, str]:
    """Versions in `constraints.txt`, by package."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {name.lower(): version for name, version in pairs}
