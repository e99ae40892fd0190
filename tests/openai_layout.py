"""Random CLIPs in OpenAI's layout, and a slow twin: what OpenAI's and open_clip's code compute."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTokenizer

TEXTS = ["a photo of a cat.", "a photo of a gray seal, in the middle", "cat"]


@dataclass(frozen=True)
class Geometry:
    """Sizes of a small CLIP."""

    patch: int = 8
    side: int = 32
    width: int = 64
    heads: int = 1
    layers: int = 2
    hidden: int = 256
    text_width: int = 64
    text_heads: int = 1
    text_layers: int = 3
    length: int = 40
    features: int = 16


def small_tokenizer() -> CLIPTokenizer:
    """CLIP's byte-level BPE with a few merges: letters, letters that end a word, merges, and the two ends."""
    letters = list("abcdefghijklmnopqrstuvwxyz.,")
    merges = [("a", "t</w>"), ("c", "at</w>"), ("p", "h"), ("o", "t")]
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=merges)


def random_weights(geometry: Geometry = Geometry(), seed: int = 0, vocabulary: int | None = None) -> dict[str, Tensor]:
    """Weights by OpenAI's names."""
    generator, g = torch.Generator().manual_seed(seed), geometry

    def draw(*shape: int, mean: float = 0.0) -> Tensor:
        return mean + 0.1 * torch.randn(*shape, generator=generator)

    def norm(name: str, width: int) -> dict[str, Tensor]:
        return {f"{name}.weight": draw(width, mean=1.0), f"{name}.bias": draw(width)}

    def tower(name: str, layers: int, width: int, hidden: int) -> dict[str, Tensor]:
        found = {}
        for block in (f"{name}.resblocks.{number}" for number in range(layers)):
            found |= {
                **norm(f"{block}.ln_1", width), **norm(f"{block}.ln_2", width),
                f"{block}.attn.in_proj_weight": draw(3 * width, width), f"{block}.attn.in_proj_bias": draw(3 * width),
                f"{block}.attn.out_proj.weight": draw(width, width), f"{block}.attn.out_proj.bias": draw(width),
                f"{block}.mlp.c_fc.weight": draw(hidden, width), f"{block}.mlp.c_fc.bias": draw(hidden),
                f"{block}.mlp.c_proj.weight": draw(width, hidden), f"{block}.mlp.c_proj.bias": draw(width),
            }  # fmt: skip
        return found

    return {
        "visual.class_embedding": draw(g.width),
        "visual.positional_embedding": draw((g.side // g.patch) ** 2 + 1, g.width),
        "visual.conv1.weight": draw(g.width, 3, g.patch, g.patch),
        **norm("visual.ln_pre", g.width), **norm("visual.ln_post", g.width), "visual.proj": draw(g.width, g.features),
        **tower("visual.transformer", g.layers, g.width, g.hidden),
        **tower("transformer", g.text_layers, g.text_width, 4 * g.text_width),
        "token_embedding.weight": draw(vocabulary or len(small_tokenizer()), g.text_width),
        "positional_embedding": draw(g.length, g.text_width), **norm("ln_final", g.text_width),
        "text_projection": draw(g.text_width, g.features), "logit_scale": torch.tensor(math.log(50.0)),
    }  # fmt: skip


def write_tokenizer(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    small_tokenizer().save_pretrained(folder)
    return folder


def open_clip_config(geometry: Geometry = Geometry(), *, quick: bool = True, **preprocess: Any) -> dict[str, Any]:
    """The contents of open_clip_config.json."""
    g = geometry
    vision = {
        "layers": g.layers, "width": g.width, "patch_size": g.patch, "image_size": g.side,
        "head_width": g.width // g.heads, "mlp_ratio": g.hidden / g.width,
    }  # fmt: skip
    text = {
        "context_length": g.length, "vocab_size": len(small_tokenizer()), "width": g.text_width,
        "heads": g.text_heads, "layers": g.text_layers,
    }  # fmt: skip
    model = {"embed_dim": g.features, "vision_cfg": vision, "text_cfg": text, "quick_gelu": quick}
    return {"model_cfg": model, "preprocess_cfg": preprocess}


class Naive:
    """OpenAI's CLIP as its paper and code have it, one formula after another."""

    def __init__(self, weights: dict[str, Tensor], geometry: Geometry = Geometry(), *, quick: bool = True) -> None:
        self.weights, self.geometry, self.quick = weights, geometry, quick

    def norm(self, x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-5)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.weights[f"{name}.weight"].T + self.weights[f"{name}.bias"]

    def attend(self, x: Tensor, name: str, heads: int, mask: Tensor | None) -> Tensor:
        query, key, value = (x @ self.weights[f"{name}.in_proj_weight"].T + self.weights[f"{name}.in_proj_bias"]).chunk(
            3, dim=-1
        )
        parts, width = [], x.shape[-1] // heads
        for head in range(heads):
            own = slice(head * width, (head + 1) * width)
            scores = query[..., own] @ key[..., own].transpose(-1, -2) / math.sqrt(width)
            scores = scores if mask is None else scores + mask
            parts.append(scores.softmax(-1) @ value[..., own])
        return self.linear(torch.cat(parts, -1), f"{name}.out_proj")

    def blocks(self, x: Tensor, name: str, layers: int, heads: int, mask: Tensor | None = None) -> Tensor:
        for block in (f"{name}.resblocks.{number}" for number in range(layers)):
            x = x + self.attend(self.norm(x, f"{block}.ln_1"), f"{block}.attn", heads, mask)
            hidden = self.linear(self.norm(x, f"{block}.ln_2"), f"{block}.mlp.c_fc")
            hidden = hidden * torch.sigmoid(1.702 * hidden) if self.quick else F.gelu(hidden)
            x = x + self.linear(hidden, f"{block}.mlp.c_proj")
        return x

    def image(self, pixel_values: Tensor) -> Tensor:
        w, g = self.weights, self.geometry
        patches = F.conv2d(pixel_values, w["visual.conv1.weight"], stride=g.patch).flatten(2).transpose(1, 2)
        first = w["visual.class_embedding"].expand(len(patches), 1, -1)
        x = self.norm(torch.cat([first, patches], 1) + w["visual.positional_embedding"], "visual.ln_pre")
        x = self.blocks(x, "visual.transformer", g.layers, g.heads)
        return F.normalize(self.norm(x[:, 0], "visual.ln_post") @ w["visual.proj"], dim=-1)

    def text(self, texts: list[str]) -> Tensor:
        w, g, tokenizer = self.weights, self.geometry, small_tokenizer()
        ids = torch.zeros(len(texts), g.length, dtype=torch.long)
        for row, text in zip(ids, texts, strict=True):
            found = tokenizer(text)["input_ids"]
            row[: len(found)] = torch.tensor(found)
        x = w["token_embedding.weight"][ids] + w["positional_embedding"]
        mask = torch.full((g.length, g.length), -torch.inf).triu(1)
        x = self.norm(self.blocks(x, "transformer", g.text_layers, g.text_heads, mask), "ln_final")
        return F.normalize(x[torch.arange(len(texts)), ids.argmax(-1)] @ w["text_projection"], dim=-1)
