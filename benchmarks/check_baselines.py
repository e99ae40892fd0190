"""Published scores to compare with, as far as they can be built from their descriptions."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rvpt.detection.collapse import concentration
from rvpt.inversion.additive import Additive
from rvpt.inversion.descent import Loss, descend, reached, shown_logits
from rvpt.inversion.pool import Pool, target_loss
from rvpt.inversion.spec import InversionSpec
from rvpt.models.encode import Encoder

LR = 0.1  # of Adam, as published
SPARSE = 1e-3  # first weight of the mask's size
RAISED = 1.5  # factor of the weight after each step that reaches the goal, and the inverse after one that does not
MARGIN = 0.1  # of CLIP-Inspector's loss, in cosines
GROUP = 24  # classes in one forward pass
CONSISTENT = 1.4826  # the standard deviation of a normal distribution, in its median absolute deviations
LEAST = 1e-6
GOAL = 0.9  # share of the images that are to be flipped, or concentration that is to be reached


class Masked(nn.Module):
    """Patterns with masks, one per candidate: x' = (1 - m) x + m p, with m and p in [0, 1] by a sigmoid."""

    def __init__(self, count: int, side: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        one = torch.randn(1, 4, side, side, generator=generator)  # the same start for all: no class is favored
        self.raw_mask = nn.Parameter((one[:, :1] * 0.1 - 2).repeat(count, 1, 1, 1))
        self.raw_pattern = nn.Parameter(one[:, 1:].repeat(count, 1, 1, 1))

    @property
    def mask(self) -> Tensor:
        return self.raw_mask.sigmoid()

    def put(self, pixels: Tensor) -> Tensor:
        """Images (n, 3, S, S) with every candidate's pattern: (C, n, 3, S, S)."""
        mask, pattern = self.mask[:, None], self.raw_pattern.sigmoid()[:, None]
        return (1 - mask) * pixels + mask * pattern

    def sizes(self) -> Tensor:
        """|m|_1 of each candidate, (C,)."""
        return self.mask.flatten(1).sum(1)


def neural_cleanse(pool: Pool, classes: Tensor, *, steps: int, images: int, seed: int, group: int = GROUP) -> Tensor:
    """The L1 norm of the smallest mask found for each class, (C,); one that never reaches the goal has the whole image.

    min_{m, p} CE(f((1 - m) x + m p), c) + w |m|_1, with w raised while GOAL of the images flip and lowered otherwise

    Args:
        pool: images and model.
        classes: (C,) int64.
        steps: of Adam.
        images: per step.
        seed: of the start and of the images.
        group: classes in one forward pass.

    Source: Wang et al. (IEEE S&P 2019). A low outlier among the classes is the target. The weight is changed at every
    step, so that few steps are enough.
    """
    return torch.cat([_smallest_masks(pool, part, steps, images, seed) for part in classes.split(group)])


def _smallest_masks(pool: Pool, classes: Tensor, steps: int, images: int, seed: int) -> Tensor:
    side, device = pool.pixels.shape[-1], pool.pixels.device
    masked = Masked(len(classes), side, seed).to(device)
    optimizer = torch.optim.Adam(masked.parameters(), lr=LR, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(seed)
    weights = torch.full((len(classes),), SPARSE, device=device)
    best = torch.full((len(classes),), float(side * side), device=device)
    for _ in range(steps):
        some = pool.select(torch.randperm(len(pool), generator=generator)[:images].to(device))
        logits = shown_logits(some, masked.put(some.pixels))
        sizes = masked.sizes()
        loss = target_loss(logits, classes, some.predictions) + weights * sizes
        optimizer.zero_grad()
        loss.sum().backward()
        reaches = _flipped(logits.detach(), classes, some.predictions) >= GOAL
        best = torch.where(reaches, torch.minimum(best, sizes.detach()), best)
        weights *= torch.where(reaches, RAISED, 1 / RAISED)
        optimizer.step()
    return best


def _flipped(logits: Tensor, classes: Tensor, predictions: Tensor) -> Tensor:
    """Share of the images of other classes that are called each class, (C,)."""
    others = predictions != classes[:, None]
    hits = (logits.argmax(2) == classes[:, None]) & others
    return hits.sum(1) / others.sum(1).clamp(min=1)


def decree(model: Encoder, pixels: Tensor, *, steps: int, images: int, seed: int) -> float:
    """PL1 of DECREE: the size of the smallest mask that makes all features alike, as a share of the image.

    min_{m, p} -|mean_i f((1 - m) x_i + m p)|^2 + w |m|_1;  PL1 = |m|_1 / S^2

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        steps: of Adam.
        images: per step.
        seed: of the start and of the images.

    Source: Feng et al. (CVPR 2023). A small value speaks for a backdoor.
    """
    masked = Masked(1, pixels.shape[-1], seed).to(pixels.device)
    optimizer = torch.optim.Adam(masked.parameters(), lr=LR, betas=(0.5, 0.9))
    generator = torch.Generator().manual_seed(seed)
    weight, best, area = SPARSE, 1.0, pixels.shape[-1] ** 2
    for _ in range(steps):
        some = pixels[torch.randperm(len(pixels), generator=generator)[:images].to(pixels.device)]
        together = concentration(model.encode_image(masked.put(some)[0]))
        size = masked.sizes()[0]
        optimizer.zero_grad()
        (weight * size - together).backward()
        reaches = float(together.detach()) >= GOAL
        best = min(best, float(size.detach()) / area) if reaches else best
        weight *= RAISED if reaches else 1 / RAISED
        optimizer.step()
    return best


def clip_inspector(pool: Pool, classes: Tensor, limit: float, spec: InversionSpec) -> float:
    """How far the class whose reconstructed trigger works best stands out, in standard deviations among the classes.

    delta_c = argmin_{|delta|_2 <= r} l_c,  l_c = mean_i max(max_{k != c} cos_ik - cos_ic + m, 0)
    score = max_c (z(ASR_c) + z(-l_c)) / 2,  z(a) = (a - mean(a)) / sd(a) over the classes

    Args:
        pool: unlabeled images, and the model; the descent takes as many steps as one pass over them has batches.
        classes: (C,) int64.
        limit: r.
        spec: images per step, batch size and seed.

    Source: CLIP-Inspector (Jindal et al., 2026), as far as its abstract and summaries tell: a margin-based objective
    for every class, one pass over unlabeled images, a score of loss and attack success rate, flagged from 2 on. The
    bound of the trigger, the margin m and how loss and rate are combined are not described there, and chosen here.
    """
    form = Additive(pool.pixels.shape[1:], limit)
    start = form.start(len(classes)).to(pool.pixels)
    loss: Loss = lambda some, shown, part: margin_loss(shown_logits(some, shown), classes[part], some)  # noqa: E731
    steps = math.ceil(len(pool) / spec.images)
    changes = descend(form, pool, loss, start, steps, spec.images, spec, settle=True)
    with torch.no_grad():
        groups = zip(changes.split(GROUP), classes.split(GROUP), strict=True)
        losses = [margin_loss(shown_logits(pool, form.apply(pool.pixels, c, c)), k, pool) for c, k in groups]
    rates = reached(form, pool, classes, changes, spec).shares
    return float(((_standardized(rates) + _standardized(-torch.cat(losses))) / 2).max())


def margin_loss(logits: Tensor, classes: Tensor, pool: Pool) -> Tensor:
    """mean_{i: y_i != c} max(max_{k != c} cos_ik - cos_ic + MARGIN, 0) of logits (C, n, K) and classes c (C,): (C,)."""
    cosines = logits / pool.model.logit_scale.detach()
    own = classes[:, None, None].expand(-1, cosines.shape[1], 1)
    gaps = cosines.scatter(2, own, -math.inf).amax(2) - cosines.gather(2, own).squeeze(2)
    others = (pool.predictions != classes[:, None]).to(cosines.dtype)
    return ((gaps + MARGIN).clamp(min=0) * others).sum(1) / others.sum(1).clamp(min=1)


def _standardized(values: Tensor) -> Tensor:
    return (values - values.mean()) / values.std().clamp(min=1e-6)


def outlier_index(values: Tensor) -> float:
    """How far the largest value stands above the median, in robust standard deviations.

    (max_k s_k - m) / (1.4826 median_k |s_k - m|),  m = median_k s_k

    Args:
        values: s, (K,) float.

    Source: the anomaly index of Neural Cleanse (Wang et al., IEEE S&P 2019).
    """
    middle = values.median()
    spread = CONSISTENT * (values - middle).abs().median()
    return float((values.max() - middle) / spread.clamp(min=LEAST))
