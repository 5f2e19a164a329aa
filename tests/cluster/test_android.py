"""Android phones: files, runs, timings and errors, through an `adb` that is a script.

The fake prints what the runner of ExecuTorch 1.5 prints; see tests/support/fake_adb.py.
"""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cluster.hardware import Phone, Target
from cluster.runtimes.android import AndroidExecuTorch, core_mask, pinned_cores
from cluster.runtimes.base import MeasurementError
from cluster.runtimes.executor_runner import WARM_UP
from cluster.runtimes.executorch import ExecuTorch
from cluster.runtimes.throttling import MAX_RISE, check_throttling, middle_rise
from cluster.runtimes.timing import Timing, time_calls
from tests.support.fake_adb import FLAGS, FakePhone

IMAGES = torch.zeros(1, 3, 4, 4)


def program(word: str) -> bytes:
    """A fake `.pte` program; the time it takes is set by this word."""
    return b"\x1c\0\0\0ET12" + word.encode()


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    """An attached phone. Its programs `fast`, `slow` and `nothing` take 0.5, 2 and 0.25 ms."""
    fake = FakePhone.plugged_in(tmp_path, monkeypatch.setenv)
    fake.change(ms={"fast": 0.5, "slow": 2.0, "nothing": 0.25})
    return fake


@pytest.fixture
def target(phone: FakePhone) -> Target:
    settings = Phone(runner=str(phone.runner), cool_down_s=7.0)
    return Target(name="mobile", runtime="executorch", device="android", phone=settings)


