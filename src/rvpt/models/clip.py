"""A CLIP: a transformers CLIPModel, its tokenizer and its image geometry."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.artifacts import CARD, staging, write_manifest
from rvpt.data.preprocess import OPENAI_MEAN, OPENAI_STD, to_pixels
from rvpt.data.text import spoken
from rvpt.files import share, write_json, write_text
from rvpt.models.blocks import Prefixes, block_forward
from rvpt.models.card import clip_card
from rvpt.models.quiet import quiet_transformers
from rvpt.spec import TEMPLATE
from rvpt.tensors import sha256_tensors

KIND = "clip"
PREPROCESSOR = "preprocessor_config.json"
TEXT_BATCH = 256


def model_name(source: str) -> str:
    """The name of a model by its source: a folder's name, or a hub id."""
    return Path(source).name if Path(source).is_absolute() or source.startswith(".") else source


class Clip(nn.Module):
    """A ViT CLIP with unit image and text features.

    Images are float (B, 3, S, S) in [0, 1] at the model's own size S; normalization happens in here. `preprocess`,
    `get_image_features`, `get_text_features` and calling the model follow transformers' CLIPModel instead: they make
    and take normalized `pixel_values`.

    Args:
        model: a transformers CLIPModel.
        tokenizer: its tokenizer.
        mean: of each channel, for the normalization.
        std: of each channel, likewise.
        source: where the model came from, a folder or a hub id.
        revision: the commit of a hub model.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Any,
        mean: Sequence[float] = OPENAI_MEAN,
        std: Sequence[float] = OPENAI_STD,
        source: str = "clip",
        revision: str | None = None,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.source, self.revision = source, revision
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def _apply(self, *args: Any, **options: Any) -> Clip:
        """Move or convert the model; images are normalized in float32 whatever its dtype."""
        mean, std = self.mean, self.std
        super()._apply(*args, **options)
        self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return self

    @property
    def name(self) -> str:
        """The name of the model in rows."""
        return model_name(self.source)

    @property
    def vision(self) -> Any:
        return self.model.vision_model

    @property
    def blocks(self) -> nn.ModuleList:
        """The L transformer blocks of the visual tower."""
        layers: nn.ModuleList = self.vision.encoder.layers
        return layers

    @property
    def width(self) -> int:
        return int(self.model.config.vision_config.hidden_size)

    @property
    def image_size(self) -> int:
        return int(self.model.config.vision_config.image_size)

    @property
    def activation(self) -> str:
        """Of both towers: "quick_gelu" as in OpenAI's CLIPs, or "gelu"."""
        return str(self.model.config.vision_config.hidden_act)

    @property
    def logit_scale(self) -> Tensor:
        """tau, the exponential of the learned scale."""
        scale: Tensor = self.model.logit_scale.exp()
        return scale

    @property
    def device(self) -> torch.device:
        device: torch.device = self.model.logit_scale.device
        return device

    def embed(self, pixels: Tensor) -> Tensor:
        """Tokens before block 0: (B, 1 + N, W)."""
        return self.embed_normalized(self.normalize(pixels))

    def normalize(self, pixels: Tensor) -> Tensor:
        """Images (B, 3, S, S) in [0, 1] as the pixel_values of transformers' CLIPModel."""
        values: Tensor = (pixels.to(self.device) - self.mean) / self.std
        return values.to(self.model.dtype)

    def embed_normalized(self, pixel_values: Tensor) -> Tensor:
        """Tokens before block 0, (B, 1 + N, W), of normalized images (B, 3, S, S)."""
        tokens: Tensor = self.vision.pre_layrnorm(self.vision.embeddings(pixel_values))
        return tokens

    def run_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, prefixes: Prefixes | None = None
    ) -> tuple[Tensor, Tensor]:
        """Blocks start..stop-1 on tokens (B, 1 + N, W): the tokens after them, and (B, stop - start, W), the
        [CLS] row after each. After the model's last block only the [CLS] token is left."""
        stop = len(self.blocks) if stop is None else stop
        rows = []
        for index in range(start, stop):
            prefix = prefixes.get(index) if prefixes else None
            tokens = block_forward(self.blocks[index], tokens, prefix, cls_only=index == len(self.blocks) - 1)
            rows.append(tokens[:, 0])
        return tokens, torch.stack(rows, 1) if rows else tokens.new_zeros(len(tokens), 0, tokens.shape[-1])

    def project(self, cls: Tensor) -> Tensor:
        """Unit image features (B, P) of the last [CLS] row (B, W)."""
        return F.normalize(self.project_unnormalized(cls), dim=-1)

    def project_unnormalized(self, cls: Tensor) -> Tensor:
        """Image features (B, P), not normalized, of the last [CLS] row (B, W)."""
        features: Tensor = self.model.visual_projection(self.vision.post_layernorm(cls))
        return features

    def encode_image(self, pixels: Tensor, prefixes: Prefixes | None = None) -> Tensor:
        """Unit image features (B, P) of images (B, 3, H, W) in [0, 1]."""
        tokens, _ = self.run_blocks(self.embed(pixels), prefixes=prefixes)
        return self.project(tokens[:, 0])

    def cls_rows(self, pixels: Tensor, prefixes: Prefixes | None = None) -> Tensor:
        """The [CLS] row after each of the L blocks: (B, L, W)."""
        return self.run_blocks(self.embed(pixels), prefixes=prefixes)[1]

    def hidden_states(self, pixels: Tensor, layers: Sequence[int], prefixes: Prefixes | None = None) -> list[Tensor]:
        """All tokens (B, 1 + N, W) at some of the L + 1 positions between blocks, as in transformers: 0 is before block
        0, -1 after the last."""
        return self.hidden_tokens(self.embed(pixels), layers, prefixes)

    def hidden_tokens(self, tokens: Tensor, layers: Sequence[int], prefixes: Prefixes | None = None) -> list[Tensor]:
        """`hidden_states` of the tokens (B, 1 + N, W) before block 0."""
        places = [range(len(self.blocks) + 1)[layer] for layer in layers]
        states = [tokens]
        for index, block in enumerate(self.blocks[: max(places)]):
            states.append(block_forward(block, states[-1], (prefixes or {}).get(index)))
        return [states[place] for place in places]

    def patch_features(self, pixel_values: Tensor, layer: int = -2, prefixes: Prefixes | None = None) -> Tensor:
        """Tokens (B, N, W) of all patches at a hidden layer, without [CLS], of pixel_values (B, 3, S, S).

        This is what a vision-language model such as LLaVA reads; `layer` counts as in `hidden_states`.
        """
        return self.hidden_tokens(self.embed_normalized(pixel_values.to(self.device)), [layer], prefixes)[0][:, 1:]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, T), padded to the longest text and cut at the model's length."""
        length = self.model.config.text_config.max_position_embeddings
        batch = self.tokenizer(list(texts), padding=True, truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = batch["input_ids"]
        return ids.to(self.device)

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Unit text features (B, P) of token ids (B, T)."""
        pooled = self.model.text_model(input_ids=ids).pooler_output
        return F.normalize(self.model.text_projection(pooled), dim=-1)

    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Unit text features (M, P) of M texts."""
        parts = [texts[i : i + TEXT_BATCH] for i in range(0, len(texts), TEXT_BATCH)]
        return torch.cat([self.encode_tokens(self.tokenize(part)) for part in parts])

    def class_features(self, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
        """Unit text features (K, P) of the caption of each class; underscores in names are read as spaces."""
        return self.encode_text([template.format(spoken(name)) for name in classes])

    def parameter_count(self, *, tokens: bool = False) -> int:
        """Parameters of both towers, without token embeddings (as in the paper's 0.27%) or with them."""
        table = self.model.text_model.embeddings.token_embedding.weight
        return sum(p.numel() for p in self.model.parameters()) - (0 if tokens else table.numel())

    def hash(self) -> str:
        """sha256 of the weights in float32: what a model saved in a lower precision has once it is loaded."""
        return sha256_tensors({name: value.float() for name, value in self.model.state_dict().items()})

    def preprocess(self, images: Any) -> Tensor:
        """pixel_values (n, 3, S, S) of PIL images, or of tensors (3, H, W) uint8 or float in [0, 1].

        Shorter side resized (bicubic), center cropped, normalized: what CLIPImageProcessor makes.
        """
        return self.normalize(to_pixels(images, self.image_size))

    def get_image_features(self, pixel_values: Tensor, prefixes: Prefixes | None = None) -> Tensor:
        """Image features (B, P), not normalized, of pixel_values (B, 3, S, S) from `preprocess`."""
        tokens, _ = self.run_blocks(self.embed_normalized(pixel_values.to(self.device)), prefixes=prefixes)
        return self.project_unnormalized(tokens[:, 0])

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Text features (M, P), not normalized, of token ids (M, T)."""
        pooled = self.model.text_model(input_ids=input_ids, attention_mask=attention_mask).pooler_output
        features: Tensor = self.model.text_projection(pooled)
        return features

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        prefixes: Prefixes | None = None,
    ) -> Any:
        """transformers' CLIPOutput: logits_per_image (B, M), logits_per_text (M, B), unit image_embeds, text_embeds."""
        from transformers.models.clip.modeling_clip import CLIPOutput

        image = F.normalize(self.get_image_features(pixel_values, prefixes), dim=-1)
        text = F.normalize(self.get_text_features(input_ids, attention_mask), dim=-1)
        logits = self.logit_scale * text @ image.T
        return CLIPOutput(logits_per_image=logits.T, logits_per_text=logits, text_embeds=text, image_embeds=image)

    def to_transformers(self) -> Any:
        """A copy as a plain transformers CLIPModel."""
        return copy.deepcopy(self.model)

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write model, tokenizer, image geometry, a model card and a manifest in transformers' layout.

        The folder is written whole or not at all.

        Raises:
            RvptError: the folder exists and `overwrite` is false.
            MachineError: the disk is full or not writable.
        """
        with staging(Path(folder), overwrite=overwrite) as stage:
            name = Path(folder).resolve().name
            self.write_artifact(stage, name, sha256=self.hash(), source=self.source, revision=self.revision)

    def write_artifact(self, folder: Path, name: str, **facts: Any) -> None:
        """Write what `write` writes, a model card titled `name`, and a manifest with facts, into an existing folder."""
        self.write(folder)
        write_text(folder / CARD, clip_card(name))
        write_manifest(folder, KIND, **facts)

    def write(self, folder: Path) -> None:
        """Write model, tokenizer and image geometry into an existing folder."""
        with quiet_transformers():
            self.model.save_pretrained(folder)
        for file in folder.glob("*.safetensors"):
            share(file)
        self.write_processors(folder)

    def write_processors(self, folder: Path) -> None:
        """Write tokenizer and image geometry into an existing folder."""
        with quiet_transformers():
            self.tokenizer.save_pretrained(folder)
        geometry = {
            "image_processor_type": "CLIPImageProcessor",
            "size": {"shortest_edge": self.image_size},
            "crop_size": {"height": self.image_size, "width": self.image_size},
            "image_mean": self.mean.flatten().tolist(),
            "image_std": self.std.flatten().tolist(),
            "do_resize": True, "do_center_crop": True, "do_rescale": True, "do_normalize": True,
            "do_convert_rgb": True, "resample": 3,
        }  # fmt: skip
        write_json(folder / PREPROCESSOR, geometry)
