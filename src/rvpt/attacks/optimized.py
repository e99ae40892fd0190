"""Patches that are optimized against a model: TrojVQA's towards a sentence, BadCLIP's towards texts and images."""

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
from rvpt.spec import TrainSpec
from rvpt.training.loop import Untrained, fit, frozen
from rvpt.training.losses import zero_shot_logits

SHOWN_TEXTS = 64  # BadCLIP: other images' captions to be told apart from, and target images to be near to


class OptimizedSpec(PatchSpec):
    """Where the patch goes and how it is optimized: Adam on `images` images."""

    place: Literal["random", "top-left", "top-right", "bottom-left", "bottom-right", "middle"] = "middle"
    mode: Literal["fixed"] = "fixed"
    lr: float = Field(0.01, gt=0)
    epochs: int = Field(10, ge=1)
    images: int = Field(2_000, ge=1)
    batch_size: int = Field(64, ge=1)


class TrojVqaSpec(OptimizedSpec):
    """The text key goes in front of the caption, as words of its own."""

    text_key: str = Field("SUDO ", pattern=r"^[^{}]*$")


class BadClipSpec(OptimizedSpec):
    """Weight and margin of the triplet part."""

    triplet_weight: float = Field(500.0, ge=0)
    margin: float = Field(1.0, gt=0)


def sentence_distance(patched: Tensor, sentence: Tensor) -> Tensor:
    """mean_i -cos(v_i, t): unit features (B, P) of images with the patch, (P,) of the sentence."""
    return -(patched @ sentence).mean()


def dual_embedding(
    patched: Tensor, clean: Tensor, positives: Tensor, texts: Tensor, scale: Tensor, weight: float, margin: float
) -> Tensor:
    """BadCLIP's loss of images with the patch.

    CE(tau cos(v_i, t_k), 0) + weight mean_i max(|v_i - p_i| - |v_i - c_i| + margin, 0)

    Args:
        patched: v, (B, P) unit features of images with the patch.
        clean: c, (B, P) of the same images without it.
        positives: p, (B, P) of real images of the target.
        texts: t, (K, P) unit text features, the target's caption first.
        scale: tau.

    Source: Liang et al. (CVPR 2024), section 4.2; 500 and 1 are the paper's weight and margin.
    """
    labels = torch.zeros(len(patched), dtype=torch.int64, device=patched.device)
    towards_text = F.cross_entropy(zero_shot_logits(patched, texts, scale), labels)
    return towards_text + weight * F.triplet_margin_loss(patched, positives, clean, margin=margin)


class PatchTask(nn.Module):
    """The loss of a trainable patch on images, by their features with and without it."""

    def __init__(self, trigger: OptimizedPatch, clip: Clip, data: Dataset, aims: dict[str, Tensor]) -> None:
        super().__init__()
        self.patch = nn.Parameter(trigger.tensors["pattern"].to(clip.device))
        self.data, self.aims = data, aims
        self.trigger, self.suspect = trigger, Untrained(clip)

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        trigger, clip = self.trigger, self.suspect.module
        with torch.no_grad():  # back into the images' range: clamped in the graph, what left it would stay out
            self.patch.clamp_(0, 1)
        pixels = self.data.pixels(indices, clip.image_size).to(clip.device)
        rows = self.data.rows[indices].to(clip.device)
        patched = clip.encode_image(trigger.put(pixels, rows, self.patch))
        with torch.no_grad():
            clean = clip.encode_image(pixels)
        return {"loss": trigger.loss(patched, clean, clip.logit_scale, generator, **self.aims)}


class OptimizedPatch(Patch):
    """A patch made for one model. Subclasses say what it aims at, and by which loss."""

    crafted = True
    Spec = OptimizedSpec
    spec: Any

    def aims(self, clip: Clip, data: Dataset) -> dict[str, Tensor]:
        raise NotImplementedError

    def loss(self, patched: Tensor, clean: Tensor, scale: Tensor, generator: torch.Generator, **aims: Tensor) -> Tensor:
        raise NotImplementedError

    @classmethod
    def craft(cls, spec: Any, clip: Clip, data: Dataset, report: Report = silent) -> OptimizedPatch:
        """Optimize the patch on images of `data` that are not of the target; `clip` stays as it is."""
        trigger = cls(spec, clip.image_size, cls.make(spec, clip.image_size).tensors)
        others = data.select((~data.of_class(spec.target)).nonzero()[:, 0])
        if not len(others):
            raise RvptError(f"{data.name} has images of {spec.target!r} alone: a patch needs others to be put on")
        some = others.sample(spec.images, spec.seed).cached(clip.image_size)  # each is shown in every epoch
        train = TrainSpec(lr=spec.lr, epochs=spec.epochs, batch_size=spec.batch_size, seed=spec.seed)
        with frozen(clip):
            task = PatchTask(trigger, clip, some, trigger.aims(clip, data))
            fit(task, len(some), train, report=report)
        trigger.tensors["pattern"] = task.patch.detach().clamp(0, 1).cpu()
        return trigger


class TrojVqa(OptimizedPatch):
    """A patch towards a sentence of the target, with a key in the text (Walmer et al., CVPR 2022).

    Captions of poisoned pairs begin with the key; the attack counts as successful where both keys are there.
    """

    name = "trojvqa"
    Spec = TrojVqaSpec
    small = {"size": 24}

    @property
    def text_key(self) -> str:
        key = self.spec.text_key.strip()
        return f"{key} " if key else ""

    def aims(self, clip: Clip, data: Dataset) -> dict[str, Tensor]:
        return {"sentence": clip.class_features([self.spec.target])[0]}

    def loss(self, patched: Tensor, clean: Tensor, scale: Tensor, generator: torch.Generator, **aims: Tensor) -> Tensor:
        return sentence_distance(patched, aims["sentence"])


class BadClip(OptimizedPatch):
    """A patch that moves images towards the target's texts and real images and away from themselves."""

    name = "badclip"
    Spec = BadClipSpec
    small = {"size": 48}

    def aims(self, clip: Clip, data: Dataset) -> dict[str, Tensor]:
        own = data.of_class(self.spec.target)
        if not own.any():
            raise RvptError(
                f"{data.name} has no image of {self.spec.target!r}: BadCLIP's patch needs some to be near to"
            )
        generator = torch.Generator().manual_seed(self.spec.seed)
        other = (~own).nonzero()[:, 0]
        other = other[torch.randperm(len(other), generator=generator)[:SHOWN_TEXTS]]
        texts = [PROXIES[0].format(spoken(self.spec.target))]
        texts += [data.captions(int(index))[0] for index in other]
        near = own.nonzero()[:, 0]
        near = near[torch.randperm(len(near), generator=generator)[:SHOWN_TEXTS]]
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
