"""Batches read ahead, by a thread or by processes, are those that are read one after the other."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from helpers import broken_folder, image_folder
from rvpt import Dataset
from rvpt.data import ahead
from rvpt.data.ahead import PART, read_ahead, to_unit, workers
from rvpt.data.reading import Unreadable

needs_fork = pytest.mark.skipif(sys.platform != "linux", reason="needs fork and the number of usable cores")


@pytest.fixture(params=["thread", pytest.param("processes", marks=needs_fork)])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(ahead, "workers", lambda reader, images: 2 if request.param == "processes" else 0)
    return request.param


def numbered(rows: Tensor, size: int) -> Tensor:
    """Images of the row's number."""
    return rows.to(torch.uint8)[:, None, None, None].expand(-1, 3, size, size)


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize("sizes", [[], [1], [PART + 3, PART + 3, 2], [5] * 9])
def test_batches_come_in_order(sizes: list[int]) -> None:
    batches = list(torch.randperm(sum(sizes), generator=torch.Generator().manual_seed(0)).split(sizes))
    read = list(read_ahead(numbered, batches, 4, "cpu"))
    assert len(read) == len(batches)
    for images, rows in zip(read, batches, strict=True):
        assert torch.equal(images, numbered(rows, 4).float() / 255)


@pytest.mark.usefixtures("way")
def test_files_are_read(tmp_path: Path) -> None:
    data = Dataset.from_folder(image_folder(tmp_path, n=40), "test")
    slow = torch.cat([data.pixels(torch.tensor([index]), 16) for index in range(len(data))])
    indices, pixels = zip(*data.batches(33, 16), strict=True)
    assert torch.equal(torch.cat(indices), torch.arange(80))
    assert torch.equal(torch.cat(pixels), slow)


@pytest.mark.usefixtures("way")
def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    data = Dataset.from_folder(broken_folder(tmp_path), "test")
    with pytest.raises(Unreadable, match=r"2 images: image 1 \(.*1\.png\) cannot be read"):
        list(data.batches(6, 16))


@needs_fork
def test_what_a_process_that_died_did_not_read_is_read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "workers", lambda reader, images: 2)
    here = os.getpid()

    def deadly(rows: Tensor, size: int) -> Tensor:
        if os.getpid() != here and 7 in rows:
            os._exit(1)
        return numbered(rows, size)

    read = torch.cat(list(read_ahead(deadly, list(torch.arange(40).split(4)), 2, "cpu")))
    assert torch.equal(read, numbered(torch.arange(40), 2).float() / 255)


@needs_fork
def test_a_reader_that_is_left_early_ends_its_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "workers", lambda reader, images: 2)
    before = children()
    batches = read_ahead(numbered, list(torch.arange(40).split(4)), 2, "cpu")
    next(batches)
    assert len(children() - before) == 2
    batches.close()
    assert children() == before


def children() -> set[str]:
    task = Path(f"/proc/self/task/{os.getpid()}/children")
    return set(task.read_text().split())


def test_processes_are_for_many_files_on_many_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(12), raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    files = Dataset.from_folder(image_folder(tmp_path), "test").reader
    assert workers(files, 10_000) == 12
    assert workers(files, 100) == 0
    assert workers(numbered, 10_000) == 0
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(4), raising=False)
    assert workers(files, 10_000) == 0


def test_all_values_of_a_pixel_become_their_quotient() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert to_unit(values).tolist() == (values.numpy() / torch.tensor(255).numpy()).astype("float32").tolist()


@pytest.mark.gpu
def test_on_a_gpu_pixels_have_the_same_bits() -> None:
    values = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_unit(values.cuda()).cpu(), to_unit(values))
