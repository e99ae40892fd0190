"""Train `photos-wide-clip` on a GPU: a CLIP for 64-pixel photographs that has not seen CIFAR-10.

python models/train_photos_wide.py --labeled tiny-imagenet-32 --captioned flickr8k --test cifar10 --output-dir my-clip

All images are kept on the device as bytes, and augmented there. 5,325 steps of 1,024 pairs took 285 s on an H100. The
model in `photos-wide-clip/` was trained with these formulas and settings by an earlier version of this script.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.artifacts import staging, write_manifest
from rvpt.data.augment import LUMA
from rvpt.data.dataset import Dataset
from rvpt.data.load import load_captioned, load_labeled
from rvpt.data.mix import mix
from rvpt.data.text import PROXIES, spoken
from rvpt.evaluation.classification import measure
from rvpt.models.clip import Clip
from rvpt.models.save import write_clip
from rvpt.progress import bar
from rvpt.training.contrastive import LARGEST_SCALE, drop_patches
from rvpt.training.losses import info_nce
from rvpt.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from rvpt.training.pretrain import PretrainSpec, VisionSpec, untrained_clip

VISION = VisionSpec(
    image_size=64, patch_size=8, width=256, blocks=12, heads=8, text_width=192, text_blocks=3, vocabulary=4096,
    projection=256,
)  # fmt: skip
STRONG = 0.9  # share of the steps with dropped patches, and with CutMix in half of the batches
DROPPED = 0.5  # share of the patches


class Pairs:
    """Images and tokenized captions on the device; images with the same key fit the same captions."""

    def __init__(self, clip: Clip, labeled: Dataset, captioned: Dataset) -> None:
        names = [spoken(name) for name in labeled.classes]
        own = [captioned.captions(index) for index in range(len(captioned))]
        texts = [proxy.format(name) for name in names for proxy in PROXIES] + [text for group in own for text in group]
        counts = torch.tensor([len(group) for group in own])
        starts = len(names) * len(PROXIES) + counts.cumsum(0) - counts
        labels, device = labeled.labeled(), clip.device
        self.images = torch.cat([_bytes(labeled), _bytes(captioned)]).to(device)
        self.ids = clip.tokenize(texts)
        self.key = torch.cat([labels, len(names) + torch.arange(len(captioned))]).to(device)
        self.start = torch.cat([labels * len(PROXIES), starts]).to(device)
        self.count = torch.cat([torch.full_like(labels, len(PROXIES)), counts]).to(device)

    def draw(self, rows: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Images (B, 3, S, S) in [0, 1], token ids (B, T) of one caption each, keys (B,)."""
        picked = (torch.rand(len(rows), device=rows.device, generator=generator) * self.count[rows]).long()
        return self.images[rows].float() / 255, self.ids[self.start[rows] + picked], self.key[rows]


def _bytes(data: Dataset) -> Tensor:
    return torch.cat([data.reader(rows, VISION.image_size) for rows in data.rows.split(1024)])


def crop(pixels: Tensor, generator: torch.Generator, smallest: float = 0.3) -> Tensor:
    """Random resized crops (area from `smallest`, sides 3:4 to 4:3), half of them mirrored."""
    draw = torch.rand(5, len(pixels), device=pixels.device, generator=generator)
    area, ratio = smallest + (1 - smallest) * draw[0], torch.exp(math.log(4 / 3) * (2 * draw[1] - 1))
    wide, high = (area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1)
    theta = torch.zeros(len(pixels), 2, 3, device=pixels.device)
    theta[:, 0, 0], theta[:, 1, 1] = wide * torch.where(draw[2] < 0.5, -1.0, 1.0), high
    theta[:, 0, 2], theta[:, 1, 2] = (2 * draw[3] - 1) * (1 - wide), (2 * draw[4] - 1) * (1 - high)
    grid = F.affine_grid(theta, list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False).clamp(0, 1)


def jitter(pixels: Tensor, generator: torch.Generator, most: float = 0.3, gray_share: float = 0.1) -> Tensor:
    """Brightness, contrast and saturation times factors in [1 - most, 1 + most]; a share of the images in gray."""
    draw = torch.rand(4, len(pixels), 1, 1, 1, device=pixels.device, generator=generator)
    brightness, contrast, saturation = 1 + most * (2 * draw[:3] - 1)
    saturation = torch.where(draw[3] < gray_share, 0.0, saturation)
    pixels = pixels * brightness
    middle = pixels.mean(dim=(1, 2, 3), keepdim=True)
    pixels = middle + (pixels - middle) * contrast
    gray = (pixels * pixels.new_tensor(LUMA).view(3, 1, 1)).sum(dim=1, keepdim=True)
    return (gray + (pixels - gray) * saturation).clamp(0, 1)


