"""`proxyless show`: the drawing, the table it uses, and the errors."""

from __future__ import annotations

import io
import json
import os
import shlex
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from nas_core.architecture import Architecture
from nas_core.latency import LatencyTable
from nas_core.published import architecture as published
from nas_core.space import SearchSpace, proxyless_imagenet, proxyless_small
from orchestration.cli.app import main
from orchestration.cli.measure import MeasureJob
from orchestration.cli.named_network import named_network
from orchestration.cli.show import measure_command, paint, shown_lines
from orchestration.config.loading import SpecError, apply_override, check
from orchestration.reports.figures.network import architecture_text
from tests.support.job_folder import (
    HARDWARE,
    OPS,
    SPACE,
    baseline_result,
    latency_table,
    result,
    write_job,
)

CASE = "mobile-0.31ms"
NETWORK = Architecture(SPACE, OPS)


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use an empty home folder instead of the user's."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture
def case(tmp_path: Path) -> Path:
    """The folder of a case whose table is in its storage."""
    job = write_job(tmp_path / "kept", [result(CASE), result("mobile-reference")])
    return job.path(f"cases/{CASE}")


def shown(text: Path | str, target: str | None = None, storage: Path | None = None) -> list[str]:
    return shown_lines(named_network(str(text)), target, None if storage is None else str(storage))


def keep(root: Path, key: str, table: LatencyTable) -> None:
    Storage(str(root)).write_json(f"tables/{key}.json", table.to_dict())


@pytest.mark.parametrize("file", ["", "result.json", "architecture.json"])
def test_a_case_is_drawn_by_the_table_that_its_result_names(case: Path, file: str) -> None:
    lines = shown(case / file)
    drawn = architecture_text(NETWORK.to_dict(), latency_table().to_dict()).splitlines()
    assert lines[-len(drawn) :] == drawn
    assert lines[0] == f"network  {CASE}: proxyless_small, 6 sites, images of 1x8x8, 10 classes"
    assert lines[1] == (
        f"found    budget 0.310 ms, measured 0.312 ms on {HARDWARE}, top-1 98.1 %, 123.5 k params, "
        "7.0 M MACs"
    )
    assert lines[2] == f"table    {HARDWARE}"


