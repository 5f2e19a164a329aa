"""The deployment files of `cluster/`, as tests read them."""

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
"""Images of the project, by the name that the files use."""

VARIABLE = re.compile(r"\$\{(\w+)(?:(:?[-?])([^}]*))?\}")
"""`${NAME}`, `${NAME:-default}` and `${NAME:?message}` of a compose file."""

SECRET = re.compile(r"PASSWORD|SECRET|TOKEN|ACCESS_KEY")
"""What environment variables are called that hold a secret."""


def documents(name: str) -> list[dict[str, Any]]:
    """The documents of a YAML file below `cluster/`."""
    return list(yaml.safe_load_all((CLUSTER / name).read_text()))


def crd_schema(name: str) -> dict[str, Any]:
    """JSON schema of a custom resource, refusing fields that it does not have."""
    crd = json.loads(gzip.decompress((SCHEMAS / f"ray.io_{name}.json.gz").read_bytes()))
    (version,) = crd["spec"]["versions"]
    schema: dict[str, Any] = closed(version["schema"]["openAPIV3Schema"])
    return schema


def closed(schema: Any) -> Any:
    """A structural schema whose objects take no fields but their own, as the API server prunes."""
    if isinstance(schema, list):
        return [closed(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: closed(value) for key, value in schema.items()}
    is_open = made.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in made
    if isinstance(made.get("properties"), dict) and made.get("type") == "object" and not is_open:
        made["additionalProperties"] = False
    return made


def complaints(schema: dict[str, Any], document: dict[str, Any]) -> list[str]:
    """What is wrong with a document, each with its place."""
    errors = jsonschema.Draft202012Validator(schema).iter_errors(document)
    return sorted(f"{'.'.join(map(str, error.path))}: {error.message}" for error in errors)


def compose(environment: Mapping[str, str]) -> dict[str, Any]:
    """The compose file with variables put in.

    Raises:
        KeyError: one that is required is not there.
    """
    text = (CLUSTER / "mlflow" / "compose.yaml").read_text()
    made: dict[str, Any] = yaml.safe_load(
        VARIABLE.sub(lambda found: _put(found, environment), text)
    )
    return made


def _put(found: re.Match[str], environment: Mapping[str, str]) -> str:
    name, rule, words = found.groups()
    if rule in ("-", ":-"):
        return environment.get(name, words)
    return environment[name]


def required_variables() -> set[str]:
    """Those without which compose refuses to start."""
    text = (CLUSTER / "mlflow" / "compose.yaml").read_text()
    return {name for name, rule, _ in VARIABLE.findall(text) if rule in ("?", ":?")}


def instructions(dockerfile: Path) -> list[tuple[str, str]]:
    """Name and words of each instruction of a Dockerfile."""
    lines = dockerfile.read_text().replace("\\\n", " ").splitlines()
    kept = [line for line in lines if line.strip() and not line.lstrip().startswith("#")]
    return [(line.split()[0], line.split(maxsplit=1)[1]) for line in kept]


def mappings(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings in a document, it itself included."""
    if isinstance(value, dict):
        yield value
    children = (
        value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    )
    for child in children:
        yield from mappings(child)


def pod_specs(document: dict[str, Any]) -> list[dict[str, Any]]:
    """The specs of pods that a document describes."""
    return [one for one in mappings(document) if "containers" in one]


def containers(document: dict[str, Any]) -> list[dict[str, Any]]:
    """Their containers."""
    return [container for pod in pod_specs(document) for container in pod["containers"]]


def pinned_versions() -> dict[str, str]:
    """Versions in `constraints.txt`, by package."""
    lines = (REPOSITORY / "constraints.txt").read_text().splitlines()
    pairs = (line.split("==") for line in lines if not line.startswith("#"))
    return {name.lower(): found for name, found in pairs}
