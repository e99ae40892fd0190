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
    """CA, PA and ASR, means over the attacks, of seed 0 with headroom."""
    rows = [row for name in ("headroom", "unlearn") for row in read_rows(ROOT / "rows" / f"{name}.jsonl")]
    mine = {
        (row["model"], row["attack"], row["metric"]): row["rate"]
        for row in rows
        if (row["defense"], row["data"], row["seed"]) == (defense, "scenes (blur)", 0)
    }
    pairs = [(model, attack) for model, attack, metric in mine if metric == "ASR"]
    assert len(pairs) == 12
    return [
        100 * mean(mine[model, "none" if metric == "CA" else attack, metric] for model, attack in pairs)
        for metric in ("CA", "PA", "ASR")
    ]


def test_all_lines_are_found():
    assert len(LINES) == 5


@pytest.mark.parametrize("line", LINES, ids=lambda line: line[0])
def test_a_line_is_what_the_rows_say(line):
    name, *shown = line
    defense = LABELS.get(name, name.strip("`").partition("`")[0])
    assert [f"{value:.1f}" for value in means(defense)] == shown
