"""How exact the constants of 16-bit training are: the frozen pass in bf16, compared with float32.

python benchmarks/constants.py --output rows/constants.jsonl

Errors are |a - b| / |b| over all values; `worst_cosine` is the lowest cosine of a [CLS] row with its float32 version,
where the feature-repelling loss is a mean of cosines.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

import rvpt
from rvpt.models.packed import packed
from rvpt.models.placement import DTYPES, mixed_precision
from rvpt.models.prompts import frozen_pass
from rvpt.rows import append_rows
from sizes import MODELS, random_clip


def relative(found: Tensor, exact: Tensor) -> float:
    return float((found.float() - exact).norm() / exact.norm())


@torch.no_grad()
def measure(model: str, images: int, precision: str, device: str) -> dict[str, object]:
    """One row; scenes is the shipped model on its own images, others are random."""
    if model == "scenes":
        clip, data = rvpt.load("scenes-clip", device=device), rvpt.load_data("scenes:500", "test").sample(images)
        pixels = data.pixels(torch.arange(images), clip.image_size)
    else:
        clip = random_clip(model, device, ["cat", "dog"])
        pixels = torch.rand(images, 3, clip.image_size, clip.image_size, generator=torch.Generator().manual_seed(0))
    first = MODELS[model].first_block
    tokens, rows = frozen_pass(clip, pixels, first)
    with mixed_precision(precision, clip.device):
        fast_tokens, fast_rows = frozen_pass(packed(clip, DTYPES[precision]), pixels, first)
    return {
        "model": model, "images": images, "precision": precision, "device": device, "torch": torch.__version__,
        "token_error": relative(fast_tokens, tokens), "row_error": relative(fast_rows, rows),
        "worst_cosine": float(F.cosine_similarity(fast_rows.float(), rows, dim=-1).min()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="scenes,b32,b16", help=f"a list of {','.join(MODELS)}")
    parser.add_argument("--images", type=int, default=16)
    parser.add_argument("--precision", default="bf16", choices=("bf16", "fp16"))
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    asked = parser.parse_args()
    for model in asked.models.split(","):
        row = measure(model, asked.images, asked.precision, asked.device)
        print(row, flush=True)
        if asked.output:
            append_rows(asked.output, [row])


if __name__ == "__main__":
    main()
