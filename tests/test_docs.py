"""The pages: their links, the jobs and commands that they show, and the quick start as it stands.

A YAML block of a page is a job file or a part of one. A part, which lacks `name`, `data` or
`cases`, is loaded with the sections that it lacks taken from `jobs/search_mobile.yaml`. Under
`cluster/`, blocks without a section of a job file are deployment files and only have to be YAML.
"""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import create_autospec

import pytest
import typer.main
import yaml

import orchestration
from orchestration.cli.app import app
from orchestration.config.job import Job
from orchestration.config.loading import load_job
from orchestration.reports.sweep_result import SweepResult
from tests.conftest import REPOSITORY
from tests.support.markdown import anchor_of, code_blocks, headings, indented_lines, links


def pages() -> list[Path]:
    """Markdown files of the repository, new ones included."""
    words = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"]
    result = subprocess.run(words, cwd=REPOSITORY, capture_output=True, text=True, check=True)
    return [path for name in result.stdout.split() if (path := REPOSITORY / name).exists()]


PAGES = pages()
README = (REPOSITORY / "README.md").read_text()


def named(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def broken_links(page: Path) -> list[str]:
    return [link for link in links(page.read_text()) if not leads_somewhere(page, link)]


def leads_somewhere(page: Path, link: str) -> bool:
    """Whether a link leads to a file or folder, and its anchor to a heading or a line of that."""
    if re.match(r"[a-z][a-z0-9+.-]*:", link):
        return True  # another site
    name, _, anchor = link.partition("#")
    file = (page.parent / name).resolve() if name else page
    if not file.exists() or not file.is_relative_to(REPOSITORY):
        return False
    if not anchor:
        return True
    if file.is_dir():
        file /= "README.md"
    if file.suffix == ".md":
        return anchor in {heading.anchor for heading in headings(file.read_text())}
    number = re.fullmatch(r"L(\d+)", anchor)
    return number is not None and 1 <= int(number[1]) <= len(file.read_text().splitlines())


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_link_leads_to_a_file_and_a_heading_of_it(page: Path) -> None:
    assert not broken_links(page)


def test_links_that_lead_nowhere_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "REPOSITORY", tmp_path)
    (tmp_path / "data.json").write_text("{}\n")
    page = tmp_path / "page.md"
    good = ["page.md", "#two-words", "data.json#L1", "https://example.com/x"]
    bad = ["gone.md", "#none", "data.json#L2", "../outside.md"]
    text = "\n".join(f"[a `b`]({link})" for link in [*good, *bad])
    page.write_text(f"# Two words\n{text}\n`[no](link)`\n```sh\n[no](link)\n```\n")
    assert broken_links(page) == bad


@pytest.mark.parametrize(
    ("title", "anchor"),
    [
        ("Contributing, licence, citation", "contributing-licence-citation"),
        ("nas_core: the method", "nas_core-the-method"),
        ("Differences from [the paper](x.md)", "differences-from-the-paper"),
        ("`make test` & friends", "make-test--friends"),
    ],
)
def test_anchors_are_those_of_code_hosts(title: str, anchor: str) -> None:
    assert anchor_of(title) == anchor


def test_a_heading_that_stands_twice_gets_a_number() -> None:
    text = "# A\n## B\n```sh\n# no heading\n```\n## B\n"
    assert [heading.anchor for heading in headings(text)] == ["a", "b", "b-1"]


SECTIONS = {field.name for field in dataclasses.fields(Job)}
WHOLE = {"name", "data", "cases"}
"""Keys of a whole job; a block that lacks one is a part of a job."""


def yaml_blocks() -> list[Any]:
    return [
        pytest.param(page, block.text, id=f"{named(page)}:{block.line}")
        for page in PAGES
        for block in code_blocks(page.read_text())
        if block.language in ("yaml", "yml")
    ]


