"""Settings of the core tests: one thread, since tensors are tiny, and no deadlines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from hypothesis import settings

# At import: hypothesis uses the profile that is active when a test is defined.
settings.register_profile("core", deadline=None, database=None, derandomize=True)
settings.load_profile("core")


@pytest.fixture(autouse=True, scope="package")
def single_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