def test_a_file_elsewhere_is_drawn_without_latencies(tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(NETWORK.to_json())
    lines = shown(tmp_path / "mine.json")
    assert lines[2:] == architecture_text(NETWORK.to_dict(), None).splitlines()


def test_a_result_of_another_network_does_not_speak_for_the_file_beside_it(case: Path) -> None:
    other = Architecture.reference(SPACE).to_json()
    (case / "architecture.json").write_text(other)
    assert not any(line.startswith("found") for line in shown(case / "architecture.json"))


def test_a_published_network_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = shown("proxyless_mobile")
    assert lines[0].startswith("network  proxyless_mobile: proxyless_imagenet, 21 sites, ")
    assert len(lines) == 2 + 1 + 23


def test_a_target_that_is_not_measured_needs_no_kept_table() -> None:
    network = published("proxyless_mobile")
    lines = shown("proxyless_mobile", "pixel1")
    assert lines[-1].startswith("network    84.416 ms by the table of pixel1")
    with pytest.raises(SpecError, match=r"--target pixel1: .*they hold for proxyless_imagenet at"):
        shown("proxyless_gpu", "pixel1")
    assert network.space == proxyless_imagenet()


def test_of_several_tables_of_a_target_the_newest_is_taken(tmp_path: Path) -> None:
    dates = ("2026-11-22T10:00:00+00:00", "2026-11-24T10:00:00+00:00", "2026-11-23T10:00:00+00:00")
    for key, date in zip("abc", dates, strict=True):
        device = {"cpu": f"processor {key}"}
        keep(tmp_path, key, replace(latency_table(), date=date, device=device))
    (tmp_path / "mine.json").write_text(NETWORK.to_json())
    lines = shown(tmp_path / "mine.json", "mobile", tmp_path)
    assert lines[1] == f"table    {HARDWARE}, measured 2026-11-24T10:00 on processor b"


def test_a_table_without_a_date_is_as_old_as_its_file(tmp_path: Path) -> None:
    keep(tmp_path, "a", replace(latency_table(), hardware="old"))
    keep(tmp_path, "b", replace(latency_table(), hardware="new"))
    os.utime(tmp_path / "tables" / "a.json", (1e9, 1e9))
    (tmp_path / "mine.json").write_text(NETWORK.to_json())
    assert shown(tmp_path / "mine.json", "mobile", tmp_path)[1] == "table    new"


def test_tables_that_do_not_cover_the_space_or_cannot_be_read_are_passed_over(
    tmp_path: Path,
) -> None:
    keep(tmp_path, "a", replace(latency_table(), rows=latency_table().rows[:-2]))
    keep(tmp_path, "b", latency_table(proxyless_small(resolution=16)))
    keep(tmp_path, "c", replace(latency_table(), target="cpu"))
    (tmp_path / "tables" / "d.json").write_text("{")
    (tmp_path / "tables" / "e-widths.json").write_text("{}")
    (tmp_path / "mine.json").write_text(NETWORK.to_json())
    with pytest.raises(SpecError, match=r"no latency table of it in .*; there are tables of cpu; "):
        shown(tmp_path / "mine.json", "mobile", tmp_path)
    keep(tmp_path, "f", latency_table())
    assert shown(tmp_path / "mine.json", "mobile", tmp_path)[1] == f"table    {HARDWARE}"


def test_the_table_of_another_target_is_that_of_the_storage_of_the_case(case: Path) -> None:
    root = case.parents[2]
    keep(root, "f", replace(latency_table(), target="cpu", hardware="cpu (ONNX Runtime)"))
    assert "table    cpu (ONNX Runtime)" in shown(case, "cpu")


def test_a_table_that_is_gone_is_named(case: Path) -> None:
    path = case.parents[2] / "tables" / "table0.json"
    path.unlink()
    lines = shown(case)
    assert " ".join(line.strip() for line in lines[2 : lines.index("")]) == (
        f"table    none: {path}, which the result names, is not there; --target names another"
    )
    assert lines[-1].split()[0] == "head"


def test_no_table_of_a_target_ends_with_code_2_and_the_command_that_measures_it(
    case: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["show", str(case), "--target", "gpu"]) == 2
    printed = capsys.readouterr()
    assert (printed.out, printed.err.count("\n")) == ("", 1)
    root = case.parents[2]
    assert printed.err.endswith(
        "measure it: proxyless measure --target gpu --space proxyless_small --set resolution=8 "
        f"--set channels=1 --set classes=10 --storage {root}\n"
    )


@pytest.mark.parametrize(
    "space",
    [
        proxyless_imagenet(),
        proxyless_imagenet(width=1.12, first_stage=24),
        proxyless_imagenet(resolution=160, classes=10),
        proxyless_small(width=0.5),
    ],
)
def test_the_command_measures_this_very_space(space: SearchSpace, tmp_path: Path) -> None:
    command = measure_command("cpu", space, Storage(str(tmp_path)))
    assert command is not None
    args = shlex.split(command)
    values: dict[str, Any] = {"target": "cpu", "space": {"name": args[args.index("--space") + 1]}}
    for flag, value in pairwise(args):
        if flag == "--set":
            apply_override(values, value)
    assert check(MeasureJob, values, "measure").built_space() == space


def test_a_space_that_no_command_can_name_is_measured_by_a_job(tmp_path: Path) -> None:
    own = replace(SPACE, name="mine")
    (tmp_path / "mine.json").write_text(Architecture(own, OPS).to_json())
    with pytest.raises(SpecError, match="; a job with that space measures one"):
        shown(tmp_path / "mine.json", "cpu")
    assert measure_command("cpu", replace(SPACE, bn_eps=0.1), Storage(str(tmp_path))) is None


def test_lines_fit_120_columns(tmp_path: Path) -> None:
    # The stem takes longer than the whole network, because other rows are negative.
    hardware = "a device with a very long name " * 4
    table = replace(latency_table(), hardware=hardware, offset_ms=0.5, device={"cpu": "x" * 60})
    rows = tuple(
        replace(row, median_ms=9.0 if row.part.op == "stem" else -1.2) for row in table.rows
    )
    keep(tmp_path, "a", replace(table, rows=rows))
    (tmp_path / "mine.json").write_text(NETWORK.to_json())
    lines = shown(tmp_path / "mine.json", "mobile", tmp_path)
    assert max(map(len, lines)) == 120
    assert " ".join(" ".join(lines).split()).count(" ".join(hardware.split())) == 2


def test_a_terminal_gets_colours_by_kernel(
    case: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLORTERM", "truecolor")
    file = io.StringIO()
    paint(shown(case), file)
    assert "\x1b[38;2;86;180;233mmbconv_k3_e3\x1b[0m" in file.getvalue()  # #56B4E9


def test_a_pipe_gets_the_lines_as_they_are(case: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(case)]) == 0
    assert capsys.readouterr().out.splitlines() == shown(case)


def test_a_storage_and_a_job_in_place_of_a_case_are_refused(case: Path) -> None:
    names = f"cases/{CASE}, cases/mobile-reference"
    with pytest.raises(SpecError, match=f"is the folder of a job; name one of its .*: {names}"):
        shown(case.parents[1])
    with pytest.raises(SpecError, match=r"kept has neither result.json nor architecture.json"):
        shown(case.parents[2])


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "is not JSON"),
        ("\udcff", "is not JSON"),
        ("[1]", "is no network"),
        ("{}", "not an architecture of format"),
        (json.dumps({**NETWORK.to_dict(), "ops": ["skip"]}), "1 ops for the 6 sites"),
        (json.dumps(baseline_result("mnasnet")["architecture"]), "is the baseline 'mnasnet'"),
        (json.dumps(baseline_result("mnasnet")), "is the baseline 'mnasnet', which has no sites"),
    ],
)
def test_what_is_no_network_of_sites_ends_with_code_2_and_one_line(
    tmp_path: Path, content: str, complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.json"
    path.write_bytes(content.encode(errors="surrogateescape"))
    assert main(["show", str(path)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith(str(path))
    assert complaint in printed.err
    assert printed.err.count("\n") == 1


def test_what_is_not_there_names_what_may_be_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "nothing.json"]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("nothing.json is no file; expected an architecture.json, ")
    assert printed.endswith("or one of proxyless_cpu, proxyless_gpu, proxyless_mobile\n")


def test_a_result_without_a_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").write_text('{"format": "case-result/1"}')
    with pytest.raises(SpecError, match=r"result\.json: .*; expected "):
        named_network(str(tmp_path / "result.json"))