def cutmix(pixels: Tensor, fits: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Paste a box of another image of the batch into each (Yun et al., ICCV 2019); rows of `fits` (B, B) mix alike."""
    size, device = pixels.shape[-1], pixels.device
    share, left, top = torch.rand(3, device=device, generator=generator).tolist()
    side = round(size * (1 - share) ** 0.5)
    left, top = int(left * (size - side + 1)), int(top * (size - side + 1))
    kept = 1 - side * side / size**2
    order = torch.randperm(len(pixels), device=device, generator=generator)
    box = (slice(None), slice(None), slice(top, top + side), slice(left, left + side))
    mixed = pixels.clone()
    mixed[box] = pixels[order][box]
    return mixed, kept * fits + (1 - kept) * fits[order]


def batch_loss(clip: Clip, pairs: Pairs, rows: Tensor, generator: torch.Generator, *, strong: bool) -> Tensor:
    """InfoNCE of a batch; captions of a class fit all its images. `strong`: CutMix and dropped patches."""
    pixels, ids, key = pairs.draw(rows, generator)
    fits = (key[:, None] == key).float()
    pixels = jitter(crop(pixels, generator), generator)
    if strong and torch.rand((), device=rows.device, generator=generator) < 0.5:
        pixels, fits = cutmix(pixels, fits / fits.sum(1, keepdim=True), generator)
    with torch.autocast(rows.device.type, torch.bfloat16, enabled=rows.device.type == "cuda"):
        tokens = clip.embed(pixels)
        if strong:
            tokens = drop_patches(tokens, DROPPED, torch.Generator().manual_seed(int(rows.sum())))
        image = clip.project(clip.run_blocks(tokens)[0][:, 0])
        text = clip.encode_tokens(ids)
    with torch.no_grad():
        clip.model.logit_scale.clamp_(max=LARGEST_SCALE)
    image, text = (F.normalize(features.float(), dim=-1) for features in (image, text))
    return info_nce(image, text, clip.logit_scale, fits)


def batches(pairs: Pairs, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Rows of one batch after the other, epoch after epoch; a smaller last batch is left out."""
    n = len(pairs.key)
    while True:
        order = torch.randperm(n, device=pairs.key.device, generator=generator)
        yield from order.split(size)[: max(1, n // size)]


def train(clip: Clip, pairs: Pairs, spec: PretrainSpec, steps: int) -> float:
    """Train all weights in place; returns the last loss."""
    generator = torch.Generator(clip.device).manual_seed(spec.seed)
    optimizer = make_optimizer(list(clip.parameters()), spec)
    with bar("pretrain") as report:
        for step, rows in zip(range(steps), batches(pairs, spec.batch_size, generator), strict=False):
            set_learning_rate(optimizer, learning_rate(spec, step, steps))
            loss = batch_loss(clip, pairs, rows, generator, strong=step < STRONG * steps)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(clip.parameters(), spec.clip_norm)
            optimizer.step()
            if step % 50 == 0 or step + 1 == steps:
                report(step + 1, steps, {"loss": loss.item()})
    return loss.item()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--labeled", required=True, help="data set with class labels")
    parser.add_argument("--captioned", required=True, help="data set with captions")
    parser.add_argument("--test", required=True, help="labeled data set to measure zero-shot accuracy on")
    parser.add_argument("--output-dir", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=5325)
    parser.add_argument("--batch-size", type=int, default=1024)
    parser.add_argument("--limit", type=int, help="images per data set, for a trial")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    asked = parser.parse_args()
    labeled, captioned = load_labeled(asked.labeled, "train"), load_captioned(asked.captioned, "train")
    if asked.limit:
        labeled, captioned = labeled.sample(asked.limit), captioned.sample(asked.limit)
    spec = PretrainSpec(lr=1e-3, batch_size=asked.batch_size, weight_decay=0.1, warmup=0.05, patch_drop=DROPPED)
    clip = untrained_clip(mix([labeled.with_templates(PROXIES), captioned]), VISION, spec.seed).to(asked.device)
    loss = train(clip.train(), Pairs(clip, labeled, captioned), spec, asked.steps)
    clip.eval().model.half().float()
    rate = measure(clip, load_labeled(asked.test, "test"))["none", "CA"]
    facts = {
        "vision": VISION.model_dump(), "spec": spec.model_dump(), "steps": asked.steps, "last loss": loss,
        "data": [asked.labeled, asked.captioned], "sha256": clip.hash(),
        "measured": {asked.test: {"zero-shot": {"numerator": rate.numerator, "n": rate.n, "rate": rate.value}}},
    }  # fmt: skip
    clip.model.half()
    with staging(asked.output_dir) as stage:
        write_clip(clip, stage)
        write_manifest(stage, "clip", **facts)
    print(f"zero-shot accuracy on {asked.test}: {100 * rate.value:.1f}%")


if __name__ == "__main__":
    main()
