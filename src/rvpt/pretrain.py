"""Training a small CLIP from scratch: symmetric InfoNCE on images and captions."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.augment import AUGMENTS
from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import PretrainSpec, VisionSpec
from rvpt.data import ImageData
from rvpt.losses import info_nce
from rvpt.progress import Report, silent
from rvpt.train import fit

LARGEST_SCALE = math.log(100.0)  # tau never exceeds 100, as in Radford et al. (2021)


class Contrastive(nn.Module):
    """Loss of a batch of (image, one of its captions) pairs, on all or a part of the patches (FLIP)."""

    def __init__(
        self,
        clip: Clip,
        data: ImageData,
        augment: str = "none",
        patch_drop: float = 0.0,
        drop_until: float = 1.0,
    ) -> None:
        super().__init__()
        self.clip, self.data, self.augment = clip, data, augment
        self.patch_drop, self.drop_until = patch_drop, drop_until

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        pixels, texts = self.draw(indices, generator)
        tokens = self.clip.embed(pixels)
        if self.patch_drop and done < self.drop_until:
            tokens = drop_patches(tokens, self.patch_drop, generator)
        return {"loss": self.paired(self.clip.project(self.clip.run_blocks(tokens)[0][:, 0]), texts)}

    def draw(self, indices: Tensor, generator: torch.Generator) -> tuple[Tensor, list[str]]:
        """The images at `indices`, augmented, and one caption of each."""
        pixels = self.data.pixels(indices, self.clip.image_size).to(self.clip.device)
        pixels = AUGMENTS[self.augment](pixels, generator)
        picked = torch.randint(2**31, (len(indices),), generator=generator).tolist()
        return pixels, [(c := self.data.captions(i))[p % len(c)] for i, p in zip(indices.tolist(), picked, strict=True)]

    def paired(self, image: Tensor, texts: list[str]) -> Tensor:
        """InfoNCE of image features (B, P) and a text each; tau is kept within its bounds."""
        with torch.no_grad():
            self.clip.model.logit_scale.clamp_(max=LARGEST_SCALE)
        unique = {text: place for place, text in enumerate(dict.fromkeys(texts))}
        column = torch.tensor([unique[text] for text in texts], device=image.device)
        pairs = column[:, None] == torch.arange(len(unique), device=image.device)
        return info_nce(image, self.clip.encode_text(list(unique)), self.clip.logit_scale, pairs)


def drop_patches(tokens: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Keep [CLS] and a random 1 - share of the patches, others for each image (Li et al., CVPR 2023, FLIP)."""
    patches = tokens.shape[1] - 1
    kept = max(1, round(patches * (1 - share)))
    order = torch.rand(len(tokens), patches, generator=generator).argsort(1)[:, :kept].to(tokens.device)
    rows = torch.arange(len(tokens), device=tokens.device)[:, None]
    return torch.cat([tokens[:, :1], tokens[rows, 1 + order]], dim=1)


def train_tokenizer(texts: Iterable[str], vocabulary: int) -> Any:
    """A byte-level BPE tokenizer for small worlds: lower case, <start> before and <end> after each text."""
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    # <end> must not have id 2: transformers then reads the text feature off the highest token id of a text instead.
    special = ["<pad>", "<end>", "<start>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    ends = [(word, tokenizer.token_to_id(word)) for word in special[1:]]
    tokenizer.post_processor = processors.TemplateProcessing(single="<start> $A <end>", special_tokens=ends)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<start>", eos_token="<end>"
    )


def new_clip(spec: VisionSpec, tokenizer: Any, seed: int) -> Clip:
    """A CLIP of the given geometry with random weights, the same for the same seed."""
    from transformers import CLIPConfig, CLIPModel

    text = {
        "hidden_size": spec.text_width, "intermediate_size": 4 * spec.text_width,
        "num_hidden_layers": spec.text_blocks, "num_attention_heads": spec.heads,
        "max_position_embeddings": spec.text_length, "hidden_act": spec.activation,
        "vocab_size": len(tokenizer),
        "pad_token_id": tokenizer.pad_token_id, "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
    }  # fmt: skip
    vision = {
        "hidden_size": spec.width, "intermediate_size": 4 * spec.width,
        "num_hidden_layers": spec.blocks, "num_attention_heads": spec.heads,
        "image_size": spec.image_size, "patch_size": spec.patch_size, "hidden_act": spec.activation,
    }  # fmt: skip
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=spec.projection)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Clip(CLIPModel(config), tokenizer)


def untrained_clip(data: ImageData, vision: VisionSpec, seed: int) -> Clip:
    """A new CLIP with a tokenizer made of the captions of `data`."""
    texts = (caption for index in range(len(data)) for caption in data.captions(index))
    return new_clip(vision, train_tokenizer(texts, vision.vocabulary), seed)


def pretrain(
    clip: Clip, data: ImageData, spec: PretrainSpec, *, checkpoint: Checkpoint | None = None, report: Report = silent
) -> list[dict[str, float]]:
    """Train all weights of `clip`, in place, on a captioned set; returns the mean loss of every epoch."""
    task = Contrastive(clip.requires_grad_(True), data, spec.augment, spec.patch_drop, spec.patch_drop_until)
    history = fit(task, len(data), spec, checkpoint=checkpoint, report=report)
    clip.eval()
    return history
