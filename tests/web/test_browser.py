"""rvpt serve, driven by Chromium: python -m pytest -m slow tests/web/test_browser.py

It needs the extras `web` and `browser`, and a Chromium (apt install chromium).
"""

from __future__ import annotations

import csv
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from browsers import chromium
from helpers import encoded, random_image
from rvpt.web.batch import HEADINGS
from tiny import Tiny

pytestmark = pytest.mark.slow
LABELS = ("What the models see", "Attention before", "Attention after")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def address(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running page; in the end the process must stop and leave nothing behind."""
    pytest.importorskip("gradio", reason="needs the extra web")
    home = tmp_path_factory.mktemp("serve")
    report = home / "report.html"
    report.write_text("<!doctype html><title>r</title><h1>A report of mine</h1>")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "rvpt", "serve", tiny.backdoored, tiny.cleaned, "--data", "scenes:60",
               "--port", port, "--report", report]  # fmt: skip
    temporary = home / "temporary"
    temporary.mkdir()
    process = subprocess.Popen(
        list(map(str, command)),
        stdout=subprocess.PIPE,
        text=True,
        cwd=home,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line.startswith(f"http://127.0.0.1:{port}"), line
    yield line.split()[0]
    process.terminate()
    assert process.wait(timeout=60) == 143
    assert [path.name for path in temporary.glob("rvpt-serve-*")] == []
    assert sorted(path.name for path in home.iterdir()) == ["report.html", "temporary"]


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    """The opened page; nothing in it may fail, or come from elsewhere."""
    context = browser.new_context(viewport={"width": 1180, "height": 1000}, accept_downloads=True)
    page, wrong = context.new_page(), list[str]()
    page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: _from_here(request.url, address) or wrong.append(request.url))
    page.goto(address)
    page.get_by_role("button", name="Compare", exact=True).wait_for(timeout=60_000)
    yield page
    assert wrong == []
    context.close()


def _from_here(url: str, address: str) -> bool:
    return url.startswith((address, "data:", "blob:", "about:"))


def test_an_image_is_compared_with_a_trigger_on_it(page: Any, tmp_path: Path) -> None:
    random_image(60, 60).save(tmp_path / "image.png")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "image.png")
    page.get_by_label("badnet").first.check()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("The monitor").wait_for(timeout=60_000)
    for label in LABELS:
        image = page.locator(".block", has=page.get_by_text(label, exact=True)).last.locator("img")
        image.wait_for()
        assert image.evaluate("each => each.decode().then(() => each.naturalWidth)") == 384


def test_samples_and_class_names_can_be_chosen(page: Any) -> None:
    page.get_by_role("button", name="Class names").click()
    page.get_by_label("Class names, one on each line").fill("star\nquite another thing")
    page.locator("button:has(img), td:has(img)").first.click()
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("quite another thing", exact=True).nth(1).wait_for(timeout=60_000)
    page.get_by_label("Class names, one on each line").fill("one")
    page.get_by_role("button", name="Compare", exact=True).click()
    page.get_by_text("give 2 to 1000 different class names").wait_for(timeout=60_000)


def test_many_images_give_a_table_to_download(page: Any, tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(encoded("red"))
    with ZipFile(tmp_path / "more.zip", "w") as packed:
        packed.writestr("folder/two.png", encoded("blue"))
    page.get_by_role("tab", name="Many images").click()
    page.locator("input[type=file][accept*='.zip']").set_input_files([tmp_path / "one.png", tmp_path / "more.zip"])
    page.get_by_text(".zip", exact=True).wait_for()  # the page has stem and suffix apart
    page.get_by_role("button", name="Compare all").click()
    page.get_by_text("folder/two.png").filter(visible=True).first.wait_for(timeout=60_000)
    with page.expect_download() as download:
        page.get_by_text("Download the table (CSV)").click()
    lines = list(csv.reader(Path(download.value.path()).read_text().splitlines()))
    assert lines[0] == list(HEADINGS)
    assert [line[0] for line in lines[1:]] == ["one.png", "folder/two.png"]


def test_the_report_is_in_a_tab(page: Any) -> None:
    page.get_by_role("tab", name="Report").click()
    page.frame_locator("iframe[title=Report]").get_by_role("heading", name="A report of mine").wait_for()


@pytest.mark.parametrize(
    "path", ["/gradio_api/file=/etc/hostname", "/gradio_api/file=report.html", "/file=report.html"]
)
def test_files_of_the_computer_cannot_be_read(page: Any, address: str, path: str) -> None:
    assert page.request.get(address.rstrip("/") + path).status in (403, 404)


def test_an_upload_that_is_too_large_is_refused(page: Any, address: str) -> None:
    large = {"files": {"name": "large.png", "mimeType": "image/png", "buffer": b"0" * (21 * 10**6)}}
    assert page.request.post(address.rstrip("/") + "/gradio_api/upload", multipart=large).status == 413
