"""Loading any model: a CLIP, or a cleaned one."""

from __future__ import annotations

from pathlib import Path

import torch

from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.cleaned_config import find_config
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip


def load(
    path: str | Path,
    *,
    base: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
    activation: str | None = None,
) -> Clip | Cleaned:
    """Load a Clip, or a Cleaned if the folder holds one.

    Args:
        path: a folder of transformers or open_clip, a file of weights (safetensors, or PyTorch's, which is read without
            unpickling), a cleaned model's folder, a hub id, "open_clip:NAME:TAG", or a shipped model: "scenes-clip",
            "scenes-clip-backdoored".
        base: the base model of a cleaned one, if it is not found automatically.
        device: where to put it; by default the GPU, if there is one.
        dtype: of the weights, such as torch.bfloat16 or "bf16"; by default float32.
        revision: branch, tag or commit of a hub model.
        activation: of a CLIP whose files do not state it: "quick_gelu" or "gelu".

    Raises:
        RvptError: not found, not a ViT CLIP, damaged or hostile files, weights that are not finite, a wrong base model,
            or a revision or activation of a cleaned model, which states its own.
    """
    folder = Path(path).expanduser()
    if str(path) and folder.is_dir() and find_config(folder):  # "" is no name of the current folder
        for name, given in {"revision": revision, "activation": activation}.items():
            if given is not None:
                raise RvptError(f"{path} is a cleaned model, which states it itself: remove {name}={given}")
        return Cleaned.from_pretrained(folder, base, device=device, dtype=dtype)
    return load_clip(path, device=device, dtype=dtype, revision=revision, activation=activation)
