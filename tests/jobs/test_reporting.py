"""A folder's report: what it shows, and how it names the folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from results import joined, rows_of
from rvpt.errors import RvptError
from rvpt.jobs.reporting import gather_results, write_folder_report, write_report
from rvpt.rows import write_rows


def test_a_folder_gets_its_report_under_its_final_name(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", joined(rows_of(0.9, defense="none"), rows_of(0.1)))
    path = write_folder_report(tmp_path, "rvpt-demo")
    assert path == tmp_path / "report.html"
    text = path.read_text(encoding="utf-8")
    assert "rvpt report rvpt-demo --output report.html" in text
    assert str(tmp_path) not in text
    assert write_folder_report(tmp_path).read_text(encoding="utf-8").count(tmp_path.name) >= 2


def test_the_title_names_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_rows(tmp_path / "rows.jsonl", rows_of(0.1))
    monkeypatch.chdir(tmp_path)
    write_report(gather_results([Path()]), Path("report.html"))
    text = Path("report.html").read_text(encoding="utf-8")
    assert f"<h1>Report of {tmp_path.name}</h1>" in text
    assert "from <code>.</code>" in text


def test_some_seeds_alone(tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.jsonl", joined(*(rows_of(0.1, seed=seed) for seed in (0, 1))))
    assert {row["seed"] for row in gather_results([tmp_path], [1]).rows} == {1}
    with pytest.raises(RvptError, match="no row has seed 5"):
        gather_results([tmp_path], [5])
