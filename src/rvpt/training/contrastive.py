"""Contrastive training of both towers: the loss of a batch of image-caption pairs."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from rvpt.data.augment import AUGMENTS
from rvpt.data.dataset import Dataset
from rvpt.models.clip import Clip
from rvpt.training.losses import info_nce

LARGEST_SCALE = math.log(100.0)  # tau never exceeds 100, as in Radford et al. (2021)


class Contrastive(nn.Module):
    """Loss of a batch of pairs, an image and one of its captions, on all or part of the patches (FLIP)."""

    def __init__(
        self,
        clip: Clip,
        data: Dataset,
        augment: str = "none",
        patch_drop: float = 0.0,
        drop_until: float = 1.0,
    ) -> None:
        super().__init__()
        self.clip, self.data, self.augment = clip, data, augment
        self.patch_drop, self.drop_until = patch_drop, drop_until
        sigmoid = clip.architecture.logit_bias is not None  # the tau of SigLIPs may be larger from the start
        self.largest = max(LARGEST_SCALE, float(clip.model.logit_scale.detach())) if sigmoid else LARGEST_SCALE

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        return {"loss": self.paired(self._encode(pixels, generator, done), texts)}

    def _encode(self, pixels: Tensor, generator: torch.Generator, done: float) -> Tensor:
        """Image features (B, P), of all patches or of those that are not dropped."""
        if not self.patch_drop or done >= self.drop_until:
            return self.clip.encode_image(pixels)
        tokens = drop_patches(self.clip.embed(pixels), self.patch_drop, generator)
        return self.clip.project(self.clip.run_blocks(tokens)[0][:, 0])

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """The images at `indices`, augmented, and one caption of each."""
        pixels = self.data.pixels(indices, self.clip.image_size).to(self.clip.device)
        pixels = AUGMENTS[self.augment](pixels, generator)
        picked = torch.randint(2**31, (len(indices),), generator=generator).tolist()
        return pixels, [(c := self.data.captions(i))[p % len(c)] for i, p in zip(indices.tolist(), picked, strict=True)]

    def paired(self, image: Tensor, texts: list[str]) -> Tensor:
        """InfoNCE of image features (B, P) and one text each; tau is clamped."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(max=self.largest)
        unique = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        column = torch.tensor([unique[text] for text in texts], device=image.device)
        pairs = column[:, None] == torch.arange(len(unique), device=image.device)
        return info_nce(image, self.clip.encode_text(list(unique)), self.clip.logit_scale, pairs)


def drop_patches(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Keep [CLS] and a random 1 - share of the patches of each image (Li et al., CVPR 2023, FLIP)."""
    patches = tokens.shape[1] - 1
    kept = max(1, round(patches * (1 - share)))
    order = torch.rand(len(tokens), patches, generator=generator).argsort(1)[:, :kept].to(tokens.device)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return torch.cat([tokens[:, :1], tokens[rows, 1 + order]], dim=1)
