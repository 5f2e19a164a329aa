"""Tiers of tests; see CONTRIBUTING.md."""

from __future__ import annotations

from typing import Any

import pytest


def slow(*values: Any) -> list[Any]:
    """Values of one parameter whose tests are slow."""
    return [pytest.param(value, marks=pytest.mark.slow) for value in values]
