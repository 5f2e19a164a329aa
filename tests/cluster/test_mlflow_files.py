"""Files for a shared MLflow: valid, closed, and without a password in them."""

from __future__ import annotations

import configparser
from typing import Any

import compose_spec
import kubernetes_validate
import pytest
import yaml

from tests.support.deployment_files import (
    CLUSTER,
    SECRET,
    compose,
    containers,
    documents,
    mappings,
    pod_specs,
    required_variables,
)

KUBERNETES = "1.34"
GIVEN = {name: f"given-{name}" for name in sorted(required_variables())}
MANIFESTS = [*documents("mlflow/kubernetes.yaml"), *documents("kuberay/network.yaml")]
SETTINGS = ("MLFLOW_BACKEND_STORE_URI", "MLFLOW_ARTIFACTS_DESTINATION")


def checked(values: dict[str, Any]) -> bool:
    """Return True if the values are valid; raise otherwise."""
    compose_spec.PyCompose.from_yaml(yaml.safe_dump(values)).validate()
    return True


@pytest.mark.parametrize(
    ("place", "wrong"),
    [(["services", "mlflow"], "helthcheck"), (["services", "postgres", "healthcheck"], "retires")],
)
def test_the_compose_file_is_right_and_a_misspelled_key_of_it_is_caught(
    place: list[str], wrong: str
) -> None:
    values = compose(GIVEN)
    assert checked(values)
    at = values
    for step in place:
        at = at[step]
    at[wrong] = 3
    with pytest.raises(ValueError, match=f"`{wrong}` does not start with"):
        checked(values)


def test_compose_refuses_to_start_without_what_is_secret() -> None:
    variables = required_variables()
    passwords = {"POSTGRES_PASSWORD", "MLFLOW_AUTH_ADMIN_PASSWORD"}
    keys = {"MLFLOW_FLASK_SERVER_SECRET_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
    assert passwords | keys <= variables
    for name in passwords | keys:
        with pytest.raises(KeyError, match=name):
            compose({key: value for key, value in GIVEN.items() if key != name})


def test_no_secret_of_compose_has_a_value_of_its_own() -> None:
    for service in compose(GIVEN)["services"].values():
        secrets = {
            key: value for key, value in service["environment"].items() if SECRET.search(key)
        }
        assert secrets
        assert all(value.startswith("given-") for value in secrets.values())


def test_compose_opens_this_machine_alone_and_hides_the_database() -> None:
    values = compose(GIVEN)
    assert values["services"]["mlflow"]["ports"] == ["127.0.0.1:5000:5000"]
    assert "ports" not in values["services"]["postgres"]
    assert values["services"]["postgres"]["networks"] == ["database"]
    assert values["networks"]["database"] == {"internal": True}


@pytest.mark.parametrize(
    "manifest", MANIFESTS, ids=lambda one: f"{one['kind']}-{one['metadata']['name']}"
)
def test_a_manifest_is_right_and_a_misspelled_field_of_it_is_caught(
    manifest: dict[str, Any],
) -> None:
    assert kubernetes_validate.validate(manifest, KUBERNETES, strict=True) == KUBERNETES
    with pytest.raises(kubernetes_validate.ValidationError, match="'metdata' was unexpected"):
        kubernetes_validate.validate(manifest | {"metdata": {}}, KUBERNETES, strict=True)


def test_pods_have_no_rights_and_say_what_they_take() -> None:
    for manifest in documents("mlflow/kubernetes.yaml"):
        for pod in pod_specs(manifest):
            assert pod["automountServiceAccountToken"] is False
            assert pod["securityContext"]["runAsNonRoot"] is True
            assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(manifest):
            assert container["securityContext"]["allowPrivilegeEscalation"] is False
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert {"cpu", "memory"} <= container["resources"]["requests"].keys()
            assert {"cpu", "memory"} <= container["resources"]["limits"].keys()


def test_no_secret_stands_in_a_manifest() -> None:
    assert not [item for item in MANIFESTS if item["kind"] == "Secret"]
    for item in mappings(MANIFESTS):
        assert not (SECRET.search(str(item.get("name", ""))) and "value" in item)


def test_services_are_reached_inside_the_cluster_alone() -> None:
    services = [item for item in MANIFESTS if item["kind"] == "Service"]
    assert {item["metadata"]["name"] for item in services} == {"mlflow", "postgres"}
    assert all(item["spec"].get("type", "ClusterIP") == "ClusterIP" for item in services)
    policies = [item for item in MANIFESTS if item["kind"] == "NetworkPolicy"]
    covered = [item["spec"]["podSelector"]["matchLabels"]["app"] for item in policies]
    assert covered == ["postgres", "mlflow", "proxyless-ray"]


def environments() -> list[dict[str, str]]:
    """Environment of the server, in compose and on Kubernetes."""
    (pod,) = (
        container
        for item in documents("mlflow/kubernetes.yaml")
        for container in containers(item)
        if container["name"] == "mlflow"
    )
    there = {item["name"]: item["value"] for item in pod["env"]}
    return [compose(GIVEN)["services"]["mlflow"]["environment"], there]


def test_allowed_hosts_and_origins_are_set_and_are_names() -> None:
    for environment in environments():
        assert set(SETTINGS) <= environment.keys()
        for name in ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS"):
            assert environment[name]
            assert "*" not in environment[name]


def test_the_database_is_the_same_for_runs_and_users_and_its_address_holds_no_password() -> None:
    config = configparser.ConfigParser()
    config.read(CLUSTER / "mlflow" / "auth.ini")
    uri = config["mlflow"]["database_uri"]
    assert uri == "postgresql+psycopg://mlflow@postgres:5432/mlflow"
    assert [environment["MLFLOW_BACKEND_STORE_URI"] for environment in environments()] == [uri, uri]
    assert "admin_password" not in config["mlflow"]
