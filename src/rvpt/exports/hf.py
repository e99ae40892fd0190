"""A folder of transformers: a plain CLIPModel, or with prompts a class that rvpt registers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.exports import cards
from rvpt.exports.base import Export, write_processors
from rvpt.files import share
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.formats.artifacts import PROMPTED
from rvpt.models.quiet import quiet_transformers
from rvpt.models.save import write_clip


class Transformers(Export):
    """config.json, model.safetensors, tokenizer and image geometry."""

    name = "hf"
    summary = "a folder for transformers' AutoModel; with prompts it needs `import rvpt.models.auto`"
    libraries = ("transformers",)
    takes = frozenset({"prompts", "weights"})
    classes = ("CLIPModel", "SiglipModel")
    advice = {"head": "use to=onnx or torch, which hold the classifier too"}

    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        clip = clip_of(model)
        if not isinstance(model, Cleaned) or not model.prefixes:
            write_clip(clip, folder)
            return {"model_type": clip.model.config.model_type}
        from rvpt.models.auto import prompted_auto

        with quiet_transformers():
            prompted_auto(clip, model.prefixes).save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            share(file)
        write_processors(clip, folder)
        return {"model_type": PROMPTED}

    @torch.no_grad()
    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        from transformers import AutoModel

        import rvpt.models.auto  # noqa: F401  # registers the class

        with quiet_transformers():
            safe: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False, "use_safetensors": True}
            model = AutoModel.from_pretrained(folder, **safe).eval()
        found = {
            "image_embeds": model.get_image_features(pixel_values=inputs["pixel_values"].to(model.dtype)),
            "text_embeds": model.get_text_features(input_ids=inputs["input_ids"]),
        }
        return {name: F.normalize(getattr(value, "pooler_output", value), dim=-1) for name, value in found.items()}

    def card(self, facts: Mapping[str, Any]) -> str:
        return cards.HF_PROMPTED if facts["model_type"] == PROMPTED else cards.HF_PLAIN


HF = Transformers()
