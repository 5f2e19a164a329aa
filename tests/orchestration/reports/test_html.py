"""The HTML report of a job: contents, and that it is self-contained."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration.config.storage_layout import REPORT_FILE, comparison_file
from orchestration.reports.html import write_report
from tests.support.job_folder import baseline_result, result, write_job

RESULTS = [
    result("mobile-0.31ms"),
    result("mobile-reference"),
    baseline_result("mnasnet", top1=0.9, measured_ms=0.52),
]


class Page(HTMLParser):
    """Parser that collects table rows and external references."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.addresses: list[str] = []
        self.values: list[str] = []
        self._in_cell = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        actual = dict(attrs)
        self.addresses += [actual[name] or "" for name in ("src", "href") if name in actual]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True
            self.values.append(actual.get("data-value") or "")

    def handle_endtag(self, tag: str) -> None:
        self._in_cell = self._in_cell and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


@pytest.fixture
def job(tmp_path: Path) -> Storage:
    return write_job(tmp_path, RESULTS)


def written(job: Storage, results: list[dict[str, Any]] = RESULTS, **facts: Any) -> str:
    job.write_json("job.json", job.read_json("job.json") | facts)
    write_report(job, results)
    return job.read_text(comparison_file(REPORT_FILE))


def test_every_network_is_a_row_with_its_figures(job: Storage) -> None:
    page = Page(written(job))
    heads, *rows = page.rows
    assert [row[0] for row in rows] == ["mobile-0.31ms", "reference (to beat)", "mobile-mnasnet"]
    assert dict(zip(heads, rows[0], strict=True))["measured ms"] == "0.312"
    assert dict(zip(heads, rows[2], strict=True))["table ms"] == "-"
    assert "0.312" in page.values  # by which it is sorted


def test_it_needs_no_network(job: Storage) -> None:
    job.write_bytes("comparison/accuracy.png", b"picture")
    text = written(job)
    addresses = Page(text).addresses
    assert addresses == [f"data:image/png;base64,{base64.b64encode(b'picture').decode()}"]
    assert not re.search(r"https?://|@import|url\(", text)


def test_searches_are_folded_below_the_pictures_of_all(job: Storage) -> None:
    for name in ("mobile-0.31ms-network.png", "mobile-0.31ms-search.png", "mobile-latency.png"):
        job.write_bytes(f"comparison/{name}", b"x")
    text = written(job)
    assert text.index("mobile: predicted against measured latency.") < text.index("<details>")
    assert "<summary>mobile-0.31ms</summary>" in text
    assert text.count("<img ") == 3


def test_the_plan_stands_beside_what_happened(job: Storage) -> None:
    run = {"started": "2026-11-22", "wall_s": 300.0, "estimate_s": 240.0, "estimate_error": -0.2}
    rows = Page(written(job, runs=[run | {"idle_share": 0.16, "steps": {"search": 1632}}])).rows
    assert rows[-1][:3] == ["2026-11-22", "5 min", "4 min"]
    assert {"-20%", "16%", "1,632 search", "-"} <= set(rows[-1])


def test_it_says_how_to_do_it_again(job: Storage) -> None:
    text = written(job, job_file="name: x  # <b>\n", git_commit="3f1c2ab")
    assert "git checkout 3f1c2ab\nproxyless run search_mobile.yaml" in text
    assert "name: x  # &lt;b&gt;" in text


def test_what_failed_is_said_and_words_are_no_markup(job: Storage) -> None:
    text = written(job, failed={"cpu-1ms": "<script>alert(1)</script>"})
    assert "cpu-1ms: &lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert text.count("<script>") == 1


def test_a_job_of_an_earlier_version_has_a_page_too(tmp_path: Path) -> None:
    storage = Storage(str(tmp_path / "old"))
    write_report(storage, RESULTS)
    assert "<h1>search_mobile</h1>" in storage.read_text(comparison_file(REPORT_FILE))
