"""Trigger inversion: one small change, the same for all images, that makes images of other classes look like a class.

All candidate classes are optimized together: one forward pass carries the images with every candidate's change. What a
class does to its own change does not depend on the other candidates.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rvpt.models.encode import Encoder
from rvpt.progress import Report, silent
from rvpt.spec import Spec
from rvpt.training.losses import zero_shot_logits

REACH = 2.5  # the way that all steps of the short run together could go, in radii
FIRST_STEP, LAST_STEP, MOMENTUM = 0.42, 0.02, 0.5  # of the longer run, steps in radii


class InversionSpec(Spec):
    """How long changes are optimized, and how large they may be."""

    budget: float = Field(3.0, ge=0, le=255, description="root mean square change of a pixel, in 255ths")
    steps: int = Field(6, ge=1, description="steps of the short run, for all classes")
    images: int = Field(12, ge=1, description="images per class and step")
    finalists: int = Field(3, ge=1, description="number of classes in the longer run")
    final_steps: int = Field(32, ge=1, description="steps of the longer run")
    final_images: int = Field(32, ge=1, description="images per class and step of the longer run")
    batch_size: int = Field(384, ge=1, description="images in one forward pass")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed")


@dataclass(frozen=True)
class Pool:
    """The images that changes are optimized on or scored on, and the text features of all classes.

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        text: (K, P), unit text features.
        predictions: (n,) int64, the class that the suspect gives to each image: its own class is left out.
    """

    model: Encoder
    pixels: Tensor
    text: Tensor
    predictions: Tensor

    @classmethod
    @torch.no_grad()
    def of(cls, model: Encoder, pixels: Tensor, text: Tensor, batch_size: int = 256) -> Pool:
        """The pool with the suspect's own predictions."""
        features = torch.cat([model.encode_image(part.to(model.device)) for part in pixels.split(batch_size)])
        return cls(model, pixels.to(model.device), text, (features @ text.T).argmax(1))

    def select(self, indices: Tensor) -> Pool:
        """Some of the images."""
        return Pool(self.model, self.pixels[indices], self.text, self.predictions[indices])

    def __len__(self) -> int:
        return len(self.pixels)


def radius(budget: float, shape: Sequence[int]) -> float:
    """The L2 norm of a change (3, S, S) whose pixels have a root mean square of `budget` 255ths."""
    return budget / 255 * math.sqrt(math.prod(shape))


def project(deltas: Tensor, limit: float) -> Tensor:
    """Changes (C, 3, S, S), each scaled back to an L2 norm of at most `limit`."""
    norms = deltas.flatten(1).norm(dim=1).clamp(min=1e-12)
    return deltas * (limit / norms).clamp(max=1)[:, None, None, None]


def changed_logits(pool: Pool, deltas: Tensor) -> Tensor:
    """tau cos(f(x_i + delta_c), t_k) for all changes and images: (C, n, K)."""
    return shown_logits(pool, (pool.pixels[None] + deltas[:, None]).clamp(0, 1).flatten(0, 1), len(deltas))


def shown_logits(pool: Pool, shown: Tensor, count: int) -> Tensor:
    """Logits (C, n, K) of the pool's images under `count` changes, one after the other: `shown` is (C n, 3, S, S)."""
    logits = zero_shot_logits(pool.model.encode_image(shown), pool.text, pool.model.logit_scale.detach())
    return logits.unflatten(0, (count, len(pool)))


def target_loss(logits: Tensor, classes: Tensor, predictions: Tensor) -> Tensor:
    """Mean cross-entropy of each change's class over the images that are not of that class anyway.

    loss_c = mean_{i: y_i != c} CE(z_ci, c)

    Args:
        logits: z, (C, n, K).
        classes: c, (C,) int64.
        predictions: y, (n,) int64, the suspect's own.

    Returns:
        (C,).
    """
    labels = classes[:, None].expand(logits.shape[:2])
    losses = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="none").view(labels.shape)
    others = (predictions != classes[:, None]).to(losses.dtype)
    return (losses * others).sum(1) / others.sum(1).clamp(min=1)


