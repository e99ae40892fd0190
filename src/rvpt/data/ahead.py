"""Reading batches of images before they are needed: by a thread, or by processes where many files are decoded."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import closing
from mmap import mmap
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor

from rvpt.data.source import Reader

Images = Generator[Tensor, None, None]
SLOTS = 3  # batches in memory
PART = 32  # images that a process decodes at a time
MANY = 1024  # images from which it pays to start processes
CORES = 8  # cores from which processes are faster than threads, which take turns in a part of the work
MOST = 16  # processes


def read_ahead(reader: Reader, batches: Sequence[Tensor], size: int, device: torch.device | str) -> Images:
    """Images (B, 3, size, size) float32 in [0, 1] on a device, of each of `batches` of rows.

    The next batches are read while one is used.
    """
    if not batches:
        return
    processes = workers(reader, sum(map(len, batches)))
    raw = _by_processes(reader, batches, size, processes) if processes else _by_thread(reader, batches, size)
    with closing(raw):
        for images in raw:
            yield to_unit(images.to(device))


def to_unit(images: Tensor) -> Tensor:
    """uint8 images as float32 in [0, 1], the same values on every device.

    A GPU would multiply by 1 / 255 instead if this were a number.
    """
    return images.float() / torch.full((), 255.0, device=images.device)


def workers(reader: Reader, images: int) -> int:
    """How many processes decode; 0 for a thread."""
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else 0
    pays = getattr(reader, "decodes", False) and images >= MANY and cores >= CORES
    return min(cores, MOST) if pays else 0


def _by_thread(reader: Reader, batches: Sequence[Tensor], size: int) -> Images:
    with ThreadPoolExecutor(1) as ahead:
        pending = ahead.submit(reader, batches[0], size)
        for number in range(len(batches)):
            images = pending.result()
            if number + 1 < len(batches):
                pending = ahead.submit(reader, batches[number + 1], size)
            yield images


def _by_processes(reader: Reader, batches: Sequence[Tensor], size: int, processes: int) -> Images:
    """Like `_by_thread`. The processes are forked, so they have the reader, and write into memory that all share.

    What a process did not read is read again here, which raises the error where there is one.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")  # its default, without a warning when processes start
    slots = [_shared(max(map(len, batches)), size) for _ in range(SLOTS)]
    pool = ProcessPoolExecutor(processes, get_context("fork"), _begin, (reader, slots, size))
    pending = [_submit(pool, number, batches[number]) for number in range(min(SLOTS, len(batches)))]
    try:
        for number, rows in enumerate(batches):
            images = slots[number % SLOTS][: len(rows)]
            for part, done in zip(_parts(len(rows)), pending[number], strict=True):
                if done is None or done.exception() or not done.result():
                    images[part] = reader(rows[part], size)
            yield images
            if number + SLOTS < len(batches):
                pending.append(_submit(pool, number + SLOTS, batches[number + SLOTS]))
    finally:
        pool.shutdown(cancel_futures=True)


def _shared(n: int, size: int) -> Tensor:
    """Memory of n images, uint8 (n, 3, size, size), that forked processes share."""
    return torch.frombuffer(mmap(-1, n * 3 * size * size), dtype=torch.uint8).view(n, 3, size, size)


def _parts(n: int) -> list[slice]:
    return [slice(start, min(n, start + PART)) for start in range(0, n, PART)]


def _submit(pool: ProcessPoolExecutor, number: int, rows: Tensor) -> list[Future[bool] | None]:
    """Ask for the parts of a batch; None where a process has died."""
    try:
        return [pool.submit(_read, number % SLOTS, part.start, rows[part].tolist()) for part in _parts(len(rows))]
    except BrokenExecutor:
        return [None for _ in _parts(len(rows))]


_mine: dict[str, Any] = {}
"""Of a process that decodes: the reader, the memory to write to, and the side of the images."""


def _begin(reader: Reader, slots: list[Tensor], size: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the main process, which ends this one
    torch.set_num_threads(1)  # the threads of the main process do not exist here
    _mine.update(reader=reader, slots=slots, size=size)


def _read(slot: int, start: int, rows: list[int]) -> bool:
    """Whether the images could be read."""
    try:
        _mine["slots"][slot][start : start + len(rows)] = _mine["reader"](torch.tensor(rows), _mine["size"])
    except Exception:  # not all errors can be sent to another process
        return False
    return True
