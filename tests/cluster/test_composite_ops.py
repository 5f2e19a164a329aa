"""The cache of composite operators: what it returns, and when torch collects them again."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
import torch.export

from cluster.runtimes.composite_ops import COLLECT, MODULES, cache_composite_ops

EXPORTED_PROGRAM = "torch.export.exported_program"


@pytest.fixture
def collections(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of operators in each collection that torch makes during the test."""
    result: list[int] = []
    original = _function(EXPORTED_PROGRAM)
    original = getattr(original, "__wrapped__", original)

    def counted() -> set[Any]:
        ops: set[Any] = original()
        result.append(len(ops))
        return ops

    for name in MODULES:
        monkeypatch.setattr(sys.modules[name], COLLECT, counted)
    return result


def _function(module: str) -> Any:
    return getattr(sys.modules[module], COLLECT)


def _decompose() -> str:
    """The graph of a small module, decomposed to core operators."""
    module = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.ReLU6())
    return str(torch.export.export(module, (torch.zeros(2, 3),)).run_decompositions().graph)


@pytest.mark.slow
def test_torch_collects_its_composite_operators_once(collections: list[int]) -> None:
    expected = _decompose()
    assert len(collections) > 1  # without the cache
    cache_composite_ops()
    _decompose()  # may meet operators for the first time
    collections.clear()
    assert _decompose() == expected
    assert collections == []


def test_the_cache_holds_what_torch_collects(collections: list[int]) -> None:
    original = _function(EXPORTED_PROGRAM)
    cache_composite_ops()
    assert _function(EXPORTED_PROGRAM) is not original
    assert _function(EXPORTED_PROGRAM)() == original()
    assert _function("torch.export.decomp_utils") is _function(EXPORTED_PROGRAM)


def test_an_operator_that_is_registered_later_is_found(collections: list[int]) -> None:
    cache_composite_ops()
    collect = _function(EXPORTED_PROGRAM)
    before = collect()
    library = torch.library.Library("composite_ops_test", "DEF")
    try:
        library.define("twice(Tensor x) -> Tensor")
        library.impl("twice", lambda x: x + x, "CompositeImplicitAutograd")
        assert {str(op) for op in collect() - before} == {"composite_ops_test.twice.default"}
    finally:
        library._destroy()


def test_a_torch_without_the_function_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in MODULES:
        monkeypatch.delattr(sys.modules[name], COLLECT)
    cache_composite_ops()
    assert not any(hasattr(sys.modules[name], COLLECT) for name in MODULES)
