"""The FLOPs of what `step.py` times: those that are counted, and those that cannot be avoided."""

from __future__ import annotations

from functools import lru_cache

from torch.utils.flop_counter import FlopCounterMode

from sizes import Geometry
from step_variants import CLASSES, VARIANTS, WITH_GRAPHS, Bench, Setting


def least_flops(geometry: Geometry, batch: int, what: str, *, prompted: bool) -> int:
    """FLOPs that cannot be avoided: two per multiply-add, attention and linear layers only.

    A step: blocks D..L-1 forward on 1 + N tokens, and backward to the activations (the same again, twice in
    attention). Block D's input is a constant, so its backward pass goes through the MLP and the output layer and then
    only to the prompts' K and V. The last block computes K and V of all tokens, the rest only for [CLS]. The
    prompts' own K and V are computed once per batch.
    """
    v, b, first = geometry.vision, geometry.length if prompted else 0, geometry.first_block
    width, blocks, mlp = v["hidden_size"], v["num_hidden_layers"], 4 * v["hidden_size"] * v["intermediate_size"]
    tokens, square = 1 + geometry.patches, 2 * width**2

    def block(length: int, attentions: int) -> int:
        return tokens * (4 * square + mlp) + attentions * 4 * tokens * (tokens + length) * width

    def last(attentions: int) -> int:
        head = 2 * width * geometry.projection
        return (2 * tokens + 2) * square + mlp + attentions * 4 * (tokens + b) * width + head

    if what in ("inference", "encode"):
        patches = 2 * geometry.patches * 3 * v["patch_size"] ** 2 * width
        return batch * (patches + first * block(0, 1) + (blocks - 1 - first) * block(b, 1) + last(1))
    middle = blocks - first - 2
    forward = (middle + 1) * block(b, 1) + last(1)
    backward = middle * block(b, 2) + last(2) + tokens * (square + mlp) + 6 * tokens * b * width
    logits = 2 * 2 * geometry.projection * CLASSES
    return batch * (forward + backward + logits) + (blocks - first) * 2 * 2 * b * square


@lru_cache
def count_flops(model: str, batch: int, what: str, variant: str) -> int:
    """FLOPs of one call, counted on the meta device, which has no fused attention that would hide some."""
    if what in WITH_GRAPHS:  # the same work in other ways
        return count_flops(model, batch, "step", "naive" if variant == "naive" else "fast")
    if what == "encode":
        return count_flops(model, batch, "inference", "cleaned")
    bench = Bench(Setting(model, "meta", "fp32", batch))
    run = VARIANTS[what][variant](bench)
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())
