"""Compare `rvpt check`'s inversion of many classes with a naive loop over them: seconds per class, and the ratio.

    python benchmarks/check.py --classes 100 --output rows/check-speed.jsonl
    python benchmarks/check.py --model b32 --classes 100 --images 256 --together 8 --timed 1
    python benchmarks/check.py --model scenes-clip-backdoored --whole additive
    python benchmarks/check.py --model scenes-clip-backdoored --whole additive --drop-none

The naive loop gives every class the short and the longer run and the scoring after it, one class at a time. The check
drops classes from the short run and gives the longer one to the finalists, in shared batches. Each part is timed on a
few steps, of `--together` classes at a time, and scaled by its numbers of classes, steps and images; a row has these
numbers. `--whole FORM` times all of one form instead, without the loop. Images and texts are random:
time does not depend on them. On the CPU the seconds are CPU time, which other programs hardly change.
"""

from __future__ import annotations

import argparse
import random
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.data.load import load_data
from rvpt.detection.collapse import whole_words
from rvpt.detection.search import Inversion, Search
from rvpt.detection.spec import CheckSpec
from rvpt.inversion import halving
from rvpt.inversion.additive import Additive
from rvpt.inversion.descent import descend, reached, towards
from rvpt.inversion.pool import Pool
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.placement import find_device
from rvpt.rows import append_rows
from rvpt.training.loop import frozen
from rvpt.training.stages import Stages

SCORED = 24  # images that scoring is timed on


@dataclass(frozen=True)
class Part:
    """What some classes get: steps of a descent with so many images each, and a score on held-out images."""

    classes: int
    steps: int
    images: int
    held: int

    @property
    def passes(self) -> int:
        """Images that go through the model, forward; those of a descent count twice, for the gradient."""
        return self.classes * (2 * self.steps * self.images + self.held)


