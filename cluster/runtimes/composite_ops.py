"""A cache for the composite operators that `torch.export` collects.

Composite operators are those that torch implements in terms of others (dispatch key
CompositeImplicitAutograd). Lowering a module to ExecuTorch collects them five times, which is a
third of its processor time. The result changes only when a library registers operators.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from typing import Any

COLLECT = "_collect_all_valid_cia_ops"

MODULES = ("torch._export.utils", "torch.export.exported_program", "torch.export.decomp_utils")
"""Modules of torch that have the function under this name."""


def cache_composite_ops() -> None:
    """Let this process collect composite operators again only after new ones were registered.

    Does nothing the second time, or if torch has no function of that name.
    """
    import torch.export  # noqa: F401  # loads all of MODULES

    for module in (sys.modules.get(name) for name in MODULES):
        collect = getattr(module, COLLECT, None)
        if collect is not None and not hasattr(collect, "__wrapped__"):
            setattr(module, COLLECT, _cached(collect))


@functools.cache
def _cached(collect: Callable[[], set[Any]]) -> Callable[[], set[Any]]:
    """`collect` behind a cache. As torch asks too, callers must not change the set they get."""
    ops: set[Any] = set()
    collected_at: object = None

    @functools.wraps(collect)
    def cached() -> set[Any]:
        nonlocal ops, collected_at
        if _registered() != collected_at:
            ops = collect()
            collected_at = _registered()  # afterwards: collecting creates Python objects of ops
        return ops

    return cached


def _registered() -> object:
    """Registered composite operators, and the number of operators that have a Python object."""
    import torch

    names = torch._C._dispatch_get_registrations_for_dispatch_key("CompositeImplicitAutograd")
    spaces = [getattr(torch.ops, name) for name in torch.ops._dir]
    return names, [len(getattr(space, "_dir", ())) for space in spaces]