@pytest.mark.parametrize(("page", "text"), yaml_blocks())
def test_a_yaml_block_is_a_job(page: Path, text: str, tmp_path: Path) -> None:
    documents = list(yaml.safe_load_all(text))
    keys = {key for document in documents for key in document}
    if page.is_relative_to(REPOSITORY / "cluster") and not keys & SECTIONS:
        return
    file = tmp_path / "job.yaml"
    if not keys >= WHOLE:
        usual = yaml.safe_load((REPOSITORY / "jobs/search_mobile.yaml").read_text())
        text = yaml.safe_dump({**usual, **documents[0]})
    file.write_text(text)
    assert load_job(file).cases


def test_the_readme_is_short() -> None:
    assert len(README.splitlines()) <= 200


NAS_CORE = REPOSITORY / "nas_core"


def reading_order() -> list[str]:
    """Files of nas_core as its page lists them."""
    text = (NAS_CORE / "README.md").read_text()
    return re.findall(r"^\d+\. \[([\w/]+\.py)\]\(\1\): ", text, re.M)


def test_the_page_of_the_method_lists_every_file_once() -> None:
    files = [path.relative_to(NAS_CORE).as_posix() for path in NAS_CORE.rglob("*.py")]
    assert sorted(reading_order()) == sorted(name for name in files if "__init__" not in name)


def test_files_of_the_method_import_only_files_above_them_in_the_list() -> None:
    order = reading_order()
    for number, name in enumerate(order):
        imported = set(re.findall(r"^ *from nas_core\.([\w.]+) import", _source(name), re.M))
        below = {item.removesuffix(".py").replace("/", ".") for item in order[number:]}
        assert not imported & below, name


def _source(name: str) -> str:
    return (NAS_CORE / name).read_text()


def commands(page: Path) -> Iterator[list[str]]:
    """Words of every command in the shell blocks of a page, without comments."""
    text = page.read_text()
    lines = indented_lines(text)
    for block in code_blocks(text):
        if block.language in ("sh", "bash", "shell", "console"):
            lines += block.text.replace("\\\n", " ").splitlines()
    for line in lines:
        for item in re.split(r"&&|\|\||;|\|", line.partition(" #")[0].removeprefix("$ ")):
            yield _words(item)


def _words(command: str) -> list[str]:
    """A command whose quotes do not close was split inside them, and is none of ours."""
    try:
        return shlex.split(command, comments=True)
    except ValueError:
        return command.split()


def options() -> dict[str, set[str]]:
    """Options of `proxyless`, by command; those of a group are of all its commands."""
    result: dict[str, set[str]] = {}
    for name, command in typer.main.get_group(app).commands.items():
        parts = [command, *getattr(command, "commands", {}).values()]
        result[name] = {word for part in parts for param in part.params for word in param.opts}
    return result


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_commands_on_a_page_are_commands_of_the_project(page: Path) -> None:
    known, targets = options(), re.findall(r"^([\w-]+):", MAKEFILE.read_text(), re.M)
    for words in commands(page):
        if words[:1] == ["make"]:
            assert {word for word in words[1:] if "=" not in word} <= set(targets), words
        if words[:1] == ["proxyless"] and len(words) > 1 and words[1].islower():
            given = {word.partition("=")[0] for word in words[2:] if word.startswith("--")}
            assert words[1] in known, words
            assert given <= known[words[1]] | {"--help"}, words


MAKEFILE = REPOSITORY / "Makefile"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_python_on_a_page_imports_what_there_is(page: Path) -> None:
    for block in code_blocks(page.read_text()):
        if block.language == "python":
            for node in ast.walk(ast.parse(block.text)):
                if isinstance(node, ast.ImportFrom) and node.module is not None:
                    module = importlib.import_module(node.module)
                    assert all(hasattr(module, item.name) for item in node.names), node.module


