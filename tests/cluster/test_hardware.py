"""Targets and the properties of this machine."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, replace

import pytest

from cluster.hardware import TARGETS, Target, facts
from cluster.runtimes import RUNTIMES


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_knows_its_name_and_a_runtime(name: str) -> None:
    assert TARGETS[name].name == name
    assert TARGETS[name].runtime in RUNTIMES or not TARGETS[name].is_measured


def test_a_target_with_a_table_that_ships_is_not_measured() -> None:
    assert [name for name, target in TARGETS.items() if not target.is_measured] == ["pixel1"]
    assert not TARGETS["pixel1"].stand_in


@pytest.mark.parametrize(
    ("machine", "hardware"),
    [
        ("x86_64", "mobile on host x86-64 (XNNPACK)"),
        ("aarch64", "mobile on host arm64 (XNNPACK)"),
        ("riscv64", "mobile on host riscv64 (XNNPACK)"),
    ],
)
def test_a_stand_in_is_named(monkeypatch: pytest.MonkeyPatch, machine: str, hardware: str) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert TARGETS["mobile"].on_host().hardware() == hardware


def test_the_hardware_itself_needs_no_host() -> None:
    assert TARGETS["mobile"].hardware() == "mobile (XNNPACK)"


def test_facts_can_be_recorded() -> None:
    result = json.loads(json.dumps(facts()))
    assert result.keys() == {"cpu", "cores", "memory_gb", "machine", "os"}
    assert result["cpu"]
    assert 1 <= result["cores"] <= (os.cpu_count() or 1)
    assert result["memory_gb"] > 0


def test_a_number_format_that_is_not_usual_is_named() -> None:
    assert replace(TARGETS["gpu"], precision="fp16").hardware() == "gpu (torch CUDA graphs, fp16)"


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_survives_json(name: str) -> None:
    target = TARGETS[name]
    assert Target.from_dict(json.loads(json.dumps(asdict(target)))) == target


def test_where_a_node_is_found_does_not_change_what_latencies_depend_on() -> None:
    elsewhere = replace(TARGETS["cpu"], resources={"big": 1.0}, labels={"zone": "a"})
    assert elsewhere.key() == TARGETS["cpu"].key()
    assert replace(TARGETS["cpu"], threads=2).key() != TARGETS["cpu"].key()
