"""The cluster configuration for AWS: valid for Ray, and closed, as far as a mock can show."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import jsonschema
import moto
import pytest

from cluster.placement import MARKET_LABEL, SPOT
from tests.support.deployment_files import documents

REGION = "us-east-1"


@pytest.fixture
def prepared() -> dict[str, Any]:
    """The file with Ray's defaults filled in, as `ray up` does first."""
    from ray.autoscaler._private.util import prepare_config

    (values,) = documents("aws.yaml")
    made: dict[str, Any] = prepare_config(values)
    return made


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """Mocked EC2 of an empty account."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)
    monkeypatch.setenv("HOME", str(tmp_path))  # Ray stores the ssh key there
    (tmp_path / ".ssh").mkdir()
    with moto.mock_aws():
        yield boto3.resource("ec2", region_name=REGION)


@pytest.mark.parametrize("place", [[], ["docker"], ["available_node_types", "gpu-spot"]])
def test_the_file_is_right_for_ray_and_a_misspelled_setting_of_it_is_caught(
    prepared: dict[str, Any], place: list[str]
) -> None:
    from ray.autoscaler._private.util import validate_config

    assert validate_config(prepared) is None  # it raises if something is wrong
    at = prepared
    for step in place:
        at = at[step]
    at["max_wokers"] = 1
    with pytest.raises(jsonschema.ValidationError, match="'max_wokers' was unexpected"):
        validate_config(prepared)


def test_the_head_stays_and_workers_are_spot(prepared: dict[str, Any]) -> None:
    types = prepared["available_node_types"]
    head, spot = types[prepared["head_node_type"]], types["gpu-spot"]
    assert "InstanceMarketOptions" not in head["node_config"]
    assert spot["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert head["labels"][MARKET_LABEL] != SPOT == spot["labels"][MARKET_LABEL]
    assert head["resources"] == {"CPU": 0}
    assert 1 <= spot["min_workers"] < spot["max_workers"] <= prepared["max_workers"]


def test_the_dashboard_is_on_the_head_alone_and_asks_for_the_token(
    prepared: dict[str, Any],
) -> None:
    commands = prepared["head_start_ray_commands"] + prepared["worker_start_ray_commands"]
    starts = [command for command in commands if "ray start" in command]
    assert len(starts) == 2
    assert all("RAY_AUTH_MODE=token ray start" in command for command in starts)
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert list(prepared["file_mounts"].values()) == ["~/.ray/auth_token"]


def test_the_token_lies_where_the_user_of_the_image_looks_for_it(
    prepared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    from cluster.jobs_api import _token_path

    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("HOME", "/home/ray")
    assert list(prepared["file_mounts"]) == [str(_token_path())]


@pytest.mark.slow
def test_no_group_is_made_that_lets_the_world_in(prepared: dict[str, Any], aws: Any) -> None:
    """Ray creates one for nodes that do not name any, with ssh open to everybody."""
    from ray.autoscaler._private.aws.config import bootstrap_aws

    own = _own_things(prepared, aws)
    before = {group.id for group in aws.security_groups.all()}
    ready = bootstrap_aws(prepared)
    assert {group.id for group in aws.security_groups.all()} == before
    for node in ready["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == [own]
    assert aws.SecurityGroup(own).ip_permissions == []


@pytest.mark.slow
def test_nodes_can_be_started_as_they_are_described(prepared: dict[str, Any], aws: Any) -> None:
    from ray.autoscaler._private.aws.config import bootstrap_aws

    _own_things(prepared, aws)
    ready = bootstrap_aws(prepared)
    for name, node in ready["available_node_types"].items():
        words = dict(node["node_config"])
        (made,) = aws.create_instances(
            MinCount=1, MaxCount=1, SubnetId=words.pop("SubnetIds")[0], **words
        )
        assert made.iam_instance_profile["Arn"].endswith("head" if name == "head" else "worker")
        assert made.metadata_options["HttpTokens"] == "required"
        assert (made.instance_lifecycle == "spot") is (name == "gpu-spot")


def _own_things(prepared: dict[str, Any], aws: Any) -> str:
    """Create the resources of cluster/README.md; add the group to the file and return it."""
    iam = boto3.client("iam", region_name=REGION)
    for node in prepared["available_node_types"].values():
        name = node["node_config"]["IamInstanceProfile"]["Name"]
        iam.create_instance_profile(InstanceProfileName=name)
    (vpc,) = aws.vpcs.all()
    group = aws.create_security_group(GroupName="proxyless", Description="own", VpcId=vpc.id)
    for node in prepared["available_node_types"].values():
        assert node["node_config"]["SecurityGroupIds"] == ["sg-00000000000000000"]
        node["node_config"]["SecurityGroupIds"] = [group.id]
    return str(group.id)
