"""Loading any model: a CLIP, or a cleaned one."""

from __future__ import annotations

from pathlib import Path

import torch

from rvpt.models.cleaned import Cleaned
from rvpt.models.cleaned_config import find_config
from rvpt.models.clip import Clip
from rvpt.models.formats.hf import load_clip


def load(
    path: str | Path,
    *,
    base: str | Path | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype | str | None = None,
    revision: str | None = None,
) -> Clip | Cleaned:
    """Load a Clip, or a Cleaned if the folder holds one.

    Args:
        path: a folder in transformers' layout, a cleaned model's folder, a hub id, or "scenes-clip" (embedded).
        base: the base model of a cleaned one, if it is not found automatically.
        device: where to put it; by default the GPU, if there is one.
        dtype: of the weights, such as torch.bfloat16 or "bf16"; by default float32.
        revision: branch, tag or commit of a hub model.

    Raises:
        RvptError: not found, not a ViT CLIP, only pickled weights, weights that are not finite, or a wrong base model.
    """
    folder = Path(path).expanduser()
    if folder.is_dir() and find_config(folder):
        return Cleaned.from_pretrained(folder, base, device=device, dtype=dtype)
    return load_clip(path, device=device, dtype=dtype, revision=revision)
