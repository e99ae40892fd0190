"""rvpt report."""

import json

import pytest

from commands import failed, has, refused, works
from rvpt.rows import write_rows

SHARED = {"model": "m", "data": "d", "defense": "rvpt", "low": None, "high": None, "trained_parameters": 128}


@pytest.fixture
def rows(home):
    """A file of rows of two seeds."""
    found = []
    for seed in (0, 1):
        found.append({**SHARED, "seed": seed, "attack": "none", "metric": "CA", "rate": 0.9})
        found.append({**SHARED, "seed": seed, "attack": "badnet", "metric": "ASR", "rate": 0.1 + 0.2 * seed})
    write_rows(home / "rows.jsonl", found)
    return "rows.jsonl"


def test_it_prints_a_table_in_each_layout(rows):
    has(works("report", rows), "| m | badnet | rvpt | 2 | 90.0 ± 0.0 | 20.0 ± 14.1 |")
    has(works("report", rows, "--layout", "matrix"), "| m | badnet | 90.0, 20.0 ± 14.1 |")
    has(works("report", rows, "--layout", "costs"), "| rvpt | 128 | 2 | ")


def test_rows_of_some_seeds_alone(rows):
    has(works("report", rows, "--seed", 1), "| m | badnet | rvpt | 1 | 90.0 | 30.0 |")
    has(refused("report", rows, "--seed", 5), "no row has seed 5")


def test_tables_go_between_the_marks_of_a_page(rows, home):
    page = home / "page.md"
    page.write_text("before\n<!-- rows one -->\nold\n<!-- /rows one -->\nafter\n")
    works("report", rows, "--output", "page.md", "--section", "one")
    text = page.read_text()
    has(text, "before", "| m | badnet | rvpt |", "after")
    assert "old" not in text
    has(refused("report", rows, "--section", "one"), "--section one", "pass --output FILE.md too")
    page.write_bytes(b"\xff")
    has(refused("report", rows, "--output", "page.md"), "page.md is not UTF-8 text")
    has(failed("report", rows, "--output", "rows.jsonl/page.md"), "could not write rows.jsonl/page.md")


def test_an_image_is_drawn_and_replaced_only_if_asked(rows, home):
    works("report", rows, "--plot", "rows.png")
    assert (home / "rows.png").read_bytes().startswith(b"\x89PNG")
    has(refused("report", rows, "--plot", "rows.png"), "rows.png already exists", "pass --overwrite")
    works("report", rows, "--plot", "rows.png", "--overwrite")


def test_nothing_is_written_if_the_image_cannot_be_drawn(home):
    write_rows(home / "rows.jsonl", [{**SHARED, "seed": 0, "attack": "none", "metric": "CA", "rate": 0.5}])
    for output in ("page.md", "page.html"):
        has(refused("report", "rows.jsonl", "--plot", "rows.png", "-o", output), "no run has both CA and ASR")
    has(refused("report", "rows.jsonl", "--plot", "rows.pdf"), "--plot rows.pdf is not a PNG file")
    has(refused("report", "rows.jsonl", "-o", "rows.pdf"), "--output rows.pdf is neither a page nor Markdown")
    assert [path.name for path in home.iterdir()] == ["rows.jsonl"]


def test_unknown_metrics_are_shown(home):
    write_rows(home / "rows.jsonl", [{**SHARED, "seed": 0, "attack": "none", "metric": "sharpness", "rate": 0.5}])
    has(works("report", "rows.jsonl"), "sharpness", "50.0")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{}\n{\n", ["rows.jsonl, line 2", "not a JSON object"]),
        (json.dumps(SHARED), ["rows.jsonl, line 1", "'attack'"]),
        ("", ["rows.jsonl is empty"]),
    ],
)
def test_damaged_rows_are_named(home, content, said):
    (home / "rows.jsonl").write_text(content)
    has(refused("report", "rows.jsonl"), *said)


def test_a_missing_file_and_an_unknown_layout(rows):
    has(refused("report", "nothing.jsonl"), "nothing.jsonl is missing")
    has(refused("report", rows, "--layout", "list"), "'list'", "runs, matrix, costs")


def test_a_page_is_written_and_replaced_only_if_asked(rows, home):
    for option in ("--output", "--out"):
        assert works("report", rows, option, "report.html", "--overwrite") == "report: report.html\n"
        has((home / "report.html").read_text(), "<!doctype html>", "20.0 ± 14.1")
    has(refused("report", rows, "--output", "report.html"), "report.html already exists", "pass --overwrite")
    has(refused("report", rows, "--output", "other.html", "--layout", "costs"), "remove --layout costs")
    has(refused("report", rows, "--output", "other.html", "--section", "one"), "remove --section one")


def test_a_folder_of_results_is_searched(rows, home):
    (home / "runs" / "one").mkdir(parents=True)
    (home / "rows.jsonl").rename(home / "runs" / "one" / "rows.jsonl")
    has(works("report", "runs"), "| m | badnet | rvpt | 2 | 90.0 ± 0.0 | 20.0 ± 14.1 |")
    (home / "empty").mkdir()
    has(refused("report", "empty"), "empty has no results of rvpt")


def test_an_inspection_is_a_section_of_the_tables(tiny, rows):
    works("inspect", tiny.backdoored, tiny.cleaned, "--data", "scenes:40", "--false-alarms", 0.3, "-o", "flagged|0")
    has(
        works("report", "flagged|0"),
        "### Inspection flagged\\|0",
        "of 40 images are flagged; about 12",
        "| image | suspect",
    )
    has(works("report", rows, "flagged|0"), "| m | badnet | rvpt |", "### Inspection")
    assert "Inspection" not in works("report", rows, "flagged|0", "--layout", "matrix")
    has(refused("report", "flagged|0", "--layout", "matrix"), "no rows for tables")


def test_tables_need_rows(home):
    (home / "found").mkdir()
    verdict = {"verdict": "clean", "p_value": 0.5, "targets": [], "model": "m"}
    (home / "found" / "verdict.json").write_text(json.dumps(verdict))
    has(refused("report", "found"), "no rows for tables in found: pass --output report.html")
    works("report", "found", "--output", "report.html")
    has((home / "report.html").read_text(), "rvpt check finds no backdoor in m")
