"""Core tests: one thread, since their tensors are tiny, and no deadline on a busy machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

settings.register_profile("core", deadline=None, database=None, derandomize=True)


@pytest.fixture(autouse=True, scope="package")
def single_thread() -> Iterator[None]:
    threads, profile = torch.get_num_threads(), settings.get_current_profile_name()
    torch.set_num_threads(1)
    settings.load_profile("core")
    yield
    settings.load_profile(profile)
    torch.set_num_threads(threads)