def test_the_sweep_of_the_readme_calls_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Names of functions, arguments and methods are checked; nothing is searched."""
    sweep = create_autospec(orchestration.sweep)
    sweep.return_value = create_autospec(SweepResult, instance=True)
    monkeypatch.setattr(orchestration, "sweep", sweep)
    (text,) = (block.text for block in code_blocks(README) if block.language == "python")
    exec(compile(text, "README.md", "exec"), {})
    (job,) = sweep.call_args.args
    assert (REPOSITORY / job).exists()


# The quick start, command by command


def quick_start() -> list[str]:
    """The commands of the first shell block below the heading."""
    section = README.partition("\n## Quick start\n")[2]
    text = next(block.text for block in code_blocks(section) if block.language == "sh")
    return [line.partition("  #")[0].strip() for line in text.splitlines()]


def test_the_quick_start_has_three_commands() -> None:
    assert quick_start() == [
        "git clone <this repository> && cd proxyless",
        "make search",
        "make ui",
    ]


@dataclass(frozen=True)
class Clone:
    """A fresh clone, and the environment of a user who has nothing but that."""

    folder: Path
    home: Path

    def start(self, command: str, output: Any) -> subprocess.Popen[str]:
        """The command in a shell, with all its processes in a group of their own."""
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=self.folder,
            env=self._environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _environment(self) -> dict[str, str]:
        """PYTHONPATH, because the packages of the linked environment may be of another checkout."""
        kept = {name: os.environ[name] for name in ("PATH", "LANG") if name in os.environ}
        threads = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        own = {"HOME": str(self.home), "PYTHONPATH": str(self.folder), "RAY_ADDRESS": "local"}
        return kept | threads | own


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """The first command, and in place of an installation the environment of these tests."""
    if sys.prefix == sys.base_prefix:
        pytest.skip("needs to run in a virtual environment that has the project installed")
    folder = tmp_path_factory.mktemp("user")
    (folder / "home").mkdir()
    repository = shlex.quote(str(REPOSITORY))
    command = quick_start()[0].replace("<this repository>", f"{repository} proxyless")
    subprocess.run(["bash", "-c", command], cwd=folder, check=True, capture_output=True)
    installed = folder / "proxyless/.venv"
    installed.mkdir()
    for part in Path(sys.prefix).iterdir():
        if not part.name.startswith("installed"):
            (installed / part.name).symlink_to(part)
    (installed / "installed").touch()  # newer than what it is made of, so `make` installs nothing
    return Clone(folder / "proxyless", folder / "home")


@pytest.fixture(scope="module")
def searched(clone: Clone) -> str:
    """Output of `make search`."""
    output = clone.home / "search.txt"
    with output.open("w") as file:
        code = clone.start(quick_start()[1], file).wait()
    assert code == 0, output.read_text()
    return output.read_text()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_make_search_ends_with_the_table_that_the_readme_shows(searched: str) -> None:
    section = README.partition("\n## Quick start\n")[2]
    shown = next(block.text for block in code_blocks(section) if not block.language).splitlines()
    printed = [line.rstrip() for line in searched.splitlines()]
    at = printed.index(shown[0])
    table = shown.index("", 2)  # title, head and rule, reference, searched network
    assert printed[at : at + 4] == shown[:4]
    assert [figureless(line) for line in printed[at + 4 : at + table]] == [
        figureless(line) for line in shown[4:table]
    ]


def figureless(row: str) -> list[str]:
    """The cells of a row, with N for every number."""
    return re.sub(r"\d+(\.\d+)?", "N", row).split()


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.timeout(1800)
def test_make_ui_shows_the_runs_of_the_search(clone: Clone, searched: str) -> None:
    address = re.search(r"make ui .*(http://127\.0\.0\.1:(\d+))", README)
    assert address is not None
    with socket.socket() as taken:
        if taken.connect_ex(("127.0.0.1", int(address[2]))) == 0:
            pytest.skip(f"port {address[2]}, which the README names, is in use")
    log = clone.home / "ui.txt"
    with log.open("w") as file:
        ui = clone.start(quick_start()[2], file)
        try:
            assert "digits" in experiments(address[1], deadline=time.monotonic() + 600)
            os.killpg(ui.pid, signal.SIGINT)  # Ctrl-C
            ui.wait(120)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ui.pid, signal.SIGKILL)


def experiments(address: str, deadline: float) -> list[str]:
    """Names of the experiments that a server has, once it answers."""
    ask = urllib.request.Request(
        f"{address}/api/2.0/mlflow/experiments/search",
        data=b'{"max_results": 10}',
        headers={"Content-Type": "application/json"},
    )
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    while True:
        try:
            with direct.open(ask, timeout=60) as answer:
                return [item["name"] for item in json.load(answer)["experiments"]]
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)
