"""Core tests: one thread, since their tensors are tiny, and no deadline on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# While the tests are collected: a property takes the profile that it was defined under.
settings.register_profile("core", deadline=None, database=None, derandomize=True)
settings.load_profile("core")


@pytest.fixture(autouse=True, scope="package")
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
