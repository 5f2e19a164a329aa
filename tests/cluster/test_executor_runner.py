"""`executor_runner`: parsing its output, and errors if it lacks something."""

from __future__ import annotations

from pathlib import Path

import pytest

from cluster.hardware import Phone
from cluster.runtimes.adb import Adb
from cluster.runtimes.base import MeasurementError, ProgramError
from cluster.runtimes.executor_runner import WARM_UP, Runner, runner_file, timed_ms
from tests.support.fake_adb import FLAGS, SERIAL, FakePhone

PRINTED = """\
I 00:00:00.000857 executorch:executor_runner.cpp:624] Model loaded in 0.196722 ms.
I 00:00:00.000932 executorch:executor_runner.cpp:779] Iteration 1 of 12: 0.052418 ms
I 00:00:00.000940 executorch:executor_runner.cpp:779] Iteration 2 of 12: 0.004426 ms
I 00:00:00.000946 executorch:executor_runner.cpp:779] Iteration 3 of 12: 0.003495 ms
I 00:00:00.000953 executorch:executor_runner.cpp:779] Iteration 4 of 12: 0.003500 ms
I 00:00:00.000960 executorch:executor_runner.cpp:779] Iteration 5 of 12: 0.003500 ms
I 00:00:00.000967 executorch:executor_runner.cpp:779] Iteration 6 of 12: 0.003500 ms
I 00:00:00.000974 executorch:executor_runner.cpp:779] Iteration 7 of 12: 0.003500 ms
I 00:00:00.000981 executorch:executor_runner.cpp:779] Iteration 8 of 12: 0.003500 ms
I 00:00:00.000988 executorch:executor_runner.cpp:779] Iteration 9 of 12: 0.003500 ms
I 00:00:00.000995 executorch:executor_runner.cpp:779] Iteration 10 of 12: 0.003500 ms
I 00:00:00.001002 executorch:executor_runner.cpp:779] Iteration 11 of 12: 0.003510 ms
I 00:00:00.001009 executorch:executor_runner.cpp:779] Iteration 12 of 12: 0.003520 ms
I 00:00:00.001016 executorch:executor_runner.cpp:789] Model executed successfully 12 time(s) in \
0.091869 ms.
I 00:00:00.001018 executorch:executor_runner.cpp:798] 1 outputs:
"""


@pytest.fixture
def phone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakePhone:
    return FakePhone.plugged_in(tmp_path, monkeypatch.setenv)


def runner(phone: FakePhone) -> Runner:
    return Runner(Adb(SERIAL), phone.runner, threads=1)


def printed(phone: FakePhone, times: int) -> str:
    on_phone = runner(phone)
    return on_phone.run(on_phone.adb.send(b"code", ".pte"), on_phone.adb.send(b"", ".bin"), times)


def test_the_warm_up_is_taken_off_the_total() -> None:
    assert WARM_UP == 10
    assert timed_ms(PRINTED, 2) == pytest.approx(0.003510 + 0.003520, abs=1e-9)


def test_lines_that_are_read_twice_count_once() -> None:
    assert timed_ms(PRINTED + PRINTED, 2) == pytest.approx(timed_ms(PRINTED, 2))


def test_only_the_lines_that_are_read_come_from_the_phone(phone: FakePhone) -> None:
    lines = printed(phone, 1000).splitlines()
    assert len(lines) == WARM_UP + 20
    assert timed_ms("\n".join(lines), 1000 - WARM_UP) == pytest.approx(990.0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        PRINTED.replace("12 time(s)", "11 time(s)"),
        PRINTED.replace("Iteration", "Run"),
        PRINTED.replace("Model executed", "Stopped"),
    ],
)
def test_a_timing_of_anything_else_is_refused(text: str) -> None:
    with pytest.raises(MeasurementError, match="printed no timing of 12 executions"):
        timed_ms(text, 2)


def test_a_runner_that_prints_nothing_is_refused_with_what_to_build(phone: FakePhone) -> None:
    phone.change(is_silent=True)
    with pytest.raises(MeasurementError) as refused:
        timed_ms(printed(phone, 15), 5)
    assert str(refused.value) == (
        "the runner printed no timing of 15 executions (last lines: none); expected ExecuTorch's "
        "`executor_runner`, built for Android with XNNPACK and -DEXECUTORCH_PAL_DEFAULT=posix, "
        "see cluster/runtimes/executor_runner.py"
    )


def test_a_crash_tells_its_exit_code_and_the_last_lines(phone: FakePhone) -> None:
    phone.change(exit_code=134)
    with pytest.raises(ProgramError) as crashed:  # a ProgramError, since other programs may run
        printed(phone, 15)
    head, _, rest = str(crashed.value).partition(", last lines: ")
    assert head == f"the program crashed on phone {SERIAL} with exit code 134 (SIGABRT)"
    assert rest.endswith(
        "assert failed (method.ok()): Loading of method failed with status 0x20; see that the "
        "runner is of the ExecuTorch that compiles, and has XNNPACK"
    )


def test_a_runner_that_is_not_named_is_refused() -> None:
    with pytest.raises(MeasurementError) as refused:
        runner_file(Phone(), "pixel")
    assert str(refused.value) == (
        "targets.pixel.phone.runner is not set; expected the path of ExecuTorch's "
        "`executor_runner`, built for Android with XNNPACK and -DEXECUTORCH_PAL_DEFAULT=posix, "
        "see cluster/runtimes/executor_runner.py"
    )


def test_a_runner_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="which is no file on this machine; expected Exec"):
        runner_file(Phone(runner=str(tmp_path)))


def test_a_runner_for_another_processor_is_refused(phone: FakePhone) -> None:
    phone.runner.write_text("#!/nowhere/to/be/found\n")
    with pytest.raises(MeasurementError, match=f"does not start on phone {SERIAL}.*not found"):
        runner(phone)


def test_a_runner_that_lacks_a_flag_is_refused(phone: FakePhone) -> None:
    old = ("inputs", "model_path", "num_executions", "output_file")
    phone.change(flags={name: FLAGS[name] for name in old})
    with pytest.raises(
        MeasurementError, match=r"does not know --cpu_threads, --print_output; expected Exec"
    ):
        runner(phone)
