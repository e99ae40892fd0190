"""What `step.py` times: the fast and the naive step, inference, and their parts, on one batch of one model."""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPModel

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from rvpt.models.blocks import block_forward, join, split_heads
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.packed import packed
from rvpt.models.placement import DTYPES, mixed_precision
from rvpt.models.prompts import RepulsivePrompts, frozen_pass, prompted_pass
from rvpt.spec import TrainSpec
from rvpt.training.graphs import Recorder
from rvpt.training.losses import feature_repelling, zero_shot_logits
from rvpt.training.optimizer import make_optimizer
from sizes import MODELS, Geometry

CLASSES, ALPHA = 100, 2.0
SPEC = TrainSpec(optimizer="sgd", lr=2e-3)
Run = Callable[[], None]
"""One call: a training step, or encoding a batch."""


@dataclass(frozen=True)
class Setting:
    model: str
    device: str
    dtype: str
    batch: int

    @property
    def geometry(self) -> Geometry:
        return MODELS[self.model]

    def precision(self) -> AbstractContextManager[Any]:
        """Mixed precision as in `rvpt.training`: float32 weights under autocast."""
        return mixed_precision(self.dtype, torch.device(self.device))


class Bench:
    """One batch, one model, and everything a step needs."""

    def __init__(self, setting: Setting) -> None:
        geometry, device = setting.geometry, setting.device
        text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = CLIPConfig(text_config=text, vision_config=geometry.vision, projection_dim=geometry.projection)
        torch.manual_seed(0)
        with torch.device(device):
            self.clip = Clip(CLIPModel(config), tokenizer=None).eval().requires_grad_(False)
        self.setting = setting
        self.prompts = RepulsivePrompts.for_model(self.clip, geometry.first_block, geometry.length)
        self.cleaned = Cleaned(self.clip, self.prompts)
        self.optimizer = make_optimizer([self.prompts.table], SPEC)
        self.scaler = torch.amp.GradScaler(device, enabled=setting.dtype == "fp16")  # otherwise it does nothing
        side = geometry.vision["image_size"]
        self.pixels = torch.rand(setting.batch, 3, side, side, device=device)
        self.labels = torch.randint(CLASSES, (setting.batch,), device=device)
        self.text = F.normalize(torch.randn(CLASSES, geometry.projection, device=device), dim=-1)

    def naive_pass(self) -> tuple[Tensor, Tensor]:
        return reference.prompted(self.clip, self.prompts.blocks, self.prompts.table, self.pixels)

    def backward(self, image: Tensor, rows: Tensor, frozen_rows: Tensor) -> Tensor:
        """The loss and its gradients of (image features, [CLS] rows, frozen [CLS] rows), the same on all paths."""
        logits = zero_shot_logits(image, self.text, self.clip.logit_scale)
        loss = F.cross_entropy(logits, self.labels) + ALPHA * feature_repelling(rows, frozen_rows)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


def fast_step(
    bench: Bench,
    forward: Callable[..., tuple[Tensor, Tensor]] = prompted_pass,
    *,
    graph: bool = False,
) -> Run:
    """The pass that computes the constants is not timed: a run has one, the naive path one per epoch."""
    prompts, setting = bench.prompts, bench.setting
    clip = packed(bench.clip, DTYPES[setting.dtype])
    with setting.precision():
        constants = frozen_pass(clip, bench.pixels, prompts.first_block)
    picked = torch.randperm(len(bench.pixels)).to(constants[0].device)

    def compute(tokens: Tensor, frozen_rows: Tensor) -> Tensor:
        with setting.precision():
            return bench.backward(*forward(clip, prompts, tokens), frozen_rows)

    call = Recorder(compute, [prompts.table]) if graph else compute

    def run() -> None:
        call(*(constant[picked] for constant in constants))
        bench.update()

    return run


def compiled_step(bench: Bench, *, graph: bool = False) -> Run:
    torch.compiler.reset()  # what was compiled for other models counts towards a limit
    return fast_step(bench, torch.compile(prompted_pass), graph=graph)


def naive_step(bench: Bench) -> Run:
    def run() -> None:
        with bench.setting.precision():
            frozen_rows = reference.frozen(bench.clip, bench.pixels, bench.prompts.first_block)[1]
            bench.backward(*bench.naive_pass(), frozen_rows)
        bench.update()

    return run


def inference(encode: Callable[[Bench], Any]) -> Callable[[Bench], Run]:
    def make(bench: Bench) -> Run:
        def run() -> None:
            with torch.inference_mode(), bench.setting.precision():
                encode(bench)

        return run

    return make


def compiled_encode(bench: Bench) -> Run:
    torch.compiler.reset()
    encode = torch.compile(bench.cleaned.encode_image)
    return inference(lambda x: encode(x.pixels))(bench)


def channels_last_encode(bench: Bench) -> Run:
    """Images and the weights of the patch embedding with the channels of a pixel side by side."""
    cleaned = copy.deepcopy(bench.cleaned)
    cleaned.clip.model.vision_model.embeddings.patch_embedding.to(memory_format=torch.channels_last)
    pixels = bench.pixels.to(memory_format=torch.channels_last)
    return inference(lambda _: cleaned.encode_image(pixels))(bench)


def block_part(part: str, *, prompted: bool) -> Callable[[Bench], Run]:
    """A middle block of inference, or what prompts change in it: attention, and joining keys and values."""

    def make(bench: Bench) -> Run:
        index = bench.prompts.blocks[len(bench.prompts.blocks) // 2]
        layer, prefix = bench.clip.blocks[index], bench.cleaned.prefixes[index] if prompted else None
        tokens = torch.randn(bench.setting.batch, 1 + bench.setting.geometry.patches, bench.clip.width)
        tokens = tokens.to(bench.setting.device)
        parts = [tokens if prefix is None else join(value, tokens) for value in prefix or (None, None)]
        query, key, value = (split_heads(x, layer.self_attn.num_heads) for x in (tokens, *parts))
        calls: dict[str, Run] = {
            "block": lambda: block_forward(layer, tokens, prefix),
            "attention": lambda: F.scaled_dot_product_attention(query, key, value),
            "join": lambda: [join(value, tokens) for value in prefix or ()],
        }
        return inference(lambda _: calls[part]())(bench)

    return make


# The times of the others are divided by that of the first.
VARIANTS: dict[str, dict[str, Callable[[Bench], Run]]] = {
    "step": {"fast": fast_step, "naive": naive_step},
    "inference": {
        "undefended": inference(lambda x: x.clip.encode_image(x.pixels)),
        "transformers": inference(lambda x: x.clip.model.get_image_features(reference.normalized(x.clip, x.pixels))),
        "cleaned": inference(lambda x: x.cleaned.encode_image(x.pixels)),
        "naive": inference(Bench.naive_pass),
    },
    "encode": {
        "cleaned": inference(lambda x: x.cleaned.encode_image(x.pixels)),
        "channels-last": channels_last_encode,
        "compiled": compiled_encode,
    },
    "block": {
        f"{part}{', prompted' if prompted else ''}": block_part(part, prompted=prompted)
        for part, prompted in (
            ("block", False),
            ("block", True),
            ("attention", False),
            ("attention", True),
            ("join", True),
        )
    },
    "graph": {
        "graph": partial(fast_step, graph=True),
        "one by one": fast_step,
        "naive": naive_step,
    },
    "compile": {
        "fast": fast_step,
        "compiled": compiled_step,
        "compiled graph": partial(compiled_step, graph=True),
    },
}
WITH_GRAPHS = ("graph", "compile")
