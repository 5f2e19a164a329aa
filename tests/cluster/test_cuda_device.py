"""Parsing of `nvidia-smi`: texts of its format, and a script in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cluster.runtimes.cuda_device import SMI_FIELDS, read_smi, smi_facts, why_no_gpu

FIRST = "GPU-8a56a4bc-1e2f-4b6d-9f0a-3c5d7e9f1b2d"
SECOND = "GPU-0f6c2d1e-77aa-4c3b-8d5e-6f7a8b9c0d1e"

H100 = f"{FIRST}, 580.159.04, 345, 1980, 2619, 2619, 700.00, Enabled, Enabled, 31\n"
TWO = f"{FIRST}, 535.54, 1410, 1410, 1215, 1215, 400.00, Enabled, Enabled, 45\n" + (
    f"{SECOND}, 535.54, 210, 1410, 1215, 1215, 250.00, Disabled, Disabled, 28\n"
)
LAPTOP = f"{FIRST}, 550.120, 210, 2100, 405, 7001, [N/A], Disabled, [N/A], 44\n"
MUTE = f"{FIRST}, 550.120, [Unknown Error], [N/A], N/A, [Not Supported], [N/A], Enabled, [N/A], 44"


def play(monkeypatch: pytest.MonkeyPatch, folder: Path, script: str | None) -> None:
    """Make `script` the only nvidia-smi that can be found."""
    monkeypatch.setenv("PATH", str(folder))
    if script is not None:
        program = folder / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


def test_facts_carry_their_units() -> None:
    assert read_smi(H100, FIRST) == {
        "driver": "580.159.04",
        "sm_clock_mhz": 345,
        "sm_clock_max_mhz": 1980,
        "memory_clock_mhz": 2619,
        "memory_clock_max_mhz": 2619,
        "power_limit_w": 700.0,
        "persistence_mode": "Enabled",
        "ecc": "Enabled",
        "temperature_c": 31,
    }


def test_a_driver_version_is_no_number() -> None:
    assert read_smi(TWO, FIRST)["driver"] == "535.54"


def test_of_several_gpus_the_one_that_torch_uses_is_told() -> None:
    # As under CUDA_VISIBLE_DEVICES=1: torch's first device is the second here.
    result = read_smi(TWO, SECOND)
    assert (result["power_limit_w"], result["temperature_c"]) == (250.0, 28)


def test_what_a_gpu_does_not_tell_is_left_out() -> None:
    assert SMI_FIELDS.keys() - read_smi(LAPTOP, FIRST).keys() == {"power_limit_w", "ecc"}
    assert read_smi(MUTE, FIRST).keys() == {"driver", "persistence_mode", "temperature_c"}


@pytest.mark.parametrize("text", ["", "\n", TWO])
def test_a_gpu_that_is_not_listed_is_said_to_be(text: str) -> None:
    assert read_smi(text, "GPU-other") == {"nvidia_smi": "lists no GPU-other"}


def test_nvidia_smi_is_asked_for_numbers_without_units(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play(monkeypatch, tmp_path, f"echo \"$@\" > {tmp_path}/asked; printf '%s' '{H100}'")
    assert smi_facts(FIRST) == read_smi(H100, FIRST)
    query, form = (tmp_path / "asked").read_text().split()
    assert query.startswith("--query-gpu=uuid,driver_version,clocks.current.sm,clocks.max.sm,")
    assert form == "--format=csv,noheader,nounits"


def test_a_machine_without_nvidia_smi_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    play(monkeypatch, tmp_path, None)
    assert smi_facts(FIRST) == {"nvidia_smi": "not found"}


def test_a_failure_of_nvidia_smi_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    line = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    play(monkeypatch, tmp_path, f'echo "{line}"; exit 9')
    assert smi_facts(FIRST) == {"nvidia_smi": f"exit status 9: {line}"}


def test_nvidia_smi_that_does_not_answer_is_not_waited_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("cluster.runtimes.cuda_device.SMI_TIMEOUT_S", 0.2)
    play(monkeypatch, tmp_path, "exec /bin/sleep 30")
    assert "timed out" in str(smi_facts(FIRST)["nvidia_smi"])


def test_a_torch_without_cuda_is_the_reason_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    assert why_no_gpu() == f"torch {torch.__version__} is built without CUDA"


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a CUDA device")
@pytest.mark.skipif(torch.version.cuda is None, reason="needs a CUDA build of torch")
def test_the_reason_is_short_and_in_the_words_of_torch() -> None:
    reason = why_no_gpu()
    assert reason
    assert "http" not in reason
