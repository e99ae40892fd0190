"""Compare `rvpt check`'s inversion with a naive loop over classes: seconds per class, and the ratio.

    python benchmarks/check.py --classes 24 --loop 4
    python benchmarks/check.py --model b32 --classes 100 --images 256 --loop 1

The naive loop optimizes one class at a time, with as many steps and images for every class as the check spends on its
finalists. It is timed on `--loop` classes. Images and texts are random: time does not depend on them. On
the CPU the seconds are CPU time.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.inversion.additive import Additive
from rvpt.inversion.descent import descend, towards
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.placement import find_device
from rvpt.rows import append_rows
from rvpt.training.loop import frozen


def open_clip_of(model: str, device: str | None) -> Clip:
    """A model by its name; b32 is a ViT-B/32 with random weights."""
    if model != "b32":
        return load_clip(model, device=device)
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    return Clip(CLIPModel(CLIPConfig()), None, source="b32").eval().to(find_device(device))


def make_pool(clip: Clip, classes: int, images: int) -> Pool:
    """Random images, and random texts that images are spread over."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(images, 3, clip.image_size, clip.image_size, generator=generator).to(clip.device)
    with torch.no_grad():
        width = clip.encode_image(pixels[:1]).shape[1]
    text = F.normalize(torch.randn(classes, width, generator=generator), dim=1).to(clip.device)
    return Pool.of(clip, pixels, text)


def run(pool: Pool, classes: Tensor, steps: int, images: int, spec: InversionSpec) -> float:
    """Seconds of one run for some classes together."""
    form = Additive.of(spec, pool.pixels.shape[-1])
    clock = time.perf_counter if pool.pixels.is_cuda else time.process_time  # other programs take no part in it
    begun = clock()
    descend(form, pool, towards(classes), form.start(len(classes)).to(pool.pixels.device), steps, images, spec)
    if pool.pixels.is_cuda:
        torch.cuda.synchronize()
    return clock() - begun


def compare(clip: Clip, classes: int, images: int, loop: int, spec: InversionSpec) -> dict[str, float]:
    """Seconds per class of the check and of the loop."""
    pool, every = make_pool(clip, classes, images), torch.arange(classes, device=clip.device)
    run(pool, every[:1], 1, spec.images, spec)  # warm-up
    ours = run(pool, every, spec.steps, spec.images, spec)
    ours += run(pool, every[: spec.finalists], spec.final_steps, spec.final_images, spec)
    naive = sum(run(pool, every[i : i + 1], spec.steps, spec.images, spec) for i in range(loop))
    naive += sum(run(pool, every[i : i + 1], spec.final_steps, spec.final_images, spec) for i in range(loop))
    return {"check": ours / classes, "loop": naive / loop, "ratio": (naive / loop) / (ours / classes)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-clip", help="folder, hub id, scenes-clip or b32")
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--images", type=int, default=64, help="images that each step draws from")
    parser.add_argument("--loop", type=int, default=4, help="classes that the naive loop is timed on")
    parser.add_argument("--device", default=None)
    parser.add_argument("--output", type=Path, help="JSONL file to append the result to")
    args = parser.parse_args()
    clip, spec = open_clip_of(args.model, args.device), InversionSpec()
    with frozen(clip):
        found = compare(clip, args.classes, args.images, args.loop, spec)
    print("  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    if args.output:
        facts = {
            "model": args.model,
            "classes": args.classes,
            "images": args.images,
            "device": str(clip.device),
            "spec": spec.model_dump(),
        }
        append_rows(args.output, [{**facts, **found}])


if __name__ == "__main__":
    main()
