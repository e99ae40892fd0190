"""The HTML report in Chromium: python -m pytest -m slow tests/report/test_browser.py

It needs the extra `browser` and a Chromium (apt install chromium), and AXE=FOLDER/axe.min.js of npm's axe-core for the
check of accessibility.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from browsers import chromium
from rvpt.jobs.reporting import gather_results, write_report

pytestmark = pytest.mark.slow
ROWS = Path(__file__).parents[2] / "rows"
PHONE, DESK = {"width": 390, "height": 844}, {"width": 1180, "height": 900}
MANY = ("attacks.jsonl", "demo.jsonl", "photos-cifar10.jsonl")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module", params=MANY)
def report(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    write_report(gather_results([ROWS / request.param]), path)
    return path


def opened(browser: Any, report: Path, size: dict[str, int] = DESK, theme: str = "light") -> tuple[Any, list[str]]:
    """The page, and a list that gets what goes wrong in it."""
    page, wrong = browser.new_context(viewport=size, color_scheme=theme).new_page(), list[str]()
    page.on("console", lambda message: wrong.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: wrong.append(f"error: {error}"))
    page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url[:200]}"))
    page.on("request", lambda request: request.url.startswith(("file:", "data:")) or wrong.append(request.url))
    page.goto(report.as_uri())
    return page, wrong


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, DESK], ids=["phone", "desk"])
def test_it_opens_from_disk_and_fits_the_screen(browser: Any, report: Path, size: dict[str, int], theme: str) -> None:
    page, wrong = opened(browser, report, size, theme)
    assert page.evaluate("document.documentElement.scrollWidth") <= size["width"]
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)"
    assert dark == (theme == "dark")
    page.get_by_role("button", name="theme").click()
    assert (page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 23, 26)") != dark
    assert wrong == []


def column(page: Any, table: Any, place: int) -> list[str]:
    return [
        cell
        for cell in table.locator(f"tbody tr:not([hidden]) td:nth-child({place + 1})").all_inner_texts()
        if cell != "–"
    ]


def test_tables_are_sorted_and_filtered(browser: Any, report: Path) -> None:
    page, wrong = opened(browser, report)
    table = page.locator("table").last
    headings = table.locator("th").all_inner_texts()
    place = headings.index("CA") if "CA" in headings else len(headings) - 1
    button = table.locator("th button").nth(place)
    for ascending in (True, False):
        button.click()
        values = [float(text.split()[0]) for text in column(page, table, place)]
        assert values == sorted(values, reverse=not ascending)
        assert table.locator("th").nth(place).get_attribute("aria-sort") == ("ascending" if ascending else "descending")
    before = len(column(page, table, 0))
    page.locator("input[type=search]").last.fill("rvpt")
    kept = table.locator("tbody tr:not([hidden])").all_inner_texts()
    assert 0 < len(kept) < before
    assert all("rvpt" in line.lower() for line in kept)
    assert f"{len(kept)} of {before} lines" in page.locator("[role=status]").last.inner_text()
    assert wrong == []


def test_tooltips_are_shown_with_the_mouse_and_with_the_keyboard(browser: Any, report: Path) -> None:
    page, wrong = opened(browser, report)
    tip = page.get_by_role("tooltip", include_hidden=True)
    assert tip.is_hidden()
    cell = page.locator("table").last.locator("td[data-tip]")
    cell.first.hover()
    assert "n " in tip.inner_text()
    page.mouse.move(0, 0)
    assert tip.is_hidden()
    cell.first.focus()
    first = tip.inner_text()
    page.keyboard.press("ArrowRight")
    assert tip.inner_text() != first
    page.keyboard.press("Escape")
    assert tip.is_hidden()
    assert wrong == []


def test_the_rows_are_saved(browser: Any, report: Path) -> None:
    page, wrong = opened(browser, report)
    with page.expect_download() as download:
        page.get_by_role("button", name="Save the rows").click()
    assert len(Path(download.value.path()).read_text().splitlines()) == page.evaluate(
        "JSON.parse(document.getElementById('rows').textContent).length"
    )
    assert wrong == []


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Any, report: Path, theme: str) -> None:
    axe = os.environ.get("AXE")
    if not axe:
        pytest.skip("needs axe-core: npm install axe-core, and AXE=node_modules/axe-core/axe.min.js")
    page, _ = opened(browser, report, theme=theme)
    page.evaluate(Path(axe).read_text(encoding="utf-8"))
    found = page.evaluate("axe.run().then((result) => result.violations)")
    serious = [
        (each["id"], each["nodes"][0]["html"][:200]) for each in found if each["impact"] in ("serious", "critical")
    ]
    assert serious == []
