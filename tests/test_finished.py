"""Benchmarks of a bench's models say so where there are none."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import check_zoo
import monitor


@pytest.mark.parametrize(
    ("script", "words", "kind"), [(monitor, [], "clean"), (check_zoo, ["collect"], "check")], ids=["monitor", "check"]
)
def test_a_work_folder_without_finished_runs_is_one_line_and_exit_code_2(
    script: Any, words: list[str], kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    places = ["--work-dir", str(tmp_path / "runs"), "--rows", str(tmp_path / "rows.jsonl")]
    monkeypatch.setattr(sys, "argv", ["script", *words, *places])
    with pytest.raises(SystemExit) as ended:
        script.main()
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"runs holds no finished '{kind}' of the " in line
    assert not list(tmp_path.iterdir())
