"""Compare `rvpt check`'s inversion with a naive loop over classes: seconds per class, and the ratio.

    python benchmarks/check.py --classes 24 --loop 4
    python benchmarks/check.py --model b32 --classes 100 --images 256 --together 4 --timed 1 --loop 1

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


def run(pool: Pool, classes: Tensor, steps: int, images: int, spec: InversionSpec, timed: int) -> float:
    """Seconds of one run for some classes together, from those of its first `timed` steps: all take the same time."""
    form = Additive.of(spec, pool.pixels.shape[-1])
    start, some = form.start(len(classes)).to(pool.pixels.device), min(steps, timed)
    clock = time.perf_counter if pool.pixels.is_cuda else time.process_time  # other programs take no part in it
    begun = clock()
    descend(form, pool, towards(classes), start, some, images, spec)
    if pool.pixels.is_cuda:
        torch.cuda.synchronize()
    return (clock() - begun) * steps / some


def compare(pool: Pool, loop: int, together: int, timed: int, spec: InversionSpec) -> dict[str, float]:
    """Seconds per class of the check and of the loop.

    Args:
        pool: images and model.
        loop: classes that the loop is timed on.
        together: classes that the check's short run is timed on, as one batch or several.
        timed: steps of each run that are timed.
        spec: steps and images of both runs.
    """
    classes = len(pool.text)
    every = torch.arange(classes, device=pool.pixels.device)
    run(pool, every[:1], 1, spec.images, spec, 1)  # warm-up
    short, long = (spec.steps, spec.images, spec, timed), (spec.final_steps, spec.final_images, spec, timed)
    ours = run(pool, every[:together], *short) / together + run(pool, every[: spec.finalists], *long) / classes
    naive = sum(run(pool, every[i : i + 1], *each) for i in range(loop) for each in (short, long)) / loop
    return {"check": ours, "loop": naive, "ratio": naive / ours}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-clip", help="folder, hub id, scenes-clip or b32")
    parser.add_argument("--classes", type=int, default=24)
    parser.add_argument("--images", type=int, default=64, help="images that each step draws from")
    parser.add_argument("--loop", type=int, default=4, help="classes that the naive loop is timed on")
    parser.add_argument("--together", type=int, help="classes of the check that are timed; by default all")
    parser.add_argument("--timed", type=int, default=1_000, help="steps of each run that are timed; the rest is scaled")
    parser.add_argument("--device", default=None)
    parser.add_argument("--output", type=Path, help="JSONL file to append the result to")
    args = parser.parse_args()
    clip, spec = open_clip_of(args.model, args.device), InversionSpec()
    with frozen(clip):
        pool = make_pool(clip, args.classes, args.images)
        found = compare(pool, args.loop, args.together or args.classes, args.timed, spec)
    print("  ".join(f"{name} {value:.3g}" for name, value in found.items()))
    if args.output:
        asked = {name: getattr(args, name) for name in ("model", "classes", "images", "loop", "together", "timed")}
        facts = {**asked, "device": str(clip.device), "spec": spec.model_dump()}
        append_rows(args.output, [{**facts, **found}])


if __name__ == "__main__":
    main()
