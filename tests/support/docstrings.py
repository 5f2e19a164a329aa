"""Lint rule for the first word of docstrings.

Run `python -m tests.support.docstrings [FOLDER_OR_FILE ...]`; without arguments it checks all
packages and the tests. A docstring that starts with a preposition, a conjunction or a relative
pronoun ("Of the whole epoch.", "What a worker sends.") makes the reader guess what is described.
Docstrings of modules, classes and functions are checked, and strings below an assignment.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

REPOSITORY = Path(__file__).parents[2]
FOLDERS = ("orchestration", "nas_core", "cluster", "tests")

PREPOSITIONS = """
    About Above Across Against Along Among At Behind Below Beside Besides Between Beyond By During
    For From In Inside Into Of On Onto Outside Over Through To Toward Towards Under Until Up Upon
    With Within Without
"""
CONJUNCTIONS = "After And As Because Before But If Once Or Since So Than Then Though Unless While"
PRONOUNS = "It Its That Their Them These They This Those What Where Which Who Whom Whose When"

REFUSED = frozenset(f"{PREPOSITIONS} {CONJUNCTIONS} {PRONOUNS}".split())
"""First words that are refused, capitalized. "Whether", "How" and "Why" are fine."""

FIRST_WORD = re.compile(r"\s*(?P<word>[A-Za-z]+(?:[-'][A-Za-z]+)*)")
"""First word of a text; a compound such as "In-memory" counts as one word."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


class Finding(NamedTuple):
    """A docstring that begins with a refused word."""

    line: int
    word: str

    def __str__(self) -> str:
        rule = "begin with a noun or a verb that says what it is or does"
        return f"docstring begins with {self.word!r}; {rule}"


def refused_docstrings(source: str) -> Iterator[Finding]:
    """Docstrings in the text of a Python file that begin with a refused word, in line order."""
    for line, text in sorted(_docstrings(ast.parse(source))):
        result = FIRST_WORD.match(text)
        if result and result["word"].capitalize() in REFUSED:
            yield Finding(line, result["word"])


def _docstrings(module: ast.Module) -> Iterator[tuple[int, str]]:
    for node in ast.walk(module):
        if isinstance(node, Documented):
            yield from _own_docstring(node)
            yield from _attribute_docstrings(node.body)


def _own_docstring(node: Documented) -> Iterator[tuple[int, str]]:
    if node.body:
        yield from _string_statement(node.body[0])


def _attribute_docstrings(body: Sequence[ast.stmt]) -> Iterator[tuple[int, str]]:
    for statement, following in pairwise(body):
        if isinstance(statement, ast.Assign | ast.AnnAssign):
            yield from _string_statement(following)


def _string_statement(statement: ast.stmt) -> Iterator[tuple[int, str]]:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        text = statement.value.value
        if isinstance(text, str):
            yield statement.lineno, text


def python_files(paths: Sequence[Path]) -> list[Path]:
    """Python files among `paths` and in their folders, sorted."""
    files = {path for path in paths if path.suffix == ".py"}
    return sorted(files.union(*(path.rglob("*.py") for path in paths if path.is_dir())))


def main(arguments: Sequence[str]) -> int:
    """Print one line per refused docstring; return the exit code.

    Args:
        arguments: folders or files; empty for the packages and the tests.
    """
    paths = [Path(name) for name in arguments] or [REPOSITORY / name for name in FOLDERS]
    missing = [str(path) for path in paths if not path.exists()]
    if missing:
        print(f"no such file or folder: {', '.join(missing)}", file=sys.stderr)
        return 2
    count = 0
    for path in python_files(paths):
        for finding in refused_docstrings(path.read_text(encoding="utf-8")):
            shown = path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path
            print(f"{shown}:{finding.line}: {finding}")
            count += 1
    if count:
        print(f"{count} docstrings to rewrite", file=sys.stderr)
    return int(count > 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
