"""The Ray engine on a local cluster of two workers, one of which is killed under way."""

import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from rvpt.bench import plan, read_recipe, run_all
from rvpt.bench.engine import ray_cluster
from test_bench import lasting, recipe

ray = pytest.importorskip("ray", reason="the ray extra is not installed")
pytestmark = pytest.mark.slow


def worker_processes():
    """Process ids of Ray workers that run a task of ours."""
    import psutil

    return [p.pid for p in psutil.process_iter(["cmdline"]) if "ray::execute" in " ".join(p.info["cmdline"] or [])]


def kill_one(deadline):
    while time.monotonic() < deadline:
        if found := worker_processes():
            time.sleep(2)  # let it get into its work
            os.kill(found[0], signal.SIGKILL)
            return True
        time.sleep(0.1)
    return False


def test_it_ends_with_the_rows_of_the_local_engine_though_a_worker_dies(tiny, tmp_path):
    from rvpt.bench import measured, processes

    tasks = plan(read_recipe(recipe(tiny, tmp_path)), "hash")
    with ray_cluster(None, workers=2) as submit, ThreadPoolExecutor(1) as pool:
        killed = pool.submit(kill_one, time.monotonic() + 120)
        outcomes = run_all(tasks, tmp_path / "ray", submit, lambda outcome: None)
    assert killed.result()
    assert [outcome.error for outcome in outcomes] == [""] * len(tasks)
    with processes(2) as submit:  # one thread each, as Ray gives its workers
        run_all(tasks, tmp_path / "local", submit, lambda outcome: None)
    ours, theirs = (measured(tasks, tmp_path / name) for name in ("ray", "local"))
    assert lasting(ours) == lasting(theirs)
