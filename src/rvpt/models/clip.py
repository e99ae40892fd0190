"""A CLIP: a model, its tokenizer and its preprocessing."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.artifacts import staging
from rvpt.data.preprocess import CLIP_RESIZING, OPENAI_MEAN, OPENAI_STD, ImageSize, Resizing, to_pixels
from rvpt.data.text import spoken
from rvpt.models.architectures import architecture_of
from rvpt.models.architectures.base import Architecture
from rvpt.models.blocks import Prefixes
from rvpt.models.formats.preprocessing import Preprocessing
from rvpt.models.save import write_artifact
from rvpt.spec import TEMPLATE
from rvpt.tensors import sha256_tensors

TEXT_BATCH = 256


def model_name(source: str) -> str:
    """The name of a model by its source: a folder's name, or a hub id."""
    return Path(source).name if Path(source).is_absolute() or source.startswith(".") else source


class Clip(nn.Module):
    """A CLIP with unit image and text features: a ViT CLIP, a ResNet CLIP or a SigLIP. Only the first takes prompts.

    Images are float (B, 3, S, S) in [0, 1] at the model's own size S; normalization happens in here. `preprocess`,
    `get_image_features`, `get_text_features` and calling the model follow transformers' CLIPModel instead: they make
    and take normalized `pixel_values`.

    Args:
        model: a transformers CLIPModel or SiglipModel, or a ResNetModel.
        tokenizer: its tokenizer.
        mean: of each channel, for the normalization.
        std: of each channel, likewise.
        source: where the model came from, a folder or a hub id.
        revision: the commit of a hub model.
        resizing: how images of other shapes become squares; by default CLIP's way.
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
        resizing: Resizing = CLIP_RESIZING,
    ) -> None:
        super().__init__()
        self.model: Any = model
        self.tokenizer = tokenizer
        self.source, self.revision, self.resizing = source, revision, resizing
        self.backdoored = False  # on purpose, by rvpt, as the folder that it was read from says
        self.asked_activation: str | None = None  # that its files do not state
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(3, 1, 1), persistent=False)

    def _apply(self, *args: Any, **options: Any) -> Clip:
        """Move or convert the model; images are normalized in float32 whatever its dtype."""
        mean, std = self.mean, self.std
        super()._apply(*args, **options)
        self.mean, self.std = mean.to(self.mean.device), std.to(self.std.device)
        return self

    def __repr__(self) -> str:
        parameters = self.parameter_count(tokens=True) / 1e6
        return f"Clip({self.name!r}, {parameters:.1f}M parameters, images of side {self.image_size})"

    @property
    def name(self) -> str:
        """The name of the model in rows."""
        return model_name(self.source)

    @property
    def architecture(self) -> Architecture:
        """What depends on the kind of model: a ViT CLIP, a ResNet CLIP or a SigLIP."""
        return architecture_of(self.model)

    @property
    def vision(self) -> nn.Module:
        """The visual tower."""
        return self.architecture.image_modules[0]

    @property
    def blocks(self) -> nn.ModuleList:
        """The L transformer blocks of a ViT CLIP's visual tower.

        Raises:
            RvptError: it is no ViT CLIP.
        """
        return self.architecture.blocks

    @property
    def width(self) -> int:
        """The number of channels W of a row in `cls_rows`."""
        return self.architecture.width

    @property
    def depth(self) -> int:
        """The number L of rows in `cls_rows`."""
        return self.architecture.depth

    @property
    def projection_dim(self) -> int:
        """The number P of features."""
        return self.architecture.projection_dim

    @property
    def image_size(self) -> int:
        """The side S of images, an ImageSize, which also says how images of other shapes become S x S."""
        return ImageSize(self.architecture.image_size, self.resizing)

    @property
    def preprocessing(self) -> Preprocessing:
        mean, std = (tuple(part.flatten().tolist()) for part in (self.mean, self.std))
        return Preprocessing(self.architecture.image_size, mean, std, self.resizing)

    @property
    def activation(self) -> str:
        """Of the transformers: "quick_gelu" as in OpenAI's CLIPs, "gelu", or "gelu_pytorch_tanh"."""
        return self.architecture.activation

    @property
    def logit_scale(self) -> Tensor:
        """tau, the exponential of the learned scale, a scalar."""
        scale: Tensor = self.model.logit_scale.exp().squeeze()
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
        """Tokens before block 0, (B, 1 + N, W), of normalized images (B, 3, S, S), in a ViT CLIP."""
        return self.architecture.embed(pixel_values)

    def run_blocks(
        self, tokens: Tensor, start: int = 0, stop: int | None = None, prefixes: Prefixes | None = None
    ) -> tuple[Tensor, Tensor]:
        """Blocks start..stop-1 on tokens (B, 1 + N, W): the tokens after them, and (B, stop - start, W), the
        [CLS] row after each. After the model's last block only the [CLS] token is left.

        Raises:
            RvptError: it is no ViT CLIP.
        """
        return self.architecture.run_blocks(tokens, start, stop, prefixes)

    def project(self, cls: Tensor) -> Tensor:
        """Unit image features (B, P) of the last [CLS] row (B, W)."""
        return F.normalize(self.project_unnormalized(cls), dim=-1)

    def project_unnormalized(self, cls: Tensor) -> Tensor:
        """Image features (B, P), not normalized, of the last [CLS] row (B, W)."""
        return self.architecture.project(cls)

    def features_and_rows(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Unit image features (B, P) of images (B, 3, S, S) in [0, 1], and `cls_rows` from the same pass."""
        features, rows = self.architecture.features_and_rows(self.normalize(pixels))
        return F.normalize(features, dim=-1), rows

    def encode_image(self, pixels: Tensor, prefixes: Prefixes | None = None) -> Tensor:
        """Unit image features (B, P) of images (B, 3, S, S) in [0, 1]."""
        return F.normalize(self.architecture.features_and_rows(self.normalize(pixels), prefixes)[0], dim=-1)

    def cls_rows(self, pixels: Tensor, prefixes: Prefixes | None = None) -> Tensor:
        """A row for each block, (B, L, W): its [CLS] token.

        SigLIPs and ResNets have none. Their rows are means over the patches after each block, or over the map after
        each stage, with zeros after the channels that a stage lacks.
        """
        return self.architecture.features_and_rows(self.normalize(pixels), prefixes)[1]

    def hidden_states(self, pixels: Tensor, layers: Sequence[int], prefixes: Prefixes | None = None) -> list[Tensor]:
        """All tokens (B, 1 + N, W) at some of the L + 1 positions between blocks, as in transformers: 0 is before block
        0, -1 after the last.

        Raises:
            RvptError: it is no ViT CLIP.
        """
        return self.architecture.hidden_states(self.normalize(pixels), layers, prefixes)

    def patch_features(self, pixel_values: Tensor, layer: int = -2, prefixes: Prefixes | None = None) -> Tensor:
        """Tokens (B, N, W) of all patches at a hidden layer, without [CLS], of pixel_values (B, 3, S, S).

        This is what a vision-language model such as LLaVA reads; `layer` counts as in `hidden_states`.
        """
        return self.architecture.hidden_states(pixel_values.to(self.device), [layer], prefixes)[0][:, 1:]

    def tokenize(self, texts: Sequence[str]) -> Tensor:
        """Token ids (B, T), padded to the longest text (of a SigLIP, to its length) and cut at the model's length."""
        length, padding = self.model.config.text_config.max_position_embeddings, self.architecture.padding()
        batch = self.tokenizer(list(texts), padding=padding, truncation=True, max_length=length, return_tensors="pt")
        ids: Tensor = batch["input_ids"]
        return ids.to(self.device)

    def encode_tokens(self, ids: Tensor) -> Tensor:
        """Unit text features (B, P) of token ids (B, T)."""
        return F.normalize(self.architecture.text_features(ids), dim=-1)

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

        What the model's own image processor makes, of most models with the shorter side resized (bicubic), and the
        center cropped.
        """
        return self.normalize(to_pixels(images, self.image_size))

    def get_image_features(self, pixel_values: Tensor, prefixes: Prefixes | None = None) -> Tensor:
        """Image features (B, P), not normalized, of pixel_values (B, 3, S, S) from `preprocess`."""
        return self.architecture.features_and_rows(pixel_values.to(self.device), prefixes)[0]

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Text features (M, P), not normalized, of token ids (M, T)."""
        return self.architecture.text_features(input_ids, attention_mask)

    def forward(
        self,
        input_ids: Tensor,
        pixel_values: Tensor,
        attention_mask: Tensor | None = None,
        prefixes: Prefixes | None = None,
    ) -> Any:
        """transformers' CLIPOutput: logits_per_image (B, M), logits_per_text (M, B), unit image_embeds, text_embeds.

        Logits are tau cos(image, text), and of a SigLIP tau cos(image, text) + b, for its sigmoid.
        """
        from transformers.models.clip.modeling_clip import CLIPOutput

        image = F.normalize(self.get_image_features(pixel_values, prefixes), dim=-1)
        text = F.normalize(self.get_text_features(input_ids, attention_mask), dim=-1)
        logits = self.logit_scale * text @ image.T
        if (bias := self.architecture.logit_bias) is not None:
            logits = logits + bias
        return CLIPOutput(logits_per_image=logits.T, logits_per_text=logits, text_embeds=text, image_embeds=image)

    def to_transformers(self) -> Any:
        """A copy as a plain model of transformers: a CLIPModel, or a SiglipModel.

        Raises:
            RvptError: it is a ResNet CLIP, which transformers does not have.
        """
        return copy.deepcopy(self.architecture.exported())

    def save_pretrained(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write model, tokenizer, preprocessing, a model card and a manifest.

        The layout is that of transformers. For ResNet CLIPs, which transformers does not have, it is that of open_clip.
        The folder is written whole or not at all.

        Raises:
            RvptError: the folder exists and `overwrite` is false.
            MachineError: the disk is full or not writable.
        """
        with staging(Path(folder), overwrite=overwrite) as stage:
            name = Path(folder).resolve().name
            write_artifact(self, stage, name, sha256=self.hash(), source=self.source, revision=self.revision)