def parts_of_check(classes: int, images: int, spec: CheckSpec) -> list[Part]:
    """The short run, from which classes are dropped, and the longer run, of one form; what decides needs few images."""
    held, ends, parts = held_of(images, spec), [(spec.steps, classes)], list[Part]()
    if classes > halving.MOST:
        parts.append(Part(1, 0, 0, images - held + spec.steps * spec.images))
        counts = [max(halving.LEAST, classes // one_in) + halving.MIDDLE for _, one_in in halving.CUTS]
        steps = [int(share * spec.steps) for share, _ in halving.CUTS] + [spec.steps]
        ends = list(zip(steps, [classes, *counts], strict=True))
    begun = 0
    for end, count in ends:
        parts.append(Part(count, end - begun, spec.images, held if end == spec.steps else 0))
        begun = end
    return [*parts, Part(spec.finalists, spec.final_steps, spec.final_images, held)]


def parts_of_loop(classes: int, images: int, spec: CheckSpec) -> list[Part]:
    """Both runs for every class, scored after the longer one."""
    held = held_of(images, spec)
    return [
        Part(classes, spec.steps, spec.images, 0), Part(classes, spec.final_steps, spec.final_images, held),
    ]  # fmt: skip


def held_of(images: int, spec: CheckSpec) -> int:
    """How many of the images are held out."""
    return max(1, round(spec.held_out * images))


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


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds of some work; of CPU time, if that computes."""
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    begun = clock()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - begun


def seconds(part: Part, pool: Pool, together: int, steps: int, spec: CheckSpec) -> float:
    """Seconds of a part, from some steps of some classes together and from the scores of one pass for them."""
    form, classes = Additive.of(spec, pool.pixels.shape[-1]), torch.arange(together, device=pool.pixels.device)
    start, whole = form.start(together).to(pool.pixels.device), 0.0
    if part.steps:
        some = min(steps, part.steps)
        descent = timed(lambda: descend(form, pool, towards(classes), start, some, part.images, spec), start.device)
        whole = descent / some * part.steps / together * part.classes
    if part.held:
        scored = pool.select(torch.arange(min(part.held, SCORED), device=start.device))
        at_once = max(1, SCORED // len(scored))
        score = timed(lambda: reached(form, scored, classes[:at_once], start[:at_once], spec), start.device)
        whole += score / min(at_once, together) / len(scored) * part.held * part.classes
    return whole


def compare(pool: Pool, together: int, steps: int, spec: CheckSpec) -> dict[str, Any]:
    """Seconds per class of the check and of the loop, and what both compute."""
    classes = len(pool.text)
    check, loop = parts_of_check(classes, len(pool), spec), parts_of_loop(classes, len(pool), spec)
    seconds(Part(1, 1, spec.images, 1), pool, 1, 1, spec)  # warm-up
    ours = sum(seconds(part, pool, min(together, part.classes), steps, spec) for part in check) / classes
    naive = sum(seconds(part, pool, 1, steps, spec) for part in loop) / classes
    counted = sum(part.passes for part in loop) / sum(part.passes for part in check)
    return {
        "check": ours, "loop": naive, "ratio": naive / ours, "counted_ratio": counted,
        "check_parts": [asdict(part) for part in check], "loop_parts": [asdict(part) for part in loop],
    }  # fmt: skip


def names_of(clip: Clip, data: Dataset, count: int) -> list[str]:
    """So many names: the classes of the data, then these with a word of the tokenizer's vocabulary before them."""
    longer = [f"{word} {name}" for word in whole_words(clip) for name in data.classes]
    random.Random(0).shuffle(longer)
    return [*data.classes, *longer][:count]


def whole(clip: Clip, form: str, classes: int, images: int, spec: CheckSpec) -> dict[str, Any]:
    """Seconds of all of one form on `scenes` with so many classes, the median of all margins, and its finalists.

    A finalist has its name, the share of images that it flips, and its margin.
    """
    data = load_data("scenes", "train")
    some, names = data.sample(images, spec.seed), names_of(clip, data, classes)
    pixels = some.pixels(torch.arange(len(some)), clip.image_size).to(clip.device)
    runs: list[Inversion] = []
    search = Search(clip, pixels, names, spec, Stages(None))

    def invert() -> None:
        short = search.short(form)
        runs.append(search.long(short, [names[place] for place in short.rises.argsort(descending=True).tolist()]))

    taken = timed(invert, clip.device)
    [found] = runs
    columns = [found.finalists.tolist(), found.final.shares.tolist(), found.final.margins.tolist()]
    finalists = [[names[i], round(share, 3), round(margin, 4)] for i, share, margin in zip(*columns, strict=True)]
    median = round(float(found.short.middle), 4)
    kept = len(found.short.kept)
    return {"form": form, "check": taken / classes, "kept": kept, "median": median, "finalists": finalists}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-clip", help="folder, hub id, scenes-clip or b32")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--together", type=int, default=24, help="classes that are timed together")
    parser.add_argument("--timed", type=int, default=2, help="steps of each run that are timed")
    parser.add_argument("--whole", metavar="FORM", help="time all of one form instead")
    parser.add_argument("--drop-none", action="store_true", help="with --whole: the whole short run for all classes")
    parser.add_argument("--device", default=None)
    parser.add_argument("--output", type=Path, help="JSONL file to append the result to")
    args = parser.parse_args()
    clip, spec = open_clip_of(args.model, args.device), CheckSpec()
    if args.drop_none:
        halving.MOST = args.classes
    with frozen(clip):
        if args.whole:
            found = whole(clip, args.whole, args.classes, args.images, spec)
        else:
            found = compare(make_pool(clip, args.classes, args.images), args.together, args.timed, spec)
    print("  ".join(f"{name} {value:.3g}" for name, value in found.items() if isinstance(value, float)))
    if args.output:
        asked = {name: getattr(args, name) for name in ("model", "classes", "images")}
        part = {} if args.whole else {"together": args.together, "timed_steps": args.timed}
        threads = {"device": str(clip.device), "threads": torch.get_num_threads()}
        append_rows(args.output, [{**asked, **part, **threads, **found, "spec": spec.model_dump(mode="json")}])


if __name__ == "__main__":
    main()
