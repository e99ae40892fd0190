"""A CLIP with prompts as a class of transformers: importing this module registers it.

import rvpt.models.auto
from transformers import AutoModel

model = AutoModel.from_pretrained("path/to/an/hf/export")

After the import, AutoConfig, AutoModel and pipelines know the model type "rvpt_clip". No code of a model's folder runs.
"""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoModelForZeroShotImageClassification, CLIPConfig, CLIPModel

from rvpt.models.blocks import Prefixes
from rvpt.models.clip import Clip
from rvpt.models.formats.artifacts import PROMPTED
from rvpt.models.prompted import PromptedAttention, prompted_transformers


class PromptedCLIPConfig(CLIPConfig):
    """A CLIPConfig with `prompt_lengths`: block -> number of prompts."""

    model_type = PROMPTED


class PromptedCLIPModel(CLIPModel):
    """A CLIPModel whose attention in some blocks of the image tower also sees the keys and values of prompts.

    They are buffers, `prompt_key` and `prompt_value` (b, W): saved with the weights, not trained. The weights of these
    blocks' attention have other names than in a CLIPModel, so that a CLIPModel, which would drop the prompts, cannot
    load them.
    """

    config_class = PromptedCLIPConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        width = config.vision_config.hidden_size
        for block, length in config.prompt_lengths.items():
            layer = self.vision_model.encoder.layers[int(block)]
            layer.self_attn = PromptedAttention(layer.self_attn, (torch.zeros(length, width),) * 2)


def prompted_auto(clip: Clip, prefixes: Prefixes) -> PromptedCLIPModel:
    """A CLIP with the keys and values of prompts as a model that `save_pretrained` can save."""
    stated = {name: value for name, value in clip.model.config.to_dict().items() if name != "model_type"}
    lengths = {str(block): key.shape[0] for block, (key, _) in prefixes.items()}
    model = PromptedCLIPModel(PromptedCLIPConfig(**stated, prompt_lengths=lengths)).to(clip.model.dtype)
    model.load_state_dict(prompted_transformers(clip, prefixes).state_dict())
    return model.eval()


AutoConfig.register(PROMPTED, PromptedCLIPConfig, exist_ok=True)
AutoModel.register(PromptedCLIPConfig, PromptedCLIPModel, exist_ok=True)
AutoModelForZeroShotImageClassification.register(PromptedCLIPConfig, PromptedCLIPModel, exist_ok=True)
