"""Deep visual prompts: one table of b tokens for each prompted block."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.models.blocks import KV, prompt_kv
from rvpt.models.clip import Clip


class RepulsivePrompts(nn.Module):
    """Prompts p_d in R^{b x W} for the blocks d of a visual tower, Gaussian with mean zero.

    Block d sees [c_d, e_d, p_d]; the outputs at the prompts' positions are dropped. So a prompt acts only through its
    keys and values, which are the same for every image.

    ViT-B/32 with D = 3, b = 50: 9 * 50 * 768 = 345,600 parameters.
    """

    def __init__(self, blocks: Sequence[int], length: int, width: int, std: float = 0.02, seed: int = 0) -> None:
        super().__init__()
        if length < 1:
            raise RvptError(f"length={length}: a block needs at least 1 prompt")
        self.blocks = tuple(blocks)
        generator = torch.Generator().manual_seed(seed)
        self.table = nn.Parameter(std * torch.randn(len(self.blocks), length, width, generator=generator))

    @classmethod
    def for_model(cls, clip: Clip, first_block: int = 3, length: int = 50, seed: int = 0) -> RepulsivePrompts:
        """Prompts for all blocks from `first_block` on."""
        return cls(range(first_block, len(clip.blocks)), length, clip.width, seed=seed).to(clip.device)

    @property
    def first_block(self) -> int:
        return self.blocks[0]

    def forward(self, clip: Clip) -> dict[int, KV]:
        """Keys and values of the prompts in each block, for `Clip.run_blocks`."""
        return {block: prompt_kv(clip.blocks[block], row) for block, row in zip(self.blocks, self.table, strict=True)}

    def parameter_count(self) -> int:
        return self.table.numel()


def prompted_pass(clip: Clip, prompts: RepulsivePrompts, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """From the tokens before block D: unit image features (B, P), and the [CLS] rows (B, L - D, W) after each
    block from D on."""
    tokens, rows = clip.run_blocks(tokens, start=prompts.first_block, prefixes=prompts(clip))
    return clip.project(tokens[:, 0]), rows


@torch.no_grad()
def frozen_pass(clip: Clip, pixels: Tensor, first_block: int) -> tuple[Tensor, Tensor]:
    """What does not depend on the prompts: tokens (B, 1 + N, W) before block D, and the frozen model's [CLS] rows
    (B, L - D, W) after each block from D on."""
    tokens, _ = clip.run_blocks(clip.embed(pixels), stop=first_block)
    return tokens, clip.run_blocks(tokens, start=first_block)[1]
