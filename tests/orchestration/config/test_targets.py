"""The `targets:` section: new targets, changed ones, and settings that contradict each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from cluster.hardware import TABLE, TARGETS, Phone
from cluster.runtimes import present
from orchestration.config.job import Job
from orchestration.config.loading import SpecError, load_job
from orchestration.planning.plan import make_plan


def job_of(job_file: Path, targets: dict[str, Any], name: str) -> Job:
    values = yaml.safe_load(job_file.read_text())
    values["targets"], values["cases"] = targets, [{"target": name, "budgets_ms": [1.0]}]
    job_file.write_text(yaml.safe_dump(values))
    return load_job(job_file)


def test_a_target_of_ones_own_says_runtime_threads_batch_and_node(job_file: Path) -> None:
    section = {
        "runtime": "onnxruntime",
        "threads": 4,
        "batch": 16,
        "resources": {"big": 1, "node_label": {"zone": "a"}},
    }
    target = job_of(job_file, {"my_server": section}, "my_server").target("my_server")
    assert (target.name, target.runtime, target.device) == ("my_server", "onnxruntime", "cpu")
    assert (target.threads, target.batch_size) == (4, 16)
    assert (target.resources, target.labels) == ({"big": 1}, {"zone": "a"})


def test_a_gpu_is_chosen_by_what_ray_calls_it(job_file: Path) -> None:
    section = {"resources": {"accelerator_type": "H100"}}
    target = job_of(job_file, {"gpu": section}, "gpu").target("gpu")
    assert target.labels == {"ray.io/accelerator-type": "H100"}
    assert target.resources == {"GPU": 1}


def test_a_table_is_another_where_another_node_is_asked_for(job_file: Path) -> None:
    def key(zone: str) -> str:
        section = {"runtime": "onnxruntime", "resources": {"node_label": {"zone": zone}}}
        return make_plan(job_of(job_file, {"mine": section}, "mine")).table_keys["mine"]

    assert key("a") == key("a")
    assert key("a") != key("b")


def test_a_known_target_keeps_what_is_not_said(job_file: Path) -> None:
    target = job_of(job_file, {"gpu": {"precision": "fp16"}}, "gpu").target("gpu")
    assert (target.precision, target.device, target.batch_size) == ("fp16", "cuda", 8)
    assert target.resources == {"GPU": 1}


def test_a_known_target_may_take_another_runtime_and_then_its_device(job_file: Path) -> None:
    job = job_of(job_file, {"cpu": {"runtime": "torch", "threads": 2}}, "cpu")
    target = job.target("cpu")
    assert (target.runtime, target.device, target.threads) == ("torch", "cpu", 2)


def test_without_a_section_a_target_is_the_known_one(job_file: Path) -> None:
    assert job_of(job_file, {}, "cpu").target("cpu") == TARGETS["cpu"]


def test_a_phone_of_ones_own_needs_no_section_phone(job_file: Path) -> None:
    section = {"runtime": "executorch", "device": "android", "stand_in": True}
    target = job_of(job_file, {"mine": section}, "mine").target("mine")
    assert (target.device, target.phone) == ("android", Phone())
    assert present(target).device in ("android", "cpu")


def test_the_phones_runtime_on_this_host_has_no_phone(job_file: Path) -> None:
    target = job_of(job_file, {"mobile": {"device": "cpu"}}, "mobile").target("mobile")
    assert (target.device, target.phone, target.runtime) == ("cpu", None, "executorch")


def test_a_target_with_a_table_is_not_measured(job_file: Path) -> None:
    target = job_of(job_file, {"mine": {"table": "mine.csv"}}, "mine").target("mine")
    assert (target.runtime, target.is_measured) == (TABLE, False)
    assert target.hardware() == "mine (table mine.csv)"


@pytest.mark.parametrize(
    ("targets", "name", "message"),
    [
        (
            {},
            "toaster",
            r"cases\[0\].target is 'toaster'; expected one of cpu, gpu, mobile, pixel1",
        ),
        (
            {"mine": {}},
            "mine",
            r"targets.mine.runtime is None; expected one of executorch, onnxrun",
        ),
        (
            {"cpu": {"runtime": "tflite"}},
            "cpu",
            r"targets.cpu.runtime is 'tflite'; expected one of",
        ),
        ({"cpu": {"thread": 2}}, "cpu", r"targets.cpu.thread is not a setting; did you mean 'thr"),
        (
            {"cpu": {"batch": 0}},
            "cpu",
            r"targets.cpu.batch is 0; expected a whole number of 1 or m",
        ),
        ({"cpu": {"precision": "int8"}}, "cpu", r"precision is 'int8'; .*int8 is not supported"),
        (
            {"cpu": {"precision": "fp16"}},
            "cpu",
            r"precision is 'fp16'; expected one of fp32 with r",
        ),
        (
            {"gpu": {"device": "cpu"}},
            "gpu",
            r"device is 'cpu'; expected one of cuda with runtime t",
        ),
        ({"cpu": {"phone": {}}}, "cpu", r"targets.cpu.phone is .* nothing unless device is andr"),
        (
            {"cpu": {"resources": {"big": 0}}},
            "cpu",
            r"resources.big is 0.*expected an amount above",
        ),
        (
            {"cpu": {"resources": {"node_label": 1}}},
            "cpu",
            r"resources.node_label is 1.*expected labels, e.g. \{zone: a\}",
        ),
        (
            {"cpu": {"resources": {"accelerator_type": 1}}},
            "cpu",
            r"resources.accelerator_type is 1.*expected a name that Ray knows, e.g. H100",
        ),
        (
            {"cpu": {"resources": {"GPU": "one"}}},
            "cpu",
            r"resources.GPU is 'one'; expected an amount above 0",
        ),
        (
            {"cpu": {"table": "a.csv", "threads": 2}},
            "cpu",
            r"targets.cpu.table is 'a.csv'; expected nothing beside it",
        ),
        (
            {"mobile": {"phone": {"cores": "all"}}},
            "mobile",
            r"targets.mobile.phone.cores is 'all'; expected one of 'big', 'little', 'any'",
        ),
    ],
)
def test_what_is_wrong_with_a_target_is_named(
    job_file: Path, targets: dict[str, Any], name: str, message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        job_of(job_file, targets, name)


def test_without_a_phone_this_host_stands_in_where_the_job_allows_it(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    (target,) = make_plan(job_of(job_file, {"mobile": {"stand_in": True}}, "mobile")).targets
    assert (target.device, target.stand_in) == ("cpu", True)
    assert "mobile on host" in target.hardware()


def test_without_a_phone_and_without_leave_the_plan_is_refused(
    job_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(SpecError, match="adb"):
        make_plan(job_of(job_file, {}, "mobile"))
