"""The numbers of the README are those of the rows that it names."""

import re
from pathlib import Path
from statistics import mean

import pytest

from rvpt.rows import BEFORE, read_rows

ROOT = Path(__file__).parent.parent
RATE = r"\**([\d.]+)\**"
LINES = re.findall(rf"^\| (.+?) \| {RATE} \| {RATE} \| {RATE} \|$", (ROOT / "README.md").read_text(), re.MULTILINE)
LABELS = {"the clean model, before the attack": BEFORE}


def means(defense):
    """CA, PA and ASR with headroom, means over attacks and seeds."""
    rows = [row for row in read_rows(ROOT / "rows" / "headroom.jsonl") if row["defense"] == defense]
    mine = {(row["seed"], row["model"], row["attack"], row["metric"]): row["rate"] for row in rows}
    runs = [key[:3] for key in mine if key[3] == "ASR"]
    assert {row["data"] for row in rows} == {"scenes (blur)"}
    assert len(runs) == 12 * 3
    return [
        100 * mean(mine[seed, model, "none" if metric == "CA" else attack, metric] for seed, model, attack in runs)
        for metric in ("CA", "PA", "ASR")
    ]


def test_all_lines_are_found():
    assert len(LINES) == 7


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_line_is_what_the_rows_say(line):
    name, *shown = line
    defense = LABELS.get(name, name.strip("`").partition("`")[0])
    assert [f"{value:.1f}" for value in means(defense)] == shown