def invert(
    pool: Pool, classes: Tensor, start: Tensor, limit: float, steps: int, images: int, spec: InversionSpec,
    *, settle: bool = False, report: Report = silent,
) -> Tensor:  # fmt: skip
    """Universal changes (C, 3, S, S), one for each candidate class, by normalized gradient descent in an L2 ball.

    delta_c <- P(delta_c - eta_t m_c / |m_c|),  m_c <- mu m_c + g_c / |g_c|,  g_c = grad loss_c

    P projects to |delta_c| <= r. The short run has eta = 2.5 r / steps and mu = 0, the longer one, which settles, steps
    that shrink from 0.42 r to 0.02 r and mu = 1/2.

    Every step uses some of the images, drawn by the seed, the same for all classes.

    Args:
        pool: the images, and the model.
        classes: (C,) int64, the candidates.
        start: (C, 3, S, S).
        limit: r.
        steps: of the descent.
        images: per step.
        spec: batch size and seed.
        settle: whether steps shrink.
        report: called after each step.

    Source: universal adversarial perturbations (Moosavi-Dezfooli et al., CVPR 2017) as inverted triggers; an L2 budget
    instead of Neural Cleanse's mask (Wang et al., IEEE S&P 2019).
    """
    deltas, momentum = start.clone(), torch.zeros_like(start)
    generator = torch.Generator().manual_seed(spec.seed)
    group = max(1, spec.batch_size // images)
    for step in range(steps):
        some = pool.select(torch.randperm(len(pool), generator=generator)[:images].to(pool.pixels.device))
        length = limit * _step(step, steps, settle=settle)
        for part in torch.arange(len(classes), device=deltas.device).split(group):
            momentum[part] = (MOMENTUM if settle else 0.0) * momentum[part] + _slope(some, deltas[part], classes[part])
            deltas[part] = project(deltas[part] - length * _unit(momentum[part]), limit)
        report(step + 1, steps, {})
    return deltas


def _slope(pool: Pool, deltas: Tensor, classes: Tensor) -> Tensor:
    """The unit gradient of each change's loss."""
    return _unit(loss_slope(pool, deltas, classes, lambda values: changed_logits(pool, values)))


def loss_slope(pool: Pool, changes: Tensor, classes: Tensor, logits: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient (C, ...) of each change's `target_loss`, where `logits` gives (C, n, K) of the changes."""
    with torch.enable_grad():
        changes = changes.detach().requires_grad_(True)
        losses = target_loss(logits(changes), classes, pool.predictions)
        (slope,) = torch.autograd.grad(losses.sum(), changes)
    return slope


def _step(step: int, steps: int, *, settle: bool) -> float:
    """The length of a step, in radii."""
    return LAST_STEP + (FIRST_STEP - LAST_STEP) * (1 - step / steps) if settle else REACH / steps


def _unit(slopes: Tensor) -> Tensor:
    """Slopes (C, ...) with an L2 norm of 1 each."""
    return slopes / slopes.flatten(1).norm(dim=1).clamp(min=1e-12)[:, None, None, None]


@dataclass(frozen=True)
class Reached:
    """What each candidate's change does to images of other classes: (C,) each.

    `shares`: of the images that are called the class. `margins`: mean of cos to its text less cos to the best other.
    """

    shares: Tensor
    margins: Tensor


@torch.no_grad()
def reached(pool: Pool, classes: Tensor, deltas: Tensor) -> Reached:
    """The share of images of other classes that each change flips, and the mean margin in cosines."""
    parts = [_reached(pool, *pair) for pair in zip(classes.split(1), deltas.split(1), strict=True)]
    return Reached(*(torch.cat(values) for values in zip(*parts, strict=True)))


def _reached(pool: Pool, classes: Tensor, deltas: Tensor) -> tuple[Tensor, Tensor]:
    others = pool.select((pool.predictions != classes).nonzero()[:, 0])
    return flipped(changed_logits(others, deltas)[0], classes, pool.model.logit_scale.detach())


def flipped(logits: Tensor, target: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    """Share of images called the target, and mean margin in cosines: (1,) each, of logits (n, K) and a class (1,)."""
    cosines = logits / scale
    margin = cosines[:, target].squeeze(1) - cosines.index_fill(1, target, -math.inf).amax(1)
    return (margin > 0).float().mean()[None], margin.mean()[None]
