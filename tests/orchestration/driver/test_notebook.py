"""Live table of a notebook, with a stand-in for IPython's display."""

from __future__ import annotations

import sys
import threading
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from orchestration.driver import notebook
from orchestration.driver.notebook import LiveTable, is_notebook, live_table

EPOCH = {"phase": "search", "epoch": 3, "epochs": 12, "loss": 1.25, "top1": 0.613, "seconds": 2.0}
LATENCY = {"latency_ms": 0.4, "budget_ms": 0.3, "entropy": 1.5, "eta_s": 700.0}


class Page:
    """Stand-in for IPython's display that records every state of the output."""

    def __init__(self) -> None:
        self.states: list[str] = []
        self.outputs = 0
        self.updated = threading.Event()

    def display(self, html: str, display_id: bool) -> Page:
        assert display_id
        self.outputs += 1
        self.states.append(html)
        return self

    def update(self, html: str) -> None:
        self.states.append(html)
        self.updated.set()


def load_ipython(monkeypatch: pytest.MonkeyPatch, shell: Any) -> Page:
    page = Page()
    package, display = ModuleType("IPython"), ModuleType("IPython.display")
    monkeypatch.setattr(package, "get_ipython", lambda: shell, raising=False)
    monkeypatch.setattr(display, "display", page.display, raising=False)
    monkeypatch.setattr(display, "HTML", str, raising=False)
    monkeypatch.setitem(sys.modules, "IPython", package)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    return page


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    return load_ipython(monkeypatch, SimpleNamespace(kernel=object()))


def cells_of(html: str) -> list[list[str]]:
    rows = html.split("<tr>")[2:]
    return [[cell.split("</td>")[0] for cell in row.split("<td>")[1:]] for row in rows]


def told(*records: tuple[str, dict[str, Any]]) -> str:
    table = LiveTable()
    for case, record in records:
        table(case, record)
    return table.html()


def test_a_search_shows_how_far_it_is_and_how_near_its_budget() -> None:
    assert cells_of(told(("mobile-0.3ms", EPOCH | LATENCY))) == [
        ["mobile-0.3ms", "search", "4/12", "61.3 %", "0.4000 ms", "0.3000 ms", "12 min"]
    ]


def test_what_is_not_reported_is_a_dash() -> None:
    warm_up = EPOCH | {"phase": "warmup", "latency_ms": None}
    assert cells_of(told(("mobile-0.3ms", warm_up)))[0][4:] == ["-", "-", "-"]


def test_a_case_has_one_row_with_what_it_reported_last() -> None:
    html = told(("a", EPOCH), ("b", EPOCH), ("a", EPOCH | {"epoch": 4}))
    assert [(row[0], row[2]) for row in cells_of(html)] == [("a", "5/12"), ("b", "4/12")]


def test_a_reference_that_is_retrained_beside_a_case_has_its_own_row() -> None:
    retrained = EPOCH | {"phase": "retrain", "network": "mobile-reference"}
    html = told(("mobile-0.3ms", EPOCH), ("mobile-0.3ms", retrained))
    assert [row[0] for row in cells_of(html)] == ["mobile-0.3ms", "mobile-reference"]


def test_what_workers_say_stands_below_the_table_and_is_no_markup() -> None:
    html = told(("a<b", {"note": "<script>"}))
    assert html.endswith("</table><div>a&lt;b: &lt;script&gt;</div>")


def test_in_a_notebook_one_output_is_updated_to_the_last_state(page: Page) -> None:
    with live_table() as follow:
        for epoch in range(12):
            follow("mobile-0.3ms", EPOCH | {"epoch": epoch})
    assert page.outputs == 1
    assert cells_of(page.states[-1])[0][2] == "12/12"


def test_updates_are_not_as_many_as_reports(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "PAUSE_S", 60.0)
    with live_table() as follow:
        for epoch in range(12):
            follow("mobile-0.3ms", EPOCH | {"epoch": epoch})
    assert len(page.states) == 2  # as it begins and as it ends


def test_the_page_follows_while_cases_run(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(notebook, "PAUSE_S", 0.01)
    with live_table() as follow:
        follow("mobile-0.3ms", EPOCH)
        assert page.updated.wait(60)


def test_the_last_state_stays_when_a_job_is_stopped(page: Page) -> None:
    def stopped() -> None:
        with live_table() as follow:
            follow("mobile-0.3ms", EPOCH)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert cells_of(page.states[-1])[0][0] == "mobile-0.3ms"


def test_a_terminal_of_ipython_is_no_notebook(monkeypatch: pytest.MonkeyPatch) -> None:
    page = load_ipython(monkeypatch, SimpleNamespace())
    with live_table() as follow:
        follow("mobile-0.3ms", EPOCH)
    assert page.outputs == 0


def test_without_ipython_nothing_is_imported_or_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "IPython"]:
        monkeypatch.delitem(sys.modules, name)
    assert not is_notebook()
    with live_table() as follow:
        follow("mobile-0.3ms", EPOCH)
    assert "IPython" not in sys.modules
    assert capsys.readouterr().out == ""
