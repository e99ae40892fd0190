"""Specs: what a run is made of, checked when it is built, written beside what it made."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from rvpt.errors import RvptError

TEMPLATE = "a photo of a {}."
S = TypeVar("S", bound="Spec")


def check_template(template: str) -> str:
    """The template, if it has a place for the class name."""
    try:
        if "\0" in template.format("\0"):
            return template
    except (AttributeError, LookupError, ValueError):
        pass
    raise RvptError(f"template {template!r}: it needs {{}} where the class name goes, and no other braces")


Template = Annotated[str, AfterValidator(check_template)]
"""A caption with one place for a class name, such as "a photo of a {}."."""


Augment = Literal["none", "crop-flip", "noise-erase"]
"""How images are changed at random in training."""


class Spec(BaseModel):
    """A frozen record that refuses unknown names and values out of range."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @classmethod
    def build(cls: type[S], /, **values: Any) -> S:
        """The spec of `values`; a value that does not fit becomes a one-line RvptError."""
        try:
            return cls(**values)
        except ValidationError as error:
            first = error.errors()[0]
            name = ".".join(str(part) for part in first["loc"])
            if not name:  # of several values together
                raise RvptError(first["msg"].removeprefix("Value error, ")) from None
            if first["type"] == "extra_forbidden":
                raise RvptError(f"{name}: no such setting: there are {', '.join(cls.model_fields)}") from None
            raise RvptError(f"{name}: {first['msg']} (got {first['input']!r})") from None

    @classmethod
    def stored(cls: type[S], values: Any) -> S:
        """The spec that an artifact tells, which may have been edited by hand."""
        if not isinstance(values, dict):
            raise RvptError(f"the artifact's spec is no record of names and values (it is {values!r}): make it again")
        return cls.build(**values)


class TrainSpec(Spec):
    """Optimizer and schedule of one training run; the cosine falls from `lr` to zero after the warm-up."""

    optimizer: Literal["adamw", "sgd"] = "adamw"
    lr: float = Field(1e-3, gt=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    weight_decay: float = Field(0.0, ge=0)
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps with a rising rate")
    epochs: int = Field(1, ge=1)
    batch_size: int = Field(128, ge=1)
    clip_norm: float = Field(0.0, ge=0, description="largest gradient norm; 0 leaves it as it is")
    precision: Literal["no", "bf16", "fp16"] = "no"
    seed: int = Field(0, ge=0, lt=2**63)


class VisionSpec(Spec):
    """Geometry of a CLIP to train from scratch, as in `transformers.CLIPConfig`."""

    image_size: int = Field(48, ge=16)
    patch_size: int = Field(8, ge=1)
    width: int = Field(128, ge=8)
    blocks: int = Field(8, ge=1)
    heads: int = Field(8, ge=1)
    text_width: int = Field(128, ge=8)
    text_blocks: int = Field(2, ge=1)
    text_length: int = Field(32, ge=4)
    vocabulary: int = Field(512, ge=64)
    projection: int = Field(128, ge=2)
    activation: Literal["gelu", "quick_gelu"] = "gelu"

    @model_validator(mode="after")
    def _fits(self) -> VisionSpec:
        if self.image_size % self.patch_size or self.width % self.heads or self.text_width % self.heads:
            raise ValueError("patch_size must divide image_size, and heads must divide both widths")
        return self


class PretrainSpec(TrainSpec):
    """Contrastive training from scratch: symmetric InfoNCE, optionally on a part of the patches (FLIP)."""

    lr: float = Field(1.5e-3, gt=0)
    weight_decay: float = Field(0.05, ge=0)
    warmup: float = Field(0.05, ge=0, lt=1)
    epochs: int = Field(7, ge=1)
    batch_size: int = Field(256, ge=2)
    clip_norm: float = Field(1.0, ge=0)
    patch_drop: float = Field(0.0, ge=0, lt=1, description="share of the patches left out of a training step")
    patch_drop_until: float = Field(0.75, ge=0, le=1, description="share of the steps that leave patches out")
    augment: Augment = "none"


class TriggerSpec(Spec):
    """What every trigger has; each kind adds its own.

    Lengths are pixels of a image with side 224, and scale with the model's.
    """

    name: str
    target: str = Field(description="class that the triggered images shall be taken for")
    mode: Literal["fixed", "fresh"] = Field("fixed", description="one pattern, or redrawn for each image")
    seed: int = Field(0, ge=0, lt=2**63)


class PoisonSpec(Spec):
    """Which pairs of a caption set get the trigger: exactly `n`, or `poison_rate` of all pairs.

    With `clean_label` they are pairs of the target class, which keep their captions (label-consistent poisoning); to
    leave the trigger as what tells them, they can first be changed adversarially, away from their class (`disguise`);
    otherwise they are pairs of other classes, which get the target's: any, or those nearest the target's boundary.
    """

    n: int | None = Field(None, ge=1)
    poison_rate: float | None = Field(None, gt=0, lt=1)
    clean_label: bool = False
    disguise: float = Field(0.0, ge=0, le=255, description="with clean_label: largest adversarial change, in 255ths")
    captions: Literal["proxy", "natural"] = Field("proxy", description="made of the class's name, or real ones of it")
    pick: Literal["random", "boundary"] = Field("random", description="any, or those nearest the target's boundary")
    seed: int = Field(0, ge=0)

    @model_validator(mode="after")
    def _fits(self) -> PoisonSpec:
        if (self.n is None) == (self.poison_rate is None):
            raise ValueError("give exactly one of n and poison_rate")
        if self.disguise and not self.clean_label:
            raise ValueError("disguise takes images of the target away from their class: it goes with clean_label")
        if self.clean_label and self.pick == "boundary":
            raise ValueError("clean_label takes pairs of the target class, pick 'boundary' those of others: give one")
        return self


class AttackSpec(TrainSpec):
    """The fine-tuning that puts the backdoor in (the paper: 500K pairs, 1,500 poisoned, 5 epochs, batch 128)."""

    lr: float = Field(1e-6, gt=0)
    epochs: int = Field(5, ge=1)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.02, ge=0, lt=1)
    clip_norm: float = Field(1.0, ge=0)


