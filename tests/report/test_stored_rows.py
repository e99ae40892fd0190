"""The rows in the repository are in today's vocabulary, and every layout reads them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rvpt.errors import RvptError
from rvpt.report import LAYOUTS
from rvpt.rows import read_measurements

ROWS = Path(__file__).parents[2] / "rows"
FILES = sorted(path for path in ROWS.glob("*.jsonl") if '"attack"' in path.read_text())  # others are benchmarks/
RATES = {
    "adversarial",
    "encoding",
    "headroom-resistivity",
    "monitor",
    "resistivity",
    "retrieval",
}  # with rates other than CA, ASR and PA
WITHOUT = {
    "matrix": RATES,
    "costs": {"photos-attacks", "photos-zoo", "targets", "zoo", "zoo-seed-3"},  # no cleaned model
    "paper": {*RATES, "targets", "templates", "headroom-templates"},  # no cell of table 2
    # no PA, or several for one attack
    "recovery": {*RATES - {"adversarial"}, "targets", "templates", "headroom-templates", "zoo"},
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_can_be_reported(path: Path, layout: str) -> None:
    rows = read_measurements(path)
    if path.stem in WITHOUT.get(layout, ()):
        with pytest.raises(RvptError, match="no r"):
            LAYOUTS[layout](rows)
        return
    for table in re.split("^### ", LAYOUTS[layout](rows), flags=re.MULTILINE):  # "###### {}" is a caption
        lines = [line for line in table.splitlines() if line.startswith("|")]
        assert len(lines) != 1
        assert len({line.count("|") for line in lines}) <= 1


@pytest.mark.parametrize("path", sorted(ROWS.glob("*.json*")), ids=lambda path: path.stem)
def test_words_are_todays(path: Path) -> None:
    text = path.read_text()
    old = ("defence", "colour", "grey", "posterise", "pictures", '"precision": "no"', '"length"', '"pairs"')
    assert [word for word in old if word in text] == []
