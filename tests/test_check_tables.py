"""The page about checks has the tables that follow from the stored rows and the shipped calibration."""

from __future__ import annotations

from pathlib import Path

from check_collect import latest
from check_tables import Zoo, alarms, attacks, every, models, published, rates, referenced, uncalibrated, without
from rvpt.detection.calibration import Calibration
from rvpt.report.markdown import marks

ROOT = Path(__file__).parents[1]


def test_tables_of_the_page_follow_from_the_rows() -> None:
    page = (ROOT / "docs" / "results" / "check.md").read_text(encoding="utf-8")
    zoo = Zoo(latest(ROOT / "rows" / "check.jsonl"), Calibration.read())
    for section in (rates, uncalibrated, referenced, alarms, attacks, published, models):
        start, end = marks(section.__name__)
        assert page.split(start)[1].split(end)[0].strip() == "\n".join(section(zoo)).strip()


def test_all_models_of_another_recipe_are_judged_one_by_one() -> None:
    page = (ROOT / "docs" / "results" / "adaptive.md").read_text(encoding="utf-8")
    zoo = Zoo(latest(ROOT / "rows" / "adaptive-check.jsonl"), Calibration.read())
    start, end = marks("every")
    assert page.split(start)[1].split(end)[0].strip() == "\n".join(every(zoo)).strip()


def test_a_model_is_judged_without_itself() -> None:
    row, calibration = latest(ROOT / "rows" / "check.jsonl")[0], Calibration.read()
    assert row["sha256"] in {model["sha256"] for model in calibration.models}
    rest = without(calibration, row)
    assert row["sha256"] not in {model["sha256"] for model in rest.models}
    assert all(row["rises"][form] not in known for form, known in rest.natural.items())
    assert all(len(known) == len(calibration.natural[form]) - 1 for form, known in rest.natural.items())
