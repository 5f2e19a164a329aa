"""The lint rule for the first word of docstrings."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.docstrings import main, python_files, refused_docstrings

MODULE = '''"""Of images."""

LIMIT = 3
"""Those that fit."""

rate: float = 0.1
"""Learning rate."""


class Epoch:
    """What passed."""

    seconds: float
    """By the clock."""
    steps: int
    """Weight steps."""

    async def wait(self) -> None:
        """Until the end."""


def epochs() -> int:
    """Number of epochs."""
    count = 3
    """Where the count is kept."""
    return count
'''


def test_docstrings_of_modules_classes_functions_and_attributes_are_found() -> None:
    result = [(finding.line, finding.word) for finding in refused_docstrings(MODULE)]
    assert result == [
        (1, "Of"),
        (4, "Those"),
        (11, "What"),
        (14, "By"),
        (19, "Until"),
        (25, "Where"),
    ]


@pytest.mark.parametrize(
    "text",
    [
        "Latency of a network.",
        "Whether the site can be skipped.",
        "How to reach the cluster.",
        "In-memory data set.",
        "By-products of a run.",
        "Official weights.",
        "`in` as a word.",
        "(N, C), float32.",
        "",
        "\n    Latency of a network.\n    ",
    ],
)
def test_a_noun_or_a_verb_passes(text: str) -> None:
    assert not list(refused_docstrings(f'"""{text}"""'))


@pytest.mark.parametrize(
    "text", ["of images", "\n    With a runner.\n    ", "If, and only if, so."]
)
def test_case_and_surrounding_space_do_not_hide_a_word(text: str) -> None:
    assert len(list(refused_docstrings(f'"""{text}"""'))) == 1


@pytest.mark.parametrize(
    "source",
    [
        'print(1)\n"""What follows a call is no docstring."""',
        "TEXT = '''What a value says is its own matter.'''",
        'LIMIT = 3\nf"""Of {LIMIT}."""',
        'LIMIT = 3\nb"""Of bytes."""',
    ],
)
def test_other_strings_are_left_alone(source: str) -> None:
    assert not list(refused_docstrings(source))


def test_the_message_names_file_line_word_and_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.py").write_text('"""Latency of a network."""')
    (tmp_path / "bad.py").write_text('"""Latency."""\nLIMIT = 3\n"""Of images."""')
    assert main(["."]) == 1
    assert capsys.readouterr().out == (
        "bad.py:3: docstring begins with 'Of'; "
        "begin with a noun or a verb that says what it is or does\n"
    )
    assert main(["good.py"]) == 0


def test_a_folder_that_does_not_exist_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "missing")]) == 2
    assert "missing" in capsys.readouterr().err


def test_files_are_listed_once_and_only_python(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("b.py", "a.py", "sub/c.py", "notes.md"):
        (tmp_path / name).write_text("")
    files = python_files([tmp_path, tmp_path / "a.py"])
    assert [path.name for path in files] == ["a.py", "b.py", "c.py"]