@pytest.fixture
def host_doubles(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make programs double their input on the host; the fake phone computes nothing."""
    monkeypatch.setattr(ExecuTorch, "load", lambda *_: lambda images: 2 * images)


def changed(target: Target, **phone: Any) -> Target:
    assert target.phone is not None
    return replace(target, phone=replace(target.phone, **phone))


def timed(runtime: AndroidExecuTorch, *words: str, rounds: int = 3) -> list[Timing]:
    calls = [runtime.load(program(word)).prepared(IMAGES) for word in words]
    return time_calls(
        calls,
        rounds=rounds,
        sample_ms=2.0,
        samples_per_round=1,
        run_ms=runtime.run_ms,
        rest=runtime.rest,
    )


def test_programs_inputs_and_the_runner_are_sent_once(phone: FakePhone, target: Target) -> None:
    for runtime in (AndroidExecuTorch(target), AndroidExecuTorch(target)):
        for word in ("fast", "slow", "fast"):
            runtime.load(program(word)).prepared(IMAGES)
    fast, slow = (hashlib.sha256(program(word)).hexdigest() for word in ("fast", "slow"))
    assert len(phone.said("push")) == len(phone.files()) == 4
    assert {f"{fast}.pte", f"{slow}.pte"} < phone.files()


def test_as_many_executions_are_run_as_asked_after_a_warm_up(
    phone: FakePhone, target: Target
) -> None:
    runtime = AndroidExecuTorch(replace(target, threads=2))
    call = runtime.load(program("fast")).prepared(IMAGES)
    call()
    runtime.run_ms(call, 25)
    asked = ["1 threads 2 bytes 192", f"{WARM_UP + 25} threads 2 bytes 192"]
    assert phone.runs() == [f"executions {line}" for line in asked]


def test_a_run_takes_what_the_phone_says_without_its_warm_up(
    phone: FakePhone, target: Target
) -> None:
    phone.change(first=15.0)
    runtime = AndroidExecuTorch(target)
    call = runtime.load(program("slow")).prepared(IMAGES)
    assert runtime.run_ms(call, 3) == pytest.approx(6.0)


@pytest.mark.slow
def test_medians_and_the_rest_between_rounds_are_known(phone: FakePhone, target: Target) -> None:
    slept: list[float] = []
    timings = timed(AndroidExecuTorch(target, sleep=slept.append), "fast", "slow", "nothing")
    assert [timing.median_ms for timing in timings] == pytest.approx([0.5, 2.0, 0.25])
    assert [timing.rise for timing in timings] == pytest.approx([1, 1, 1])
    assert slept == [7.0, 7.0]


@pytest.mark.slow
def test_a_phone_that_throttles_is_refused_with_figures(phone: FakePhone, target: Target) -> None:
    runtime = AndroidExecuTorch(target, sleep=lambda _: phone.change(factor=1.34))
    timings = timed(runtime, "fast", "slow", rounds=2)
    with pytest.raises(MeasurementError) as refused:
        check_throttling(timings, "pixel")
    assert str(refused.value) == (
        "the phone throttles: of 2 programs the one in the middle has later medians 34% above the "
        "first, the worst 34%; expected no more than 10% above the first; let it cool down, raise "
        "targets.pixel.phone.cool_down_s"
    )


def test_one_noisy_program_is_no_throttling() -> None:
    calm = Timing(median_ms=1, p10_ms=1, p90_ms=1, spread=0, rise=1.09, count=15)
    assert middle_rise([calm, replace(calm, rise=3.0), calm]) == 1.09 < MAX_RISE
    assert middle_rise([calm, replace(calm, rise=3.0), replace(calm, rise=1.2)]) == 1.2 > MAX_RISE
    assert middle_rise([]) == 1.0


@pytest.mark.parametrize(("cores", "mask"), [("big", "c0"), ("little", "f")])
def test_the_runner_is_pinned_to_the_cores_by_a_mask(
    phone: FakePhone, target: Target, cores: str, mask: str
) -> None:
    runtime = AndroidExecuTorch(changed(target, cores=cores))
    runtime.load(program("fast")).prepared(IMAGES)()
    assert phone.masks() == [mask]


def test_on_any_cores_nothing_is_pinned(phone: FakePhone, target: Target) -> None:
    runtime = AndroidExecuTorch(changed(target, cores="any"))
    runtime.load(program("fast")).prepared(IMAGES)()
    assert (phone.masks(), len(phone.runs())) == ([], 1)


def test_masks_are_hexadecimal_without_a_prefix() -> None:
    assert [core_mask(cores) for cores in ([], [0], [7], [4, 5, 6, 7])] == ["", "1", "80", "f0"]


def test_a_single_fast_core_is_big_alone() -> None:
    max_khz = {0: 1_800_000, 1: 1_800_000, 2: 2_400_000, 10: 3_000_000}
    result = {cores: pinned_cores(max_khz, cores) for cores in ("big", "little", "any")}
    assert result == {"big": [10], "little": [0, 1], "any": []}


def test_facts_tell_the_phone_and_how_warm_it_is(phone: FakePhone, target: Target) -> None:
    runtime = AndroidExecuTorch(target)
    assert runtime.facts() == {
        "phone": "Pixel 4",
        "android": "11",
        "soc": "msmnile",
        "core_ghz": "4 x 1.80, 2 x 2.40, 2 x 2.85",
        "pinned_cores": "6,7",
        "battery_c": 28.7,
    }


def test_a_runtime_asks_for_no_phone_before_it_needs_one(phone: FakePhone, target: Target) -> None:
    assert AndroidExecuTorch(target).version().startswith("1.5")
    assert phone.said("devices") == []


def test_an_answer_is_that_of_the_phone_in_the_shape_of_the_host(
    phone: FakePhone, target: Target, tmp_path: Path, host_doubles: None
) -> None:
    said = torch.randn(IMAGES.shape)
    (tmp_path / "answer").write_bytes(said.numpy().tobytes())
    phone.change(answer=str(tmp_path / "answer"))
    answer = AndroidExecuTorch(target).load(program("fast"))(IMAGES)
    assert torch.equal(answer, said)


def test_images_are_sent_as_the_program_takes_them(phone: FakePhone, target: Target) -> None:
    images = torch.arange(48.0).reshape(1, 3, 4, 4)
    loaded = AndroidExecuTorch(target).load(program("fast"))
    loaded.prepared(images.to(memory_format=torch.channels_last))
    assert images.numpy().tobytes() in phone.contents()


@pytest.mark.slow  # imports the compiler
def test_programs_are_those_of_the_host(phone: FakePhone, target: Target, tmp_path: Path) -> None:
    runtime, images = AndroidExecuTorch(target), torch.randn(1, 3, 8, 8)
    module, said = nn.Conv2d(3, 2, 3).eval(), torch.randn(1, 2, 6, 6)
    code = runtime.compile(module, images)
    torch.testing.assert_close(ExecuTorch(target).load(code)(images), module(images).detach())
    (tmp_path / "answer").write_bytes(said.numpy().tobytes())
    phone.change(answer=str(tmp_path / "answer"))
    torch.testing.assert_close(runtime.load(code)(images), said, atol=0, rtol=0)


def test_an_answer_needs_a_runner_that_writes_it(phone: FakePhone, target: Target) -> None:
    phone.change(flags={name: FLAGS[name] for name in FLAGS if name != "output_file"})
    loaded = AndroidExecuTorch(target).load(program("fast"))
    loaded.prepared(IMAGES)()
    with pytest.raises(MeasurementError, match="does not know --output_file"):
        loaded(IMAGES)


def test_bytes_that_are_no_program_are_refused(phone: FakePhone, target: Target) -> None:
    with pytest.raises(MeasurementError, match=r"no program of ExecuTorch's; compile it again"):
        AndroidExecuTorch(target).load(b"no program" * 100)


def test_more_threads_than_cores_are_refused(phone: FakePhone, target: Target) -> None:
    with pytest.raises(MeasurementError) as refused:
        AndroidExecuTorch(replace(target, threads=4)).load(program("fast"))
    assert str(refused.value) == (
        "targets.mobile.threads is 4, but phone R58N12ABCDE has 2 big cores; lower it, or set "
        "targets.mobile.phone.cores to any"
    )


def test_cores_of_unknown_frequency_are_not_guessed(phone: FakePhone, target: Target) -> None:
    shutil.rmtree(phone.folder / "sys")
    with pytest.raises(MeasurementError) as refused:
        AndroidExecuTorch(target).facts()
    assert str(refused.value) == (
        "targets.mobile.phone.cores is 'big', but phone R58N12ABCDE does not tell the frequencies "
        "of its cores; set targets.mobile.phone.cores to any"
    )
    anywhere = AndroidExecuTorch(changed(target, cores="any")).facts()
    assert (anywhere["core_ghz"], anywhere["pinned_cores"]) == ("unknown", "none")


def test_an_answer_of_another_size_is_refused(
    phone: FakePhone, target: Target, tmp_path: Path, host_doubles: None
) -> None:
    (tmp_path / "answer").write_bytes(b"1234")
    phone.change(answer=str(tmp_path / "answer"))
    loaded = AndroidExecuTorch(target).load(program("fast"))
    with pytest.raises(MeasurementError, match="answers 4 bytes, this host 192"):
        loaded(IMAGES)
