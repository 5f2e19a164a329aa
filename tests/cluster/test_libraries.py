"""Requirements agree between pyproject.toml and the messages about missing libraries."""

from __future__ import annotations

import tomllib

import pytest

from cluster.runtimes.libraries import EXTRAS, REQUIREMENTS
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", EXTRAS)
def test_a_library_is_required_as_its_extra_says(name: str) -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    assert REQUIREMENTS[name] in project["optional-dependencies"][EXTRAS[name]]


@pytest.mark.parametrize("name", REQUIREMENTS.keys() - EXTRAS.keys())
def test_a_library_without_an_extra_is_always_required(name: str) -> None:
    assert REQUIREMENTS[name] in (REPOSITORY / "requirements.txt").read_text().splitlines()
