"""Contrastive training of both towers: the loss of a batch of image-caption pairs."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
        return {"loss": self.paired(self._encode(pixels, generator, done), *self.encode_different(texts))}

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

    def encode_different(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Features (M, P) of the M different texts, and the place (B,) of each text among them."""
        unique, places = different(texts)
        return self.clip.encode_text(unique), places.to(self.clip.device)

    def paired(self, image: Tensor, text: Tensor, places: Tensor) -> Tensor:
        """InfoNCE of image features (B, P) and the features (M, P) of different texts, one of which, at `places` (B,),
        belongs to each image; tau is clamped."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(max=self.largest)
        pairs = places[:, None] == torch.arange(len(text), device=places.device)
        return info_nce(image, text, self.clip.logit_scale, pairs)


def different(texts: Sequence[str]) -> tuple[list[str], Tensor]:
    """The different texts in the order of their first place, and the place (B,) int64 of each text among them."""
    place = {text: number for number, text in enumerate(dict.fromkeys(texts))}
    return list(place), torch.tensor([place[text] for text in texts])


def drop_patches(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Keep [CLS] and a random 1 - share of the patches of each image (Li et al., CVPR 2023, FLIP)."""
    patches = tokens.shape[1] - 1
    kept = max(1, round(patches * (1 - share)))
    order = torch.rand(len(tokens), patches, generator=generator).argsort(1)[:, :kept].to(tokens.device)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return torch.cat([tokens[:, :1], tokens[rows, 1 + order]], dim=1)
