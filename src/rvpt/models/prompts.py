"""Deep visual prompts: one table of b tokens for each prompted block, and what they do not change."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.models.blocks import KV, prompt_kv
from rvpt.models.clip import Clip

ENCODE_BATCH = 128


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
    def for_model(cls, clip: Clip, first_block: int = 3, length: int = 50) -> RepulsivePrompts:
        """Prompts for all blocks from `first_block` on."""
        return cls(range(first_block, len(clip.blocks)), length, clip.width).to(clip.device)

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
def first_tokens(clip: Clip, pixels: Tensor, first_block: int) -> Tensor:
    """Tokens (B, 1 + N, W) before block D, which do not depend on the prompts."""
    return clip.run_blocks(clip.embed(pixels), stop=first_block)[0]


@torch.no_grad()
def frozen_pass(clip: Clip, pixels: Tensor, first_block: int) -> tuple[Tensor, Tensor]:
    """What does not depend on the prompts: `first_tokens`, and the frozen model's [CLS] rows (B, L - D, W) after each
    block from D on."""
    tokens = first_tokens(clip, pixels, first_block)
    return tokens, clip.run_blocks(tokens, start=first_block)[1]


class Constants:
    """What `frozen_pass` gives for all images of a data set, computed once.

    4 (1 + N + L - D) W bytes per image: on the model's device while they take at most half of its free memory, or
    in main memory.
    """

    def __init__(self, clip: Clip, data: Dataset, first_block: int) -> None:
        self.device = clip.device
        self.stores: list[Tensor] = []
        start = 0
        for indices, pixels in data.batches(ENCODE_BATCH, clip.image_size, clip.device):
            parts = frozen_pass(clip, pixels, first_block)
            self.stores = self.stores or _stores(parts, len(data))
            for store, part in zip(self.stores, parts, strict=True):
                store[start : start + len(part)] = part
            start += len(indices)

    def __getitem__(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (B, 1 + N, W) before block D and frozen [CLS] rows (B, L - D, W) of images (B,), on the device."""
        tokens, rows = (_gather(store, indices, self.device) for store in self.stores)
        return tokens, rows


def room(device: torch.device) -> float:
    """Bytes of constants that may be kept on a device."""
    return torch.cuda.mem_get_info(device)[0] / 2 if device.type == "cuda" else float("inf")


def _stores(parts: Sequence[Tensor], n: int) -> list[Tensor]:
    """Room for `n` rows like those of each of `parts`."""
    fits = sum(part[0].nbytes for part in parts) * n <= room(parts[0].device)
    return [part.new_empty(n, *part.shape[1:], device=part.device if fits else "cpu") for part in parts]


def _gather(store: Tensor, indices: Tensor, device: torch.device) -> Tensor:
    """store[indices] on a device; from main memory to a GPU by way of pinned memory, so that no step waits for it."""
    if store.device == device:
        return store[indices.to(device, non_blocking=True)]
    pinned = torch.empty(len(indices), *store.shape[1:], dtype=store.dtype, pin_memory=True)
    return torch.index_select(store, 0, indices, out=pinned).to(device, non_blocking=True)