class RVPTSpec(TrainSpec):
    """Repulsive Visual Prompt Tuning with the paper's defaults; alpha = 0 is plain VPT."""

    optimizer: Literal["adamw", "sgd"] = "sgd"
    lr: float = Field(2e-3, gt=0)
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)
    first_block: int = Field(3, ge=0, description="first prompted block D")
    depth: int | None = Field(None, ge=1, description="how many blocks are prompted, instead of first_block")
    depth_from: Literal["output", "input"] = "output"
    length: int = Field(50, ge=1, description="prompt length b")
    alpha: float = Field(2.0, ge=0, description="weight of the feature-repelling loss")
    margin: float = Field(-1.0, ge=-1, le=1)
    init_std: float = Field(0.02, gt=0)
    template: Template = TEMPLATE
    augment: Augment = "none"

    @model_validator(mode="after")
    def _depth_is_there(self) -> RVPTSpec:
        if self.depth is None and self.depth_from == "input":
            raise ValueError("depth_from says from which side depth is counted: give depth too")
        return self

    def prompted(self, blocks: int) -> range:
        """The prompted blocks of a model with `blocks` blocks.

        D..L-1 by default; the last `depth` blocks, or with depth_from = "input" the first `depth`.

        Raises:
            RvptError: the model has fewer blocks.
        """
        if self.depth is None:
            if self.first_block >= blocks:
                raise RvptError(f"first_block {self.first_block}: the model's blocks are 0 to {blocks - 1}")
            return range(self.first_block, blocks)
        if self.depth > blocks:
            raise RvptError(f"depth {self.depth}: the model has {blocks} blocks")
        return range(blocks - self.depth, blocks) if self.depth_from == "output" else range(self.depth)


class VPTSpec(RVPTSpec):
    """Visual Prompt Tuning: the prompts of RVPT with cross-entropy alone."""

    alpha: float = Field(0.0, ge=0, le=0)


class ProbeSpec(TrainSpec):
    """A linear classifier on the frozen image features, by SGD or by scikit-learn's logistic regression."""

    optimizer: Literal["adamw", "sgd"] = "sgd"
    lr: float = Field(2e-3, gt=0)
    epochs: int = Field(50, ge=1)
    batch_size: int = Field(32, ge=1)
    solver: Literal["sgd", "logistic"] = "sgd"
    inverse_penalty: float = Field(1.0, gt=0, description="scikit-learn's C")


class RepellingSpec(TrainSpec):
    """Fine-tuning with the feature-repelling loss on the blocks from `first_block` on; alpha = 0 leaves it out."""

    lr: float = Field(1e-5, gt=0)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=2)
    warmup: float = Field(0.05, ge=0, lt=1)
    alpha: float = Field(0.0, ge=0, description="weight of the feature-repelling loss")
    margin: float = Field(-1.0, ge=-1, le=1)
    first_block: int = Field(3, ge=0, description="first repelled block D")
    augment: Augment = "none"


class FinetuneSpec(RepellingSpec):
    """Fine-tuning of the visual tower and a linear head, with cross-entropy on labels (paper: table 8)."""

    template: Template = TEMPLATE


class ContrastiveSpec(RepellingSpec):
    """Fine-tuning of both towers, with InfoNCE on clean captions (paper: table 8)."""


class CleanClipSpec(TrainSpec):
    """CleanCLIP (Bansal et al., ICCV 2023): InfoNCE and self-supervision within each modality, on clean captions."""

    lr: float = Field(1e-5, gt=0)
    epochs: int = Field(10, ge=1)
    batch_size: int = Field(64, ge=2)
    weight_decay: float = Field(0.1, ge=0)
    warmup: float = Field(0.003, ge=0, lt=1)
    weight: float = Field(1.0, ge=0, description="of the loss within the modalities")


class ParSpec(TrainSpec):
    """PAR, Perturb and Recover (Singh et al., arXiv 2412.00727): leave the suspect's features, keep InfoNCE low.

    Its published schedule falls from 3e-5 to 3e-6 in the first half of the steps; here half a cosine falls from 3e-5.
    """

    lr: float = Field(3e-5, gt=0)
    epochs: int = Field(2, ge=1)
    batch_size: int = Field(2048, ge=2)
    weight_decay: float = Field(1e-4, ge=0)
    threshold: float = Field(2.15, ge=0, le=4, description="squared distance from which nothing is perturbed further")
    augment: Augment = "noise-erase"
