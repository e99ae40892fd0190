"""The prompts' keys and values, for a runtime that has the base model and its own attention."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.exports import cards
from rvpt.exports.base import Export, outputs_of
from rvpt.files import read_json, write_json
from rvpt.models.blocks import Prefixes
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.tensors import read_tensors, write_tensors

ROWS, FACTS = "prompts.safetensors", "kv.json"


class KVRows(Export):
    """Keys and values (b, W) of the prompts in each block, and a record of how attention uses them."""

    name = "kv"
    summary = "keys and values of the prompts per block, for other runtimes with the base model"
    takes = frozenset({"prompts"})
    needs_base = True
    advice = {
        "weights": "use to=hf, onnx, torch, openclip or openai, which hold the weights",
        "head": "use to=onnx or torch, which hold the classifier too",
    }

    def write(self, model: Clip | Cleaned, folder: Path) -> dict[str, Any]:
        assert isinstance(model, Cleaned)  # others were refused
        prefixes = model.prefixes or {}
        attention: Any = model.clip.blocks[0].self_attn
        rows = {f"blocks.{block}.{part}": row for block, kv in prefixes.items()
                for part, row in zip(("key", "value"), kv, strict=True)}  # fmt: skip
        write_tensors(folder / ROWS, rows)
        facts = {
            "blocks": list(prefixes),
            "prompts_per_block": next(iter(prefixes.values()))[0].shape[0],
            "width": model.clip.width,
            "heads": attention.num_heads,
            "scale": attention.scale,
        }
        write_json(folder / FACTS, facts)
        return {}

    @torch.no_grad()
    def run(self, folder: Path, inputs: Mapping[str, Tensor], base: Clip | None = None) -> dict[str, Tensor]:
        assert base is not None  # as `needs_base` says
        image = F.normalize(base.get_image_features(inputs["pixel_values"], read_rows(folder)), dim=-1)
        return {**outputs_of(base, inputs), "image_embeds": image}

    def card(self, facts: Mapping[str, Any]) -> str:
        return cards.KV


def read_rows(folder: Path) -> Prefixes:
    """Block -> keys and values of its prompts, as `Clip.run_blocks` takes them.

    Raises:
        RvptError: a file is missing or damaged.
    """
    rows = read_tensors(folder / ROWS)
    blocks = read_json(folder / FACTS)["blocks"]
    return {block: (rows[f"blocks.{block}.key"], rows[f"blocks.{block}.value"]) for block in blocks}


KV_ROWS = KVRows()
