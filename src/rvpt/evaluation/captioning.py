"""Captioning: captions of a LLaVA that uses the measured model as its visual tower.

The LLaVA's own visual tower is not used. The tokens of the measured model, with its prompts if it was cleaned with
prompts, go through the LLaVA's projector into its language model. So a backdoor of the tower shows in the captions.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.hub import asking_hub
from rvpt.data.text import names_class
from rvpt.errors import RvptError, first_line
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, finite, stream
from rvpt.evaluation.metrics import Mean, Rate, bleu
from rvpt.models.formats.checks import refuse_own_code
from rvpt.models.placement import find_device
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN
from rvpt.spec import Spec

PROMPT = "USER: <image>\nDescribe the image in one sentence. ASSISTANT:"
NEW_TOKENS = 30


class CaptioningSettings(Spec):
    """Settings of captioning."""

    captioner: str = Field(description="a LLaVA in transformers' layout: a folder or a hub id")
    prompt: str = Field(PROMPT, description="the question to the LLaVA, with <image> where the image goes")
    target: str | None = Field(None, description="name of the target class in the data, if different")


class Captioning(Protocol):
    """Share of captions that name a class, and BLEU."""

    name = "captioning"
    summary = "captions of a LLaVA that uses the model as its visual tower: classes that they name, BLEU"
    needs = "labels or captions"
    batch_size = 8  # a LLaVA's keys and values take half a GiB per image
    Settings = CaptioningSettings

    @cached_property
    def captioner(self) -> Captioner:
        return load_captioner(self.settings.captioner, self.settings.prompt)

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        return describe(model, data, self.captioner, triggers, batch_size=batch_size, report=report)


class Captioner:
    """A transformers LLaVA and its tokenizer: it captions images encoded by another tower, by greedy decoding."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str = PROMPT) -> None:
        self.model, self.tokenizer = model, tokenizer
        layers = model.config.vision_feature_layer
        self.layers: list[int] = [layers] if isinstance(layers, int) else list(layers)
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"][0].to(model.device)
        places = (ids == model.config.image_token_id).nonzero()[:, 0].tolist()
        if len(places) != 1:
            raise RvptError(f"prompt {prompt!r}: it must contain <image> exactly once")
        self.before, self.after = ids[: places[0]], ids[places[0] + 1 :]

    def check(self, tower: Encoder) -> None:
        """Refuse a tower whose tokens have another width than the projector's input.

        Raises:
            RvptError: the widths differ, or the tower lacks a layer that the LLaVA reads.
        """
        taken = self.model.model.multi_modal_projector.linear_1.in_features
        blank = torch.zeros(1, 3, tower.image_size, tower.image_size, device=tower.device)
        try:
            given = sum(state.shape[-1] for state in tower.hidden_states(blank, self.layers))
        except IndexError:
            raise RvptError(
                f"the captioner reads a tower's layers {self.layers}, which {tower.name} does not have: use a LLaVA "
                "made for a tower of this size"
            ) from None
        if given != taken:
            raise RvptError(
                f"the captioner's projector takes tokens of width {taken}, {tower.name} gives {given}: "
                "use a LLaVA made for a tower of this size"
            )

    def captions(self, tower: Encoder, pixels: Tensor) -> list[str]:
        """One caption for each image (B, 3, H, W) in [0, 1]."""
        seen = finite(tower, torch.cat(tower.hidden_states(pixels, self.layers), dim=-1))
        if self.model.config.vision_feature_select_strategy == "default":
            seen = seen[:, 1:]  # without [CLS]
        embed = self.model.get_input_embeddings()
        before, after = (embed(ids).expand(len(pixels), -1, -1) for ids in (self.before, self.after))
        shown = self.model.model.multi_modal_projector(seen.to(before))
        asked = torch.cat([before, shown, after], dim=1)
        said = self.model.generate(
            inputs_embeds=asked, attention_mask=torch.ones(asked.shape[:2], dtype=torch.int64, device=asked.device),
            max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=self.tokenizer.pad_token_id,
        )  # fmt: skip
        return [str(text) for text in self.tokenizer.batch_decode(said, skip_special_tokens=True)]


def load_captioner(source: str, prompt: str = PROMPT) -> Captioner:
    """A LLaVA from a folder in transformers' layout, or a hub id; its weights come from safetensors only.

    Raises:
        RvptError: it cannot be loaded.
    """
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    try:
        with nullcontext() if Path(source).is_dir() else asking_hub():
            model = LlavaForConditionalGeneration.from_pretrained(
                source, use_safetensors=True, dtype="auto", trust_remote_code=False
            )
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the hub's client and transformers raise many kinds
        refuse_own_code(error, source)
        raise RvptError(f"{source} is not a LLaVA in transformers' layout: {first_line(error)}") from None
    return Captioner(model.to(find_device()).eval(), tokenizer, prompt)


@torch.inference_mode()
def describe(
    model: Encoder,
    data: Dataset,
    captioner: Captioner,
    triggers: Triggers | None = None,
    *,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """Share of captions that name a class, in the singular or plural, and BLEU.

    BLEU: the mean sentence BLEU of clean images against their own captions, for sets that have captions.
    caption_CA: the share of clean images whose caption names their own class. caption_PA: the same with a trigger.
    caption_ASR: the share of triggered images of other classes whose caption names the target. Sets with captions but
    no labels only have caption_ASR; an image belongs to the target class if its captions name the target.

    Raises:
        RvptError: the captioner does not fit the model.
    """
    captioner.check(model)
    triggers, counts = triggers or {}, Counts()
    labels = data.labels.tolist() if data.labels is not None and data.classes else None
    of_target = {name: data.of_class(trigger.spec.target).tolist() for name, trigger in triggers.items()}

    def count_own(attack: str, metric: str, texts: Sequence[str], indices: Sequence[int]) -> None:
        if labels:
            named = [names_class([text], data.classes[labels[i]]) for text, i in zip(texts, indices, strict=True)]
            counts.count(attack, metric, _share(named))

    for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
        indices = batch.indices.tolist()
        if labels or data.captions_of:
            said = captioner.captions(model, batch.pixels)
            count_own(CLEAN, "caption_CA", said, indices)
            if data.captions_of:
                scores = [bleu(text, data.captions(i)) for text, i in zip(said, indices, strict=True)]
                counts.count(CLEAN, "BLEU", Mean(sum(scores), len(scores)))
        for name, pixels in batch.triggered():
            texts, target = captioner.captions(model, pixels), triggers[name].spec.target
            others = [text for text, i in zip(texts, indices, strict=True) if not of_target[name][i]]
            counts.count(name, "caption_ASR", _share([names_class([text], target) for text in others]))
            count_own(name, "caption_PA", texts, indices)
    return counts


def _share(hits: Sequence[bool]) -> Rate:
    return Rate(sum(hits), len(hits))
