"""Terms of few-shot training besides cross-entropy and repelling: other images, and a loss on them."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from rvpt.data.dataset import Dataset
from rvpt.inversion.form import Form
from rvpt.models.clip import Clip
from rvpt.training.losses import keep, resist, zero_shot_logits
from rvpt.training.opponent import Opponent


@dataclass(frozen=True)
class Batch:
    """A batch of clean images in a step.

    Args:
        clip: the suspect.
        text: (K, P), unit text features of the classes.
        first_block: D.
        tokens: (B, 1 + N, W), before block D.
        labels: (B,) int64.
    """

    clip: Clip
    text: Tensor
    first_block: int
    tokens: Tensor
    labels: Tensor

    @torch.no_grad()
    def suspect_logits(self, tokens: Tensor) -> Tensor:
        """The suspect's logits (B, K) from tokens before block D."""
        last, _ = self.clip.run_blocks(tokens, start=self.first_block)
        return zero_shot_logits(self.clip.project(last[:, 0]), self.text, self.clip.logit_scale)

    def tokens_of(self, pixels: Tensor) -> Tensor:
        """Tokens (n, 1 + N, W) before block D of images (n, 3, S, S)."""
        return self.clip.run_blocks(self.clip.embed(pixels), stop=self.first_block)[0]


@dataclass(frozen=True)
class View:
    """What a term shows: tokens (B, 1 + N, W) before block D, and the loss of the model's logits (B, K) on them."""

    tokens: Tensor
    loss: Callable[[Tensor], Tensor]


class Term(nn.Module, ABC):
    """One more loss of few-shot training.

    `name` is that of its value in the progress; `weight` is its weight in the loss.
    """

    name: ClassVar[str]

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight = weight

    def inputs(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """What differs from step to step besides the batch, on the model's device; nothing for most terms."""
        return ()

    @abstractmethod
    def forward(self, batch: Batch, *given: Tensor) -> View:
        """The images of a step; `given` is what `inputs` returned."""


class Keep(Term):
    """`rvpt.training.losses.keep` on mixtures of two images: (x_i + x_j) / 2 of the tokens before block D.

    A batch is in random order, so each image is mixed with the one before it. Mixtures are images that the few-shot set
    does not have, and the suspect answers for them itself. It is asked only about images that it gets right.

    Args:
        weight: of the loss.
        right: (n,) bool, the images of the few-shot set that the suspect classifies correctly.
        device: the model's.
    """

    name = "keep"

    def __init__(self, weight: float, right: Tensor, device: torch.device) -> None:
        super().__init__(weight)
        self.right, self.device = right.float().cpu(), device

    def inputs(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """Which images of the batch the suspect classifies correctly, (B,) float."""
        return (self.right[indices].to(self.device, non_blocking=True),)

    def forward(self, batch: Batch, *given: Tensor) -> View:
        (right,) = given
        mixtures = (batch.tokens + batch.tokens.roll(1, 0)) / 2
        suspect, weights = batch.suspect_logits(mixtures), right * right.roll(1, 0)
        return View(mixtures, lambda logits: keep(logits, suspect, weights))


class Resist(Term):
    """`rvpt.training.losses.resist` on the few-shot images with universal changes, which move to make it large.

    delta <- step(delta, -direction(grad loss), eta), as the form of delta has it

    For each target, every image is shown with the changes of some of the forms. One backward pass moves what is trained
    and the changes. The loss is the sum over the targets.

    Args:
        weight: of the loss.
        data: the few-shot set, which is read in every step.
        clip: the suspect.
        forms: of the changes.
        targets: (M,) int64, the class that each change of a form moves towards.
        starts: (M, ...) of each form, the changes of the first step.
        per_image: how many changes each image is shown with in a step, at most one of each form.

    Source: Zeng et al. (ICLR 2022, I-BAU), by alternating steps.
    """

    name = "resist"
    targets: Tensor

    def __init__(
        self,
        weight: float,
        data: Dataset,
        clip: Clip,
        forms: Sequence[Form],
        targets: Tensor,
        starts: Sequence[Tensor],
        per_image: int = 1,
    ) -> None:
        super().__init__(weight)
        self.data, self.size, self.device = data, clip.image_size, clip.device
        self.forms, self.per_image = forms, per_image
        self.register_buffer("targets", targets)  # kept with the changes, which move towards them
        self.changes = nn.ParameterList(opponent(*pair) for pair in zip(forms, starts, strict=True))

    def inputs(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, ...]:
        """The batch's images (B, 3, S, S), and what each form draws for them."""
        pixels = self.data.pixels(indices, self.size)
        parts = (pixels, *(form.draw(len(indices), generator) for form in self.forms))
        return tuple(part.to(self.device, non_blocking=True) for part in parts)

    def forward(self, batch: Batch, *given: Tensor) -> View:
        shown, loss = self.show(batch.labels, *given)
        return View(batch.tokens_of(shown), loss)

    def show(self, classes: Tensor, pixels: Tensor, *drawn: Tensor) -> tuple[Tensor, Callable[[Tensor], Tensor]]:
        """Images (B, 3, S, S) of classes (B,) with the changes, and the loss of a model's logits on them."""
        count = min(len(self.forms), len(pixels))
        shown, labels, targets = list[Tensor](), list[Tensor](), list[Tensor]()
        turns = range(min(self.per_image, count))
        for number, form, turn in itertools.product(range(len(self.targets)), range(count), turns):
            own = slice((form + turn) % count, None, count)
            change = self.changes[form][number : number + 1]
            shown.append(self.forms[form].apply(pixels[own], change, drawn[form][:, own])[0])
            labels.append(classes[own])
            targets.append(self.targets[number].expand(len(labels[-1])))
        truth, towards, idle = torch.cat(labels), torch.cat(targets), self._idle(count)
        return torch.cat(shown), lambda logits: len(self.targets) * resist(logits, truth, towards) + idle

    def _idle(self, count: int) -> Tensor | float:
        """Zero, which gives forms that a small batch does not show a gradient: all processes must have one."""
        return sum((0 * change.sum() for change in self.changes[count:]), 0.0)


def opponent(form: Form, start: Tensor) -> Opponent:
    """Changes (M, ...) of a form that move uphill, with the steps of the middle of a descent."""
    length = form.length(0.5, 1, settle=True)
    return Opponent.of(start, lambda changes, slope: form.step(changes, -form.direction(slope), length))
