"""Training a small CLIP from scratch: its geometry, its tokenizer, and symmetric InfoNCE on images and captions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field, model_validator

from rvpt.data.dataset import Dataset
from rvpt.models.clip import Clip
from rvpt.models.placement import refuse_half
from rvpt.progress import Report, shows_bar, silent
from rvpt.registry import Registry
from rvpt.spec import Augment, Spec, TrainSpec
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.contrastive import Contrastive
from rvpt.training.loop import fit


class VisionSpec(Spec):
    """Geometry of a CLIP to train from scratch, as in `transformers.CLIPConfig`."""

    image_size: int = Field(48, ge=16, description="side of the images, in pixels")
    patch_size: int = Field(8, ge=1, description="side of a patch, in pixels")
    width: int = Field(128, ge=8, description="width of the visual tower")
    blocks: int = Field(8, ge=1, description="blocks of the visual tower")
    heads: int = Field(8, ge=1, description="attention heads of both towers")
    text_width: int = Field(128, ge=8, description="width of the text tower")
    text_blocks: int = Field(2, ge=1, description="blocks of the text tower")
    text_length: int = Field(32, ge=4, description="maximum length of a text, in tokens")
    vocabulary: int = Field(512, ge=64, description="vocabulary size of the tokenizer")
    projection: int = Field(128, ge=2, description="width of image and text features")
    activation: Literal["gelu", "quick_gelu"] = Field("gelu", description="activation function")

    @model_validator(mode="after")
    def _fits(self) -> VisionSpec:
        if self.image_size % self.patch_size or self.width % self.heads or self.text_width % self.heads:
            raise ValueError("patch_size must divide image_size, and heads must divide both widths")
        return self


class PretrainSpec(TrainSpec):
    """Contrastive training from scratch: symmetric InfoNCE, optionally on a part of the patches (FLIP)."""

    lr: float = Field(1.5e-3, gt=0, description="learning rate")
    weight_decay: float = Field(0.05, ge=0, description="weight decay")
    warmup: float = Field(0.05, ge=0, lt=1, description="share of the steps with learning-rate warm-up")
    epochs: int = Field(7, ge=1, description="passes over the images")
    batch_size: int = Field(256, ge=2, description="images per training step")
    clip_norm: float = Field(1.0, ge=0, description="maximum gradient norm; 0 disables clipping")
    patch_drop: float = Field(0.0, ge=0, lt=1, description="share of the patches left out of a training step")
    patch_drop_until: float = Field(0.75, ge=0, le=1, description="share of the steps that leave patches out")
    augment: Augment = Field("none", description="random changes of training images")


PRESETS: Registry[dict[str, dict[str, Any]]] = Registry(
    "preset",
    {
        "scenes": {
            "vision": {},
            "train": {"lr": 1e-3, "batch_size": 128, "epochs": 4},
        },
        "photos": {
            "vision": {
                "image_size": 32, "patch_size": 4, "width": 128, "blocks": 8, "heads": 8, "text_width": 128,
                "text_blocks": 2, "vocabulary": 4096, "projection": 128,
            },
            "train": {
                "lr": 1e-3, "batch_size": 128, "epochs": 8, "patch_drop": 0.75, "patch_drop_until": 0.92,
                "augment": "crop-flip",
            },
        },
    },
)  # fmt: skip
"""Geometry and schedule by name."""


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A small byte-level BPE tokenizer: lower case, <start> before and <end> after each text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    # <end> must not have id 2: transformers would then read the text feature at the highest token id of a text.
    special = ["<pad>", "<end>", "<start>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(word, tokenizer.token_to_id(word)) for word in special[1:]]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>"
    )


def new_clip(spec: VisionSpec, tokenizer: Any, seed: int) -> Clip:
    """A CLIP of the given geometry with random weights, the same for the same seed."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": spec.text_width, "intermediate_size": 4 * spec.text_width,
        "num_hidden_layers": spec.text_blocks, "num_attention_heads": spec.heads,
        "max_position_embeddings": spec.text_length, "hidden_act": spec.activation,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": spec.width, "intermediate_size": 4 * spec.width,
        "num_hidden_layers": spec.blocks, "num_attention_heads": spec.heads,
        "image_size": spec.image_size, "patch_size": spec.patch_size, "hidden_act": spec.activation,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=spec.projection)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Clip(CLIPModel(config), tokenizer)


def untrained_clip(data: Dataset, vision: VisionSpec, seed: int) -> Clip:
    """A new CLIP with a tokenizer trained on the captions of `data`."""
    texts = (caption for index in range(len(data)) for caption in data.captions(index))
    return new_clip(vision, train_tokenizer(texts, vision.vocabulary), seed)


def train_clip(
    clip: Clip, data: Dataset, spec: PretrainSpec, *, checkpoint: Checkpoint | None = None, report: Report = silent
) -> list[dict[str, float]]:
    """Train all weights of `clip`, in place, on a captioned set; returns the mean loss of every epoch."""
    refuse_half(clip.model.dtype)
    task = Contrastive(clip.requires_grad_(True), data, spec.augment, spec.patch_drop, spec.patch_drop_until)
    history = fit(task, len(data), spec, checkpoint=checkpoint, report=report)
    clip.eval()
    return history


@shows_bar("pretrain")
def pretrain(
    data: Dataset,
    *,
    preset: str = "scenes",
    geometry: Mapping[str, Any] | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
    **settings: Any,
) -> Clip:
    """A small CLIP, trained from scratch on images and captions.

    Args:
        data: images with captions; `data.with_templates` makes captions from labels.
        preset: geometry and schedule: "scenes" or "photos".
        geometry: changes of the geometry, such as {"width": 192}.
        checkpoint: where to keep the state of the run.
        report: called after each step.
        settings: changes of the schedule, such as epochs=2.

    Raises:
        RvptError: an unknown preset or setting, or a value out of range.
    """
    chosen = PRESETS.find(preset)
    spec = PretrainSpec(**{**chosen["train"], **settings})
    clip = untrained_clip(data, VisionSpec(**{**chosen["vision"], **(geometry or {})}), spec.seed)
    train_clip(clip, data, spec, checkpoint=checkpoint, report=report)
    return clip
