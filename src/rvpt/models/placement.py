"""The device and dtype of a model, by name."""

from __future__ import annotations

import os
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from rvpt.errors import RvptError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def find_device(asked: str | torch.device | None = None) -> torch.device:
    """The device called `asked`; by default the GPU if there is one (in a launch, each process its own), or the CPU.

    Raises:
        RvptError: no such device on this machine.
    """
    if asked is None:
        if not torch.cuda.is_available():
            return torch.device("cpu")
        return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    try:
        device = torch.device(asked)
        torch.empty(1, device=device).cpu()  # not of torch's device "meta", which has no values
    except (RuntimeError, AssertionError, NotImplementedError, ModuleNotFoundError):
        raise RvptError(f"device={asked} is not available on this machine: use cpu") from None
    return device


def find_dtype(asked: str | torch.dtype | None = None) -> torch.dtype:
    """The dtype called `asked` (fp32, bf16, fp16, or torch's own name); by default float32.

    Raises:
        RvptError: it is not a floating-point dtype.
    """
    found = DTYPES.get(asked, getattr(torch, asked, None)) if isinstance(asked, str) else asked or torch.float32
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise RvptError(f"dtype={asked} is not a floating-point dtype: choose from {', '.join(DTYPES)}")
    return found


def mixed_precision(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """The arithmetic of training at a precision (fp32, bf16 or fp16), for passes outside of the training loop."""
    return nullcontext() if precision == "fp32" else torch.autocast(device.type, DTYPES[precision])


def refuse_half(dtype: torch.dtype) -> None:
    """Refuse to train weights of 16 bits: small updates would be lost, and the result would fit no model on disk.

    Raises:
        RvptError: it is such a dtype.
    """
    if torch.finfo(dtype).bits < 32:
        raise RvptError(f"weights in {dtype} cannot be trained: load the model without dtype, and use precision=bf16")
