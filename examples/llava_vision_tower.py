"""Put a cleaned model into a vision-language model of transformers' LLaVA kind, as its vision tower.

python examples/llava_vision_tower.py --cleaned cleaned

The language model here is small and random, so its answers mean nothing. With a real one, replace `small_llava` by
`LlavaForConditionalGeneration.from_pretrained(...)`, whose vision tower must be the CLIP that was cleaned.
"""

from __future__ import annotations

import argparse

import torch
from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

import rvpt

IMAGE_TOKEN, LAYER = 9, -2  # LLaVA reads the layer before the last


def main(arguments: list[str] | None = None) -> None:
    """Compare the patches that LLaVA gets with those of `patch_features`, and run it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleaned", default="cleaned", help="folder of a cleaned model")
    asked = parser.parse_args(arguments)

    cleaned = rvpt.load(asked.cleaned)
    pixels = rvpt.load_data("scenes:2", split="test").pixels(torch.arange(2), cleaned.image_size)
    pixel_values = cleaned.clip.normalize(pixels)
    patches = cleaned.patch_features(pixel_values, layer=LAYER)  # (2, N, W), with the prompts, without [CLS]

    llava = small_llava(cleaned.clip.model.config.vision_config)
    llava.model.vision_tower = cleaned.to_transformers().vision_model
    ids = torch.tensor([[1, *[IMAGE_TOKEN] * patches.shape[1], 5, 6]] * 2)
    with torch.no_grad():
        states = llava.model.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        difference = (states[LAYER][:, 1:] - patches).abs().max()
        logits = llava(input_ids=ids, pixel_values=pixel_values).logits
    print(f"largest difference of the patches: {difference:.1e}")
    print(f"logits of the next token: {tuple(logits[:, -1].shape)}")


def small_llava(vision: CLIPVisionConfig) -> LlavaForConditionalGeneration:
    """A LLaVA with a random language model of two blocks."""
    language = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=language, image_token_index=IMAGE_TOKEN, vision_feature_layer=LAYER,
        vision_feature_select_strategy="default",
    )  # fmt: skip
    return LlavaForConditionalGeneration(config).eval()


if __name__ == "__main__":
    main()
