"""A state dict as OpenAI's code reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from rvpt.data.preprocess import CLIP_RESIZING, OPENAI_MEAN, OPENAI_STD
from rvpt.errors import RvptError
from rvpt.exports import cards
from rvpt.exports.state_dicts import StateDict
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.formats.write_open_clip import to_openai
from rvpt.tensors import write_tensors

WEIGHTS = "model.safetensors"
HEAD, RATIO, EPS = 64, 4, 1e-5  # what OpenAI's code takes for granted: values per head, hidden units, eps of norms


class OpenAI(StateDict):
    """model.safetensors, and the tokenizer beside it."""

    name = "openai"
    summary = "weights by OpenAI's names, of models with weights of their own and OpenAI's geometry"

    def refuse(self, model: Clip | Cleaned) -> None:
        super().refuse(model)
        clip = clip_of(model)
        towers = {"image": clip.model.config.vision_config, "text": clip.model.config.text_config}
        facts: dict[str, tuple[Any, Any]] = {"activation": (clip.activation, "quick_gelu")}
        for name, tower in towers.items():
            facts[f"heads of the {name} tower"] = (tower.num_attention_heads, tower.hidden_size // HEAD)
            facts[f"hidden units of the {name} tower"] = (tower.intermediate_size, RATIO * tower.hidden_size)
            facts[f"eps of the {name} tower"] = (tower.layer_norm_eps, EPS)
        for place, (found, wanted) in facts.items():
            if found != wanted:
                raise RvptError(
                    f"{model.name}: {place}: {found}, and OpenAI's code takes {wanted} for granted: use to=openclip"
                )
        usual, stated = torch.tensor([OPENAI_MEAN, OPENAI_STD]), torch.stack([clip.mean, clip.std]).flatten(1).cpu()
        resizing = replace(clip.resizing, rounding=CLIP_RESIZING.rounding)  # of half a pixel
        if not torch.allclose(stated, usual, atol=1e-6) or resizing != CLIP_RESIZING:
            other = "openclip" if resizing.resized in (None, clip.image_size) else "hf"
            raise RvptError(f"{model.name} preprocesses images otherwise than OpenAI's code: use to={other}")

    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        clip = clip_of(model)
        write_tensors(folder / WEIGHTS, to_openai(clip.model.state_dict()))
        clip.tokenizer.save_pretrained(folder)
        return {}

    def read(self, folder: Path) -> Clip:
        return load_clip(folder / WEIGHTS, device="cpu", activation="quick_gelu")

    def card(self, facts: Mapping[str, Any]) -> str:
        return cards.OPENAI


OPENAI = OpenAI()
