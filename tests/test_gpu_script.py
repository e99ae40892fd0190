"""The script for a GPU, at tiny sizes on the CPU: every stage writes its rows."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from rvpt.rows import read_rows

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "gpu.sh"
TOOLS = ("bash", "timeout")
needs_tools = pytest.mark.skipif(not all(map(shutil.which, TOOLS)), reason="needs bash and timeout")


@needs_tools
def test_without_time_left_no_stage_runs(tmp_path: Path) -> None:
    run = subprocess.run(
        ["bash", SCRIPT, tmp_path], env={**os.environ, "SIZE": "tiny", "BUDGET": "0"}, capture_output=True, text=True
    )
    assert run.returncode == 0
    assert run.stdout.count("no time left for: python3 ") == 5
    assert not list(tmp_path.glob("*.jsonl"))


@needs_tools
@pytest.mark.slow
def test_every_stage_writes_its_rows(tmp_path: Path) -> None:
    environment = {**os.environ, "SIZE": "tiny", "BUDGET": "3600", "PYTHON": sys.executable}  # a busy machine is slow
    run = subprocess.run(["bash", SCRIPT, tmp_path], env=environment, capture_output=True, text=True)
    assert run.stdout.count("exit status 0") == 5, run.stdout + run.stderr
    assert {row["cache"] for row in read_rows(tmp_path / "large.jsonl")} == {"device", "host", "off"}
    assert {row["what"] for row in read_rows(tmp_path / "step.jsonl")} == {"step"}
    assert {row["way"] for row in read_rows(tmp_path / "end-to-end.jsonl")} == {"rvpt", "naive", "maple"}
    assert "skipped" in (tmp_path / "tests.txt").read_text()
    assert (tmp_path / "profile.txt").stat().st_size > 0
