"""Rows on the screen: every run has a line, and no run hides another."""

import re

import pytest

from rvpt.cli.attack_summary import verdict
from rvpt.cli.tables import show_rows, show_verdicts
from rvpt.rows import BEFORE


def rows(rate, seed=0, alpha=1.0, attack="badnet", low=0.1, high=0.2):
    shared = {"model": "m", "data": "d", "defense": "rvpt", "seed": seed, "spec": {"alpha": alpha}}
    shared |= {"low": low, "high": high}
    return [
        {**shared, "attack": "none", "metric": "CA", "rate": 0.9},
        {**shared, "attack": attack, "metric": "ASR", "rate": rate},
    ]


@pytest.fixture
def lines(capsys):
    """lines(*runs): the cells of each line of the table's body."""

    def show(*runs):
        show_rows([row for run in runs for row in run], as_json=False)
        body = [line for line in capsys.readouterr().out.splitlines() if line.startswith("│")]
        return [[cell.strip() for cell in line.strip("│").split("│")] for line in body]

    return show


def test_one_measurement_has_its_interval(lines):
    first, second = lines(rows(0.15))
    assert first == ["d", "m", "badnet", "rvpt", "90.0", "15.0"]
    assert second[4:] == ["[10.0, 20.0]"] * 2


def test_seeds_share_a_line_and_settings_do_not(lines):
    found = lines(rows(0.1, seed=0), rows(0.3, seed=1))
    assert [line[4:] for line in found] == [["90.0 ± 0.0", "20.0 ± 14.1"]]
    found = lines(rows(0.1), rows(0.3, alpha=2.0))
    assert [line[3::2] for line in found[::2]] == [["rvpt, alpha=1.0", "10.0"], ["rvpt, alpha=2.0", "30.0"]]


def test_a_table_of_many_rates_has_room_for_names(lines):
    shared = rows(0.1)[0] | {"model": "a-model-of-ours", "low": 0.1, "high": 0.2}
    names = [f"readable_{name}" for name in ("background", "color", "place", "shape", "size", "texture")]
    first, second = lines([{**shared, "metric": name} for name in names])
    assert first[:4] == ["d", "a-model-of-ours", "none", "rvpt"]
    assert second[4:] == ["[10.0, 20.0]"] * 6


def test_names_are_not_folded_where_there_is_no_terminal(lines, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    name = "a-model-with-a-long-name-" * 8
    first, _ = lines([{**row, "model": name} for row in rows(0.1)])
    assert first[:4] == ["d", name, "badnet", "rvpt"]


def test_a_mean_has_no_interval_and_what_was_not_measured_has_a_dash(lines):
    mean = {**rows(0.25, low=None)[1], "metric": "rank_ratio"}
    first, _, third, _ = lines([mean, *rows(0.1, attack="blended")])
    assert [first[4:], third[4:]] == [["90.0", "–", "25.0"], ["90.0", "10.0", "–"]]


def test_names_are_shown_as_they_are(capsys):
    found = [{**row, "model": "[red]x[/b]", "data": ":cat:"} for row in rows(0.1)]
    show_rows(found, as_json=False, folders={"a[/b]": "0", "[bold]c": "1"})
    shown = capsys.readouterr().out
    assert "[red]x[/b]" in shown
    assert ":cat:" in shown


def test_a_table_is_as_wide_as_a_terminal_and_wide_where_there_is_none(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    widths = []
    for terminal in (True, False):
        monkeypatch.setattr("rich.console.Console.is_terminal", terminal)
        show_rows(rows(0.15), as_json=False)
        shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().out)
        widths.append(max(map(len, shown.splitlines())))
        assert shown.count("[10.0, 20.0]") == 2
    assert widths[0] <= 60 < widths[1]


@pytest.mark.parametrize(
    ("accuracies", "successes", "said"),
    [
        ((0.9, 0.89), (0.0, 0.95), ["CA 90.0% -> 89.0%", "badnet: ASR 0.0% -> 95.0%, the attack succeeded"]),
        ((0.9, 0.8), (0.0, 0.2), ["a conspicuous loss: use a smaller --lr", "the attack failed: increase"]),
        ((0.9, 0.9), (0.7, 0.9), ["high before the attack too"]),
    ],
)
def test_an_attack_is_judged_by_the_rows_before_and_after(accuracies, successes, said):
    judged = [
        {"defense": defense, "attack": attack, "metric": metric, "rate": rate}
        for (defense, ca, asr) in zip((BEFORE, "none"), accuracies, successes, strict=True)
        for attack, metric, rate in (("none", "CA", ca), ("badnet", "ASR", asr))
    ]
    text = "\n".join(verdict(judged))
    assert all(words in text for words in said), text


def test_a_p_value_says_what_it_compares(capsys):
    known = {"verdict": "suspicious", "p_value": 0.023, "targets": [{"class": "owl", "share": 0.5}], "calibrated": True}
    show_verdicts({"known": known, "other": {**known, "calibrated": False}})
    shown = capsys.readouterr().out
    assert shown.count("0.023") == 2
    assert shown.count("score 0.023") == 1
