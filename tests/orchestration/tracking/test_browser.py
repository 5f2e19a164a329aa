"""The MLflow UI after a sweep, in a real browser.

Screenshots are stored in `tests/screenshots`, or in the folder SCREENSHOTS.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from cluster.storage import Storage
from orchestration.reports.comparison import write_comparison
from orchestration.tracking import record_job
from tests.conftest import REPOSITORY
from tests.support.job_folder import result, write_job
from tests.support.mlflow_server import mlflow_server

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next((path for name in NAMES if (path := shutil.which(name))), None)
IS_REQUIRED = os.environ.get("BROWSER_TESTS") == "required"

pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(
        CHROMIUM is None and not IS_REQUIRED, reason="needs Chromium: apt-get install chromium"
    ),
]

PATIENCE_MS = 60_000
CPU = {"target": "cpu", "hardware": "cpu (ONNX Runtime)", "stand_in": False}
SWEEP = [
    result("mobile-0.31ms", measured_ms=0.3011, top1=0.9811),
    result("mobile-reference", measured_ms=0.3822),
    result("cpu-0.25ms", measured_ms=0.2422, top1=0.9733, budget_ms=0.25, **CPU),
    result("cpu-reference", measured_ms=0.2911, **CPU),
]


@pytest.fixture(scope="module")
def recorded(
    tmp_path_factory: pytest.TempPathFactory, model_folder: Path
) -> Iterator[SimpleNamespace]:
    """A sweep of two cases on a tracking server, and the links that the job prints."""
    root = tmp_path_factory.mktemp("browser")
    job, tables = write_job(root, SWEEP, model_folder), Storage(str(root / "tables"))
    write_comparison(job, tables)
    with mlflow_server(root) as port:
        uri = f"http://127.0.0.1:{port}"
        yield record_job(job, tables, tracking_uri=uri, experiment="digits")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any, request: pytest.FixtureRequest) -> Iterator[Any]:
    """A page, of which a screenshot is stored at the end."""
    opened = browser.new_page(viewport={"width": 1500, "height": 1000})
    opened.set_default_timeout(PATIENCE_MS)
    yield opened
    folder = Path(os.environ.get("SCREENSHOTS", REPOSITORY / "tests" / "screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=str(folder / f"{request.node.name}.png"))
    opened.close()


def is_in_training_view(page: Any) -> bool:
    """The other view of the UI has a page for prompts."""
    return page.get_by_text("Prompts", exact=True).count() == 0


def test_the_page_of_a_job_lists_it_and_its_cases(recorded: Any, page: Any) -> None:
    page.goto(recorded.runs)
    for name in ("search_mobile", "mobile-0.31ms", "cpu-0.25ms"):
        page.get_by_role("link", name=name, exact=True).wait_for()
    assert page.get_by_text("0.3011").count() == 1
    assert page.get_by_text(" retrain").count() == 0
    assert is_in_training_view(page)


def test_the_page_that_compares_shows_what_all_targets_measured(recorded: Any, page: Any) -> None:
    page.goto(recorded.compare)
    page.get_by_text("Comparing 4 Runs").wait_for()
    for name, values in {"measured_ms": ("0.301", "0.242"), "top1": ("0.981", "0.973")}.items():
        page.get_by_title("Plot chart").get_by_text(name, exact=True).scroll_into_view_if_needed()
        for value in values:  # names and numbers are two adjacent grids
            page.get_by_text(value).first.wait_for()
    assert is_in_training_view(page)


def test_the_page_of_the_jobs_run_is_its_report(recorded: Any, page: Any) -> None:
    page.goto(recorded.report)
    page.get_by_text("2 networks searched for cpu and mobile").wait_for()
    page.get_by_text("Show more").click()
    page.get_by_role("cell", name="cpu-0.25ms").wait_for()
    assert is_in_training_view(page)
    with page.expect_popup() as there:
        page.get_by_role("link", name="Compare all networks").click()
    there.value.get_by_text("Comparing 4 Runs").wait_for(timeout=PATIENCE_MS)
    there.value.close()


def test_the_report_opens_in_the_viewer_of_artifacts_and_its_table_sorts(
    recorded: Any, page: Any
) -> None:
    address, _, view = recorded.report.partition("?")
    page.goto(f"{address}/artifacts/comparison/report.html?{view}")
    report = page.frame_locator("iframe").first
    head = report.get_by_role("button", name="measured ms")
    head.wait_for()
    first = report.locator("table.sortable tbody tr").first.locator("td").first
    names = []
    for _ in range(2):
        head.click()
        names.append(first.inner_text())
    assert names == ["cpu-0.25ms", "reference (to beat)"]
    assert report.locator("img").first.evaluate("image => image.naturalWidth") >= 800
