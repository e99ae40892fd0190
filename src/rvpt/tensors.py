"""Tensors on disk as safetensors, and their hashes: nothing is pickled or unpickled."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from rvpt.errors import RvptError
from rvpt.files import disk_errors, share


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors from any device, with strings as the metadata of the file.

    Raises:
        MachineError: the disk is full or not writable.
    """
    with disk_errors(path):
        copies = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
        save_file(copies, path, metadata=metadata)
        share(path)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RvptError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file.

    Raises:
        RvptError: the file is missing or damaged.
    """
    with _opened(path) as file:
        return dict(file.metadata() or {})


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise RvptError(f"{path} is missing")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise RvptError(f"{path} is not a complete safetensors file ({error}): download or create it again") from None


def sha256_tensors(tensors: Mapping[str, Tensor]) -> str:
    """Hex sha256 over name, dtype, shape and bytes of each tensor, in the order of the names."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        value = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()
