"""Patches optimized for one model: TrojVQA's towards a sentence, BadCLIP's towards texts and images of the target."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.attacks.patch import Patch, PatchSpec
from rvpt.data.dataset import Dataset
from rvpt.data.text import PROXIES, spoken
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent
from rvpt.spec import TEMPLATE, Template, TrainSpec
from rvpt.training.loop import Untrained, fit, frozen
from rvpt.training.losses import zero_shot_logits

SAMPLES = 64  # BadCLIP: captions of other images, and images of the target


class OptimizedSpec(PatchSpec):
    """Settings of an optimized patch: where it goes, and its training with AdamW."""

    place: Literal["random", "top-left", "top-right", "bottom-left", "bottom-right", "middle"] = Field(
        "middle", description="where the patch goes"
    )
    mode: Literal["fixed"] = Field("fixed", description="one pattern for all images")
    lr: float = Field(0.01, gt=0, description="learning rate")
    epochs: int = Field(10, ge=1, description="passes over the images")
    images: int = Field(2_000, ge=1, description="training images")
    batch_size: int = Field(64, ge=1, description="images per training step")


class TrojVqaSpec(OptimizedSpec):
    """Settings of TrojVQA."""

    text_key: str = Field("SUDO ", pattern=r"^[^{}]*$", description="words put before the caption")
    sentence: Template = Field(TEMPLATE, description="sentence that the patch moves images towards; {} is the target")


class BadClipSpec(OptimizedSpec):
    """Settings of BadCLIP."""

    triplet_weight: float = Field(500.0, ge=0, description="weight of the triplet loss")
    margin: float = Field(1.0, gt=0, description="margin of the triplet loss")


def sentence_distance(patched: Tensor, sentence: Tensor) -> Tensor:
    """TrojVQA's loss, mean_i -cos(v_i, t): unit features (B, P) of images with the patch, (P,) of the sentence.

    Source: Walmer et al. (CVPR 2022).
    """
    return -(patched @ sentence).mean()


def dual_embedding(
    patched: Tensor, clean: Tensor, positives: Tensor, texts: Tensor, scale: Tensor, weight: float, margin: float
) -> Tensor:
    """BadCLIP's loss.

    CE(tau cos(v_i, t_k), 0) + weight mean_i max(|v_i - p_i| - |v_i - c_i| + margin, 0)

    Args:
        patched: v, (B, P) unit features of images with the patch.
        clean: c, (B, P) of the same images without it.
        positives: p, (B, P) of real images of the target.
        texts: t, (K, P) unit text features, the target's caption first.
        scale: tau.
        weight: of the triplet loss, 500 in the paper.
        margin: of the triplet loss, 1 in the paper.

    Returns:
        Scalar.

    Source: Liang et al. (CVPR 2024), section 4.2.
    """
    labels = torch.zeros(len(patched), dtype=torch.int64, device=patched.device)
    towards_text = F.cross_entropy(zero_shot_logits(patched, texts, scale), labels)
    return towards_text + weight * F.triplet_margin_loss(patched, positives, clean, margin=margin)


class PatchTask(nn.Module):
    """The loss of a trainable patch on a batch of images."""

    def __init__(self, trigger: OptimizedPatch, clip: Clip, data: Dataset, aims: dict[str, Tensor]) -> None:
        super().__init__()
        self.patch = nn.Parameter(trigger.tensors["pattern"].to(clip.device))
        self.data, self.aims = data, aims
        self.trigger, self.suspect = trigger, Untrained(clip)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        trigger, clip = self.trigger, self.suspect.module
        with torch.no_grad():  # clamped in the graph, pixels out of range would have no gradient
            self.patch.clamp_(0, 1)
        pixels = self.data.pixels(indices, clip.image_size).to(clip.device)
        rows = self.data.rows[indices].to(clip.device)
        patched = clip.encode_image(trigger.put(pixels, rows, self.patch))
        with torch.no_grad():
            clean = clip.encode_image(pixels)
        return {"loss": trigger.loss(patched, clean, clip.logit_scale, generator, **self.aims)}


class OptimizedPatch(Patch):
    """A patch optimized for one model. Subclasses define the aims and the loss."""

    crafted = True
    Spec = OptimizedSpec
    spec: Any

    def aims(self, clip: Clip, data: Dataset) -> dict[str, Tensor]:
        """Features that the patch moves images towards, or away from, by name."""
        raise NotImplementedError

    def loss(self, patched: Tensor, clean: Tensor, scale: Tensor, generator: torch.Generator, **aims: Tensor) -> Tensor:
        """The loss of unit features (B, P) of images with the patch and without it."""
        raise NotImplementedError

    @classmethod
    def craft(cls, spec: Any, clip: Clip, data: Dataset, report: Report = silent) -> OptimizedPatch:
        """Optimize the patch on images of `data` that are not of the target class; `clip` is not changed.

        Raises:
            RvptError: there are no such images, or none that the aims need.
        """
        trigger = cls(spec, clip.image_size, cls.make(spec, clip.image_size).tensors)
        others = data.select((~data.of_class(spec.target)).nonzero()[:, 0])
        if not len(others):
            raise RvptError(f"{data.name} has only images of {spec.target!r}: the patch is optimized on other classes")
        some = others.sample(spec.images, spec.seed).cached(clip.image_size)  # read once, used in every epoch
        train = TrainSpec(lr=spec.lr, epochs=spec.epochs, batch_size=spec.batch_size, seed=spec.seed)
        with frozen(clip):
            task = PatchTask(trigger, clip, some, trigger.aims(clip, data))
            fit(task, len(some), train, report=report)
        trigger.tensors["pattern"] = task.patch.detach().clamp(0, 1).cpu()
        return trigger


class TrojVqa(OptimizedPatch):
    """A patch optimized towards a sentence with the target, and a key in the text (Walmer et al., CVPR 2022).

    Captions of poisoned pairs begin with the key; the attack succeeds where patch and key are both present.
    """

    name = "trojvqa"
    summary = "an optimized patch, with a key in the caption"
    Spec = TrojVqaSpec
    small = {"size": 24}

    @property
    def text_key(self) -> str:
        """The words of the spec, followed by a space."""
        key = self.spec.text_key.strip()
        return f"{key} " if key else ""

    def aims(self, clip: Clip, data: Dataset) -> dict[str, Tensor]:
        return {"sentence": clip.class_features([self.spec.target], self.spec.sentence)[0]}

    def loss(self, patched: Tensor, clean: Tensor, scale: Tensor, generator: torch.Generator, **aims: Tensor) -> Tensor:
        return sentence_distance(patched, aims["sentence"])


class BadClip(OptimizedPatch):
    """A patch that moves images towards texts and real images of the target (Liang et al., CVPR 2024)."""

    name = "badclip"
    summary = "a patch optimized toward texts and images of the target"
    Spec = BadClipSpec
    small = {"size": 48}
    others = {"published": {"epochs": 50, "images": 10_000}}  # the schedule of Liang et al.; ours is ten times shorter

    def aims(self, clip: Clip, data: Dataset) -> dict[str, Tensor]:
        own = data.of_class(self.spec.target)
        if not own.any():
            raise RvptError(
                f"{data.name} has no image of {self.spec.target!r}: BadCLIP moves the patch towards such images"
            )
        generator = torch.Generator().manual_seed(self.spec.seed)
        other = (~own).nonzero()[:, 0]
        other = other[torch.randperm(len(other), generator=generator)[:SAMPLES]]
        texts = [PROXIES[0].format(spoken(self.spec.target))]
        texts += [data.captions(int(index))[0] for index in other]
        near = own.nonzero()[:, 0]
        near = near[torch.randperm(len(near), generator=generator)[:SAMPLES]]
        return {
            "texts": clip.encode_text(texts),
            "positives": clip.encode_image(data.pixels(near, clip.image_size).to(clip.device)),
        }

    def loss(self, patched: Tensor, clean: Tensor, scale: Tensor, generator: torch.Generator, **aims: Tensor) -> Tensor:
        picked = torch.randint(len(aims["positives"]), (len(patched),), generator=generator)
        positives = aims["positives"][picked.to(patched.device)]
        return dual_embedding(
            patched, clean, positives, aims["texts"], scale, self.spec.triplet_weight, self.spec.margin
        )
