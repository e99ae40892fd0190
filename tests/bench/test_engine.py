"""Engines: processes share threads and GPUs, end with their bench, and give the same rows as one process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from recipes import in_process, lasting, write_recipe
from rvpt.bench import engine, measured, plan, read_recipe, run_all
from rvpt.bench.engine import worker_shares
from rvpt.models.formats.load import load_clip
from tiny import Tiny

BENCH = """
import sys
from pathlib import Path
from rvpt.bench import plan, processes, read_recipe, run_all
from rvpt.models.formats.load import load_clip
recipe = read_recipe(Path(sys.argv[1])).part(defenses=["vpt"], seeds=[0])
with processes(1) as submit:
    ended = lambda outcome: print(outcome.error or "done", flush=True)
    run_all(plan(recipe, load_clip(recipe.model)), Path(sys.argv[2]), submit, ended, at_once=1)
"""


def test_a_killed_bench_takes_its_workers_with_it_and_can_be_continued(tiny: Tiny, tmp_path: Path) -> None:
    path, work = write_recipe(tiny, tmp_path), tmp_path / "runs"
    words = [sys.executable, "-c", BENCH, str(path), str(work)]
    bench = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    assert bench.stdout is not None
    assert bench.stdout.readline() == "done\n"
    bench.kill()  # alone; the worker goes on with the next task, and holds the other end of the pipe
    bench.communicate(timeout=120)  # until it has ended too
    recipe = read_recipe(path).part(defenses=["vpt"], seeds=[0])
    tasks = plan(recipe, load_clip(recipe.model))
    outcomes = run_all(tasks, work, in_process, lambda outcome: None)
    assert 0 < len(outcomes) < len(tasks)
    assert {outcome.error for outcome in outcomes} == {""}
    run_all(tasks, tmp_path / "whole", in_process, lambda outcome: None)
    assert lasting(measured(tasks, work)) == lasting(measured(tasks, tmp_path / "whole"))
    assert not list((work / "models").glob("*.run"))


def test_an_interrupted_bench_ends_at_once_and_without_a_traceback(tiny: Tiny, tmp_path: Path) -> None:
    path, work = write_recipe(tiny, tmp_path), tmp_path / "runs"
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from rvpt.cli import main; main()"
    words = [sys.executable, "-c", code, "bench", str(path), "--work-dir", str(work), "--num-workers", "2"]
    bench = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    while not (work / "locks").exists() and bench.poll() is None:
        time.sleep(0.05)
    bench.send_signal(signal.SIGINT)  # to the main process alone, while the second worker still starts
    assert bench.communicate(timeout=60) == ("", "interrupted\n")
    assert bench.returncode == 130
    assert not list(work.rglob("*.partial"))


def test_workers_share_threads_and_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.get_num_threads", lambda: 8)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    assert worker_shares(4) == [(2, "2"), (2, "5"), (2, "7"), (2, "2")]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert worker_shares(3) == [(2, None)] * 3


def test_a_worker_is_interrupted_once(monkeypatch: pytest.MonkeyPatch) -> None:
    handlers: list[object] = []
    monkeypatch.setattr("signal.signal", lambda number, handler: handlers.append(handler))
    with pytest.raises(KeyboardInterrupt):
        engine._interrupt_once(signal.SIGTERM, None)
    assert handlers == [signal.SIG_IGN]
