"""Captioning: what a LLaVA says of pictures that it sees through the model that is measured.

Its own visual tower is set aside; the tokens of the measured one, with its prompts if it was cleaned by prompts, go
through the LLaVA's projector into its language model. So a backdoor in the tower speaks, and a cleaned tower is heard.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks import Trigger
from rvpt.attacks.poison import names_target, of_target
from rvpt.data import ImageData
from rvpt.errors import RvptError, first_line
from rvpt.evaluation import Counts, Encoder
from rvpt.loaders import refuse_own_code
from rvpt.metrics import Rate
from rvpt.progress import Report, silent

PROMPT = "USER: <image>\nDescribe the image in one sentence. ASSISTANT:"
NEW_TOKENS = 30


class Captioner:
    """A transformers LLaVA and its tokenizer; it captions what another visual tower sees, greedily."""

    def __init__(self, model: Any, tokenizer: Any, prompt: str = PROMPT) -> None:
        self.model, self.tokenizer = model, tokenizer
        layers = model.config.vision_feature_layer
        self.layers: list[int] = [layers] if isinstance(layers, int) else list(layers)
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"][0].to(model.device)
        places = (ids == model.config.image_token_id).nonzero()[:, 0].tolist()
        if len(places) != 1:
            raise RvptError(f"prompt {prompt!r}: it must hold <image> once")
        self.before, self.after = ids[: places[0]], ids[places[0] + 1 :]

    def check(self, tower: Encoder) -> None:
        """Refuse a tower whose tokens are not as wide as the projector takes them."""
        taken = self.model.model.multi_modal_projector.linear_1.in_features
        blank = torch.zeros(1, 3, tower.image_size, tower.image_size, device=tower.device)
        try:
            given = sum(state.shape[-1] for state in tower.hidden_states(blank, self.layers))
        except IndexError:
            raise RvptError(
                f"the captioner reads a tower's layers {self.layers}, which {tower.name} does not have: take a LLaVA "
                "that was made for a tower of this size"
            ) from None
        if given != taken:
            raise RvptError(
                f"the captioner's projector takes tokens of width {taken}, {tower.name} gives {given}: "
                "take a LLaVA that was made for a tower of this size"
            )

    def captions(self, tower: Encoder, pixels: Tensor) -> list[str]:
        """One caption for each picture (B, 3, H, W) in [0, 1]."""
        seen = torch.cat(tower.hidden_states(pixels, self.layers), dim=-1)
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
        RvptError: there is none.
    """
    from transformers import AutoTokenizer, LlavaForConditionalGeneration

    try:
        model = LlavaForConditionalGeneration.from_pretrained(
            source, use_safetensors=True, dtype="auto", trust_remote_code=False
        )
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
    except Exception as error:  # the hub's client and transformers raise many kinds
        refuse_own_code(error, source)
        raise RvptError(f"{source}: no LLaVA in transformers' layout ({first_line(error)})") from None
    device: Any = "cuda" if torch.cuda.is_available() else "cpu"
    return Captioner(model.to(device).eval(), tokenizer, prompt)


@torch.inference_mode()
def describe(
    model: Encoder,
    data: ImageData,
    captioner: Captioner,
    triggers: Mapping[str, Trigger] | None = None,
    *,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """Shares of captions that name a class, as words in the singular or plural.

    caption_CA: of clean pictures, those whose caption names their own class. Under every trigger caption_PA, the same,
    and caption_ASR: of the pictures of other classes than the target, those whose caption names the target. Sets with
    captions and no labels have caption_ASR alone; what their captions name is their class.
    """
    captioner.check(model)
    labels = data.labels.tolist() if data.labels is not None and data.classes else None
    own = {name: of_target(data, trigger.spec.target) for name, trigger in (triggers or {}).items()}
    counts: Counts = {}

    def count(attack: str, metric: str, hits: Sequence[bool]) -> None:
        counts[attack, metric] = counts.get((attack, metric), Rate(0, 0)) + Rate(sum(hits), len(hits))

    def named(texts: Sequence[str], indices: Sequence[int]) -> list[bool]:
        assert labels is not None
        return [names_target([text], data.classes[labels[i]]) for text, i in zip(texts, indices, strict=True)]

    for batch, read in data.batches(batch_size, model.image_size):
        pixels, indices = read.to(model.device), batch.tolist()
        if labels:
            count("none", "caption_CA", named(captioner.captions(model, pixels), indices))
        for name, trigger in (triggers or {}).items():
            texts = captioner.captions(model, trigger(pixels, data.rows[batch]))
            others = [text for text, i in zip(texts, indices, strict=True) if not own[name][i]]
            count(name, "caption_ASR", [names_target([text], trigger.spec.target) for text in others])
            if labels:
                count(name, "caption_PA", named(texts, indices))
        report(indices[-1] + 1, len(data), {})
    return counts
