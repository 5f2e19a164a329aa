"""The unit tier: when it is selected, and what its tests must not do."""

from __future__ import annotations

import sys
from collections.abc import Generator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from tests.conftest import ALL, COMPILERS, UNIT, pytest_configure
from tests.conftest import pytest_runtest_call as run
from tests.conftest import pytest_runtest_setup as set_up


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["tests"], UNIT),
        (["tests/test_jobs.py"], UNIT),
        (["-m", "ray and not slow", "tests"], "ray and not slow"),
        (["-m", "", "tests"], ALL),
        (["tests/test_jobs.py::test_a_job_file_can_be_planned"], ""),
    ],
)
def test_the_unit_tier_runs_unless_markers_or_tests_are_named(
    arguments: list[str], expected: str
) -> None:
    markers = arguments[1] if arguments[0] == "-m" else ""
    config: Any = SimpleNamespace(
        option=SimpleNamespace(markexpr=markers),
        args=arguments[-1:],
        invocation_params=SimpleNamespace(args=arguments),
    )
    pytest_configure(config)
    assert config.option.markexpr == expected


def a_test(*markers: str) -> Any:
    return SimpleNamespace(
        stash=pytest.Stash(), get_closest_marker=lambda name: name if name in markers else None
    )


def called(item: Any) -> Generator[None, None, None]:
    """The hook around a test, at the moment when the test runs."""
    set_up(item)
    call = run(item)
    next(call)
    return call


@pytest.mark.parametrize("markers", [(), ("slow",)])
def test_a_test_that_lowers_has_to_be_slow(markers: tuple[str, ...]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        for name in COMPILERS:
            patch.delitem(sys.modules, name, raising=False)
        call = called(a_test(*markers))
        patch.setitem(sys.modules, "executorch.exir", ModuleType("executorch.exir"))
        with pytest.raises(StopIteration if markers else pytest.fail.Exception):
            next(call)


@pytest.mark.parametrize("markers", [(), ("ray",)])
def test_a_test_that_starts_a_ray_has_to_be_marked(markers: tuple[str, ...]) -> None:
    running: Any = SimpleNamespace(is_initialized=lambda: True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "ray", running)
        call = called(a_test(*markers))
        with pytest.raises(StopIteration if markers else pytest.fail.Exception):
            next(call)
