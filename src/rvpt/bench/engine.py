"""Where tasks run: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from rvpt.bench.execute import execute
from rvpt.bench.plan import Task
from rvpt.errors import RvptError

Submit = Callable[[Task, Path], "Future[float]"]
RETRIES = 3  # how often Ray runs a task again whose worker died


@contextmanager
def processes(workers: int) -> Iterator[Submit]:
    """Tasks in processes that share the cores; if one is killed the run ends, and can go on later."""
    threads = max(1, (os.cpu_count() or 1) // workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=_use_threads, initargs=(threads,)) as pool:
        yield lambda task, work: pool.submit(execute, task, work)


@contextmanager
def ray_cluster(address: str | None, workers: int) -> Iterator[Submit]:
    """Tasks on a Ray cluster, or without an address on a new local one of so many workers.

    All machines must see the work folder. A task whose worker died is run again.
    """
    try:
        import ray
    except ImportError:
        raise RvptError("the ray engine needs Ray: pip install 'rvpt[ray]'") from None
    ray.init(address=address, num_cpus=None if address else workers, log_to_driver=False, logging_level="error")
    try:
        remote = ray.remote(max_retries=RETRIES)(execute)
        yield lambda task, work: remote.remote(task, work).future()
    finally:
        ray.shutdown()


def _use_threads(threads: int) -> None:
    import torch

    torch.set_num_threads(threads)
