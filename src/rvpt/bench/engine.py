"""Where tasks run: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from rvpt.bench.execute import execute
from rvpt.bench.plan import Task
from rvpt.errors import RvptError

Submit = Callable[[Task, Path], "Future[float]"]
RETRIES = 3  # how often Ray retries a task whose worker died


@contextmanager
def processes(workers: int, device: str | None = None) -> Iterator[Submit]:
    """Tasks in processes that share the cores and GPUs. If a process is killed, the run stops and can be continued.

    Args:
        workers: how many processes.
        device: where models compute; by default each worker's GPU, or the CPU.
    """
    context = multiprocessing.get_context("spawn")
    shares: Any = context.Queue()
    for share in worker_shares(workers):
        shares.put(share)
    with ProcessPoolExecutor(workers, context, initializer=_take_share, initargs=(shares,)) as pool:
        yield lambda task, work: _submit(pool, task, work, device)


def _submit(pool: ProcessPoolExecutor, task: Task, work: Path, device: str | None) -> Future[float]:
    """Submit a task with SIGINT blocked, which workers that are started now inherit.

    Ctrl-C on a terminal reaches them too, but only the main process answers it: it ends them with SIGTERM.
    """
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        return pool.submit(_interruptible, task, work, device)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(_interruptible, task, work, device)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def ray_cluster(address: str | None, workers: int, device: str | None = None) -> Iterator[Submit]:
    """Tasks on a Ray cluster; without an address, on a new local cluster with `workers` workers.

    All machines need access to the work folder. A task whose worker died is run again.

    Raises:
        RvptError: Ray is not installed.
    """
    try:
        import ray
    except ImportError:
        raise RvptError("the ray engine needs Ray: pip install 'rvpt[ray]'") from None
    ray.init(address=address, num_cpus=None if address else workers, log_to_driver=False, logging_level="error")
    try:
        gpus = 0 if device == "cpu" else min(1, ray.cluster_resources().get("GPU", 0))
        remote = ray.remote(max_retries=RETRIES, num_gpus=gpus)(execute)
        yield lambda task, work: remote.remote(task, work, device).future()
    finally:
        ray.shutdown()


def worker_shares(workers: int) -> list[tuple[int, str | None]]:
    """For each worker its number of threads, and its GPU as in CUDA_VISIBLE_DEVICES."""
    import torch

    threads = max(1, torch.get_num_threads() // workers)  # which OMP_NUM_THREADS and the CPU affinity limit
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    gpus = named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]
    return [(threads, gpus[worker % len(gpus)] if gpus else None) for worker in range(workers)]


def _take_share(shares: Any) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    threads, gpu = shares.get()
    if gpu is not None:  # before CUDA is initialized
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    import torch

    torch.set_num_threads(threads)


def _interruptible(task: Task, work: Path, device: str | None) -> float:
    """Run a task in a worker. SIGTERM interrupts it, so that it saves its state, and then ends the worker."""
    before = signal.signal(signal.SIGTERM, _interrupt_once)
    try:
        return execute(task, work, device)
    except KeyboardInterrupt:
        os._exit(1)  # not to the next task
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt_once(number: int, frame: FrameType | None) -> None:
    """Interrupt the task; a second SIGTERM must not interrupt the saving of its state."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    raise KeyboardInterrupt


def _end_with_parent() -> None:
    """End this worker as soon as the main process has ended."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
