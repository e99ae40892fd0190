"""Use a cleaned model where a transformers CLIPModel is expected: features, and a zero-shot pipeline.

python examples/use_in_transformers.py --cleaned cleaned --classes cat dog --images one.jpg two.jpg
"""

from __future__ import annotations

import argparse

import torch
from PIL import Image
from transformers import CLIPImageProcessor, pipeline

import rvpt


def main(arguments: list[str] | None = None) -> None:
    """Compare the cleaned model with its CLIPModel, and classify images by a pipeline."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cleaned", default="cleaned", help="folder of a cleaned model")
    parser.add_argument("--classes", nargs="+", default=["anchor", "umbrella"])
    parser.add_argument("--images", nargs="*", default=[], help="image files; by default two scenes")
    asked = parser.parse_args(arguments)

    cleaned = rvpt.load(asked.cleaned)
    images = [Image.open(path) for path in asked.images] or example_images(cleaned.image_size)
    tokenizer = cleaned.clip.tokenizer
    texts = tokenizer([f"a photo of a {name}." for name in asked.classes], padding=True, return_tensors="pt")
    inputs = {
        "input_ids": texts["input_ids"].to(cleaned.device),
        "attention_mask": texts["attention_mask"].to(cleaned.device),
        "pixel_values": cleaned.preprocess(images),
    }

    model = cleaned.to_transformers()  # a CLIPModel whose blocks hold the prompts' keys and values
    with torch.no_grad():
        ours, theirs = cleaned(**inputs), model(**inputs)
    difference = (ours.logits_per_image - theirs.logits_per_image).abs().max()
    print(f"largest difference of the logits: {difference:.1e}")

    size = cleaned.image_size
    processor = CLIPImageProcessor(
        size={"shortest_edge": size},
        crop_size={"height": size, "width": size},
        image_mean=cleaned.clip.mean.flatten().tolist(),
        image_std=cleaned.clip.std.flatten().tolist(),
    )
    classify = pipeline("zero-shot-image-classification", model=model, tokenizer=tokenizer, image_processor=processor)
    for image in images:
        best = classify(image, candidate_labels=asked.classes)[0]
        print(f"{best['label']}: {best['score']:.3f}")


def example_images(size: int) -> list[Image.Image]:
    """Two images of the synthetic dataset."""
    pixels = rvpt.load_data("scenes:2", split="test").pixels(torch.arange(2), size)
    arrays = (255 * pixels).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(array) for array in arrays]


if __name__ == "__main__":
    main()
