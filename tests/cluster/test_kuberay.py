"""Kubernetes files: valid by KubeRay's schemas, closed, and labelled."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from cluster.placement import MARKET_LABEL, SPOT, Node, steady_selector
from tests.support.deployment_files import (
    SECRET,
    complaints,
    containers,
    crd_schema,
    documents,
    mappings,
    pod_specs,
)

FILES = {"rayjob": "rayjobs", "raycluster": "rayclusters"}
SCHEMAS = {name: crd_schema(kind) for name, kind in FILES.items()}


def resource(name: str) -> dict[str, Any]:
    (result,) = documents(f"kuberay/{name}.yaml")
    return result


def ray(name: str) -> dict[str, Any]:
    """The cluster that a file describes."""
    spec = resource(name)["spec"]
    result: dict[str, Any] = spec["rayClusterSpec"] if name == "rayjob" else spec
    return result


@pytest.fixture(params=FILES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_file_is_right_by_the_schema_of_its_resource(name: str) -> None:
    assert complaints(SCHEMAS[name], resource(name)) == []


@pytest.mark.parametrize(
    ("path", "right", "wrong"),
    [
        (["spec"], "shutdownAfterJobFinishes", "shutdownAfterJobFinish"),
        (["spec", "rayClusterSpec"], "enableInTreeAutoscaling", "enableAutoscaling"),
        (["spec", "rayClusterSpec", "authOptions"], "secretName", "secret"),
        (["spec", "rayClusterSpec", "workerGroupSpecs", 0], "maxReplicas", "maxReplica"),
        (
            ["spec", "rayClusterSpec", "headGroupSpec", "template", "spec", "containers", 0],
            "envFrom",
            "envfrom",
        ),
    ],
)
def test_a_misspelled_field_is_caught(path: list[str | int], right: str, wrong: str) -> None:
    job = copy.deepcopy(resource("rayjob"))
    at: Any = job
    for step in path:
        at = at[step]
    at[wrong] = at.pop(right)
    place = ".".join(map(str, path))
    said = f"{place}: Additional properties are not allowed ('{wrong}' was unexpected)"
    assert said in complaints(SCHEMAS["rayjob"], job)


def test_a_wrong_value_is_caught() -> None:
    job = copy.deepcopy(resource("rayjob"))
    job["spec"]["rayClusterSpec"]["authOptions"]["mode"] = "tokens"
    place = "spec.rayClusterSpec.authOptions.mode"
    said = f"{place}: 'tokens' is not one of ['disabled', 'token']"
    assert complaints(SCHEMAS["rayjob"], job) == [said]


def test_both_files_describe_the_same_ray() -> None:
    assert ray("rayjob") == ray("raycluster")


def test_a_job_takes_its_ray_along_when_it_ends() -> None:
    assert resource("rayjob")["spec"]["shutdownAfterJobFinishes"] is True


def test_requests_need_a_token_of_a_secret(name: str) -> None:
    assert ray(name)["authOptions"] == {"mode": "token", "secretName": "proxyless-ray-token"}


def test_no_secret_stands_in_a_file(name: str) -> None:
    for mapping in mappings(resource(name)):
        assert not (SECRET.search(str(mapping.get("name", ""))) and "value" in mapping)


def test_every_pod_runs_as_a_user_without_rights(name: str) -> None:
    for pod in pod_specs(resource(name)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 1000
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()
    closed = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert ray(name)["autoscalerOptions"]["securityContext"] == closed
    for container in containers(resource(name)):
        assert container["securityContext"] == closed


def test_every_container_says_what_it_takes(name: str) -> None:
    result = [*containers(resource(name)), ray(name)["autoscalerOptions"]]
    for container in result:
        limits, requests = container["resources"]["limits"], container["resources"]["requests"]
        assert {"cpu", "memory"} <= requests.keys()
        assert limits["memory"] == requests["memory"]


def test_only_the_head_talks_to_the_api_server_and_to_mlflow(name: str) -> None:
    head, *workers = [ray(name)["headGroupSpec"], *ray(name)["workerGroupSpecs"]]
    secrets = [
        [
            item["secretRef"]["name"]
            for item in group["template"]["spec"]["containers"][0]["envFrom"]
        ]
        for group in (head, *workers)
    ]
    assert secrets == [["proxyless-s3", "proxyless-mlflow"], ["proxyless-s3"], ["proxyless-s3"]]
    for group in workers:
        assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_nothing_is_open_to_the_outside(name: str) -> None:
    head = ray(name)["headGroupSpec"]
    assert head.get("serviceType", "ClusterIP") == "ClusterIP"
    assert not head.get("enableIngress")


def nodes(name: str) -> dict[str, Node]:
    """The nodes of a file, as Ray would report them."""
    groups = {"head": ray(name)["headGroupSpec"]}
    groups |= {group["groupName"]: group for group in ray(name)["workerGroupSpecs"]}
    made = {}
    for key, group in groups.items():
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        cpus = float(group["rayStartParams"].get("num-cpus", limits["cpu"]))
        resources = {"CPU": cpus, "GPU": float(limits.get("nvidia.com/gpu", 0))}
        made[key] = Node(key, key, resources, group["labels"], is_driver=key == "head")
    return made


def test_trials_are_kept_off_spot_nodes(name: str) -> None:
    result = nodes(name)
    assert result["gpu-spot"].labels == {MARKET_LABEL: SPOT}
    assert steady_selector(list(result.values())) == {MARKET_LABEL: f"!{SPOT}"}
    assert [key for key, node in result.items() if node.labels[MARKET_LABEL] != SPOT] == [
        "head",
        "gpu",
    ]


def test_a_job_finds_a_gpu_when_it_starts_and_none_of_it_trains_on_the_head(name: str) -> None:
    result = nodes(name)
    least = {group["groupName"]: group["minReplicas"] for group in ray(name)["workerGroupSpecs"]}
    assert result["head"].resources == {"CPU": 0.0, "GPU": 0.0}
    assert sum(result[key].resources["GPU"] * count for key, count in least.items()) == 1


def test_workers_come_and_go(name: str) -> None:
    assert ray(name)["enableInTreeAutoscaling"] is True
    assert ray(name)["autoscalerOptions"]["version"] == "v2"
    for group in ray(name)["workerGroupSpecs"]:
        assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
        assert group["maxReplicas"] > group["minReplicas"]


def test_the_policy_is_about_every_pod_of_the_ray(name: str) -> None:
    (policy,) = documents("kuberay/network.yaml")
    chosen = policy["spec"]["podSelector"]["matchLabels"]
    templates = [
        mapping for mapping in mappings(resource(name)) if "containers" in mapping.get("spec", {})
    ]
    assert len(templates) == len(pod_specs(resource(name)))
    for template in templates:
        assert chosen.items() <= template["metadata"]["labels"].items()
