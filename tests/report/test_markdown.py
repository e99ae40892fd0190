"""The layout `runs`: columns, means over seeds, the paper's numbers, and the place of tables in a page."""

from __future__ import annotations

import re
from typing import Any

import pytest

from results import cells, joined, rows_of
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.report import LAYOUTS, results
from rvpt.report.markdown import between_marks, marks
from rvpt.rows import BEFORE


def lines(*runs: list[dict[str, Any]]) -> list[list[str]]:
    """The cells of each line of the one table, without its heading."""
    return cells(results(joined(*runs)))[1:]


def test_there_is_a_table_for_each_data_set() -> None:
    table = results(joined(rows_of(0.1), rows_of(0.2, data="a")))
    assert table == (
        "### a\n\n"
        "| model | attack | defense | seeds | CA | PA | ASR |\n|---|---|---|---:|---:|---:|---:|\n"
        "| m | badnet | rvpt | 1 | 90.0 | 20.0 | 20.0 |\n"
        "\n### d\n\n"
        "| model | attack | defense | seeds | CA | PA | ASR |\n|---|---|---|---:|---:|---:|---:|\n"
        "| m | badnet | rvpt | 1 | 90.0 | 10.0 | 10.0 |\n"
    )


def test_seeds_are_averaged_with_their_standard_deviation() -> None:
    (line,) = lines(rows_of(0.1, seed=0, spec={"seed": 0, "lr": 1}), rows_of(0.3, seed=1, spec={"seed": 1, "lr": 1}))
    assert line == ["m", "badnet", "rvpt", "2", "90.0 ± 0.0", "20.0 ± 14.1", "20.0 ± 14.1"]


def test_a_metric_has_a_column_if_some_run_has_it() -> None:
    more = [{**row, "metric": "ASR_with_target"} for row in rows_of(0.4, attack="blended")[1:2]]
    found = lines(rows_of(0.1), [*rows_of(0.2, attack="blended"), *more])
    assert [line[5:] for line in found] == [["10.0", "10.0", "–"], ["20.0", "20.0", "40.0"]]


def test_unknown_metrics_have_columns_after_the_known_ones() -> None:
    shared = {key: rows_of(0.1)[0][key] for key in ("model", "data", "defense", "seed")}
    new = [
        {**shared, "attack": "none", "metric": "F1", "rate": 0.5},
        {**shared, "attack": "badnet", "metric": "worst_class", "rate": 0.25},
    ]
    heading, line = cells(results(joined(new, rows_of(0.1))))
    assert heading[4:] == ["CA", "F1", "PA", "ASR", "worst_class"]
    assert line[4:] == ["90.0", "50.0", "10.0", "10.0", "25.0"]
    assert cells(results(new)) == [
        ["model", "attack", "defense", "seeds", "F1", "worst_class"],
        ["m", "badnet", "rvpt", "1", "50.0", "25.0"],
    ]


def test_rows_without_an_attack_have_lines() -> None:
    rows = [{**rows_of(0.1)[0], "metric": metric} for metric in ("readable_size", "readable_color")]
    heading, line = cells(results(rows))
    assert heading[4:] == ["readable_size", "readable_color"]
    assert line == ["m", "none", "rvpt", "1", "90.0", "90.0"]


def test_a_rate_of_no_images_is_a_dash() -> None:
    (line,) = lines([{**row, "rate": None} if row["metric"] == "ASR" else row for row in rows_of(0.1)])
    assert line[4:] == ["90.0", "10.0", "–"]


def test_defenses_are_in_the_order_of_their_registry_and_unknown_ones_last() -> None:
    order = ["before the attack", "none", *DEFENSES, "unknown"]
    found = lines(*(rows_of(0.1, defense=name) for name in sorted(order)))
    assert [line[2] for line in found] == order


def test_the_numbers_of_the_paper_are_beside_ours() -> None:
    table = results([{**row, "data": "caltech101"} for name in ("rvpt", "vpt") for row in rows_of(0.1, defense=name)])
    heading, vpt, ours = cells(table)
    assert heading[-1] == "paper: CA, ASR"
    assert ours[-1] == "94.0, 0.0"
    assert vpt[-1] == ""
    assert "paper" not in results(rows_of(0.1))


def test_the_numbers_of_the_paper_are_for_models_cleaned_on_that_set_however_it_is_written() -> None:
    here, elsewhere = (
        [{**row, "data": "Caltech-101", "cleaned_on": name} for row in rows_of(0.1)] for name in ("Caltech-101", "d")
    )
    assert [cells(results(rows))[1][-1] for rows in (here, elsewhere)] == ["94.0, 0.0", ""]


def test_only_what_is_between_the_marks_is_replaced() -> None:
    (start, end), (first, last) = marks(), marks("a")

    def page(table: str, section: str) -> str:
        return f"before\n{start}\n{table}{end}\nbetween\n{first}\n{section}{last}\nafter\n"

    assert between_marks(page("old\n", "a\n"), "new\n") == page("new\n", "a\n")
    assert between_marks(page("old\n", "a\n"), "new\n", "a") == page("old\n", "new\n")
    assert between_marks("before\n", "new\n") == f"before\n\n{start}\nnew\n{end}\n"


@pytest.mark.parametrize("page", ["{0}\nprose", "prose\n{1}", "{1}\nprose\n{0}", "{0}\n{1}\n{0}\n{1}", "{0}{1}{1}"])
def test_a_page_whose_marks_do_not_fit_is_refused(page: str) -> None:
    with pytest.raises(RvptError, match=r"<!-- rows --> once and <!-- /rows --> once"):
        between_marks(page.format(*marks()), "new\n")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_names_stay_in_their_cells(layout: str) -> None:
    hostile = {"model": "a|b\\|c", "data": "<!-- /rows -->\n# heading", "attack": "<script>|", "spec": {"lr": "1|2"}}
    runs = [rows_of(0.1, **hostile), rows_of(0.2, **{**hostile, "spec": {"lr": "3"}})]
    runs += [rows_of(0.3, defense=BEFORE, **hostile), rows_of(0.4, **{**hostile, "attack": "badnet"}, defense="none")]
    table = LAYOUTS[layout](joined(*runs))
    lines = [line for line in table.splitlines() if line.startswith("|")]
    assert len({len(re.findall(r"(?<!\\)(?:\\\\)*\|", line)) for line in lines}) == 1
    assert len(lines) >= 3
    assert "<" not in table.replace("&lt;", "")
    assert "\n# heading" not in table
