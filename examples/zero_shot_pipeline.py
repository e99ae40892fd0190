"""Classify images by transformers' zero-shot pipeline with an exported model.

rvpt export cleaned --to hf -o exported
python examples/zero_shot_pipeline.py --model exported --classes cat dog --images one.jpg two.jpg
"""

from __future__ import annotations

import argparse

from PIL import Image
from transformers import pipeline

import rvpt.models.auto  # noqa: F401  # registers the class of models with prompts


def main(arguments: list[str] | None = None) -> None:
    """Print the most probable class of each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="exported", help="folder that rvpt export --to hf wrote")
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--images", nargs="+", required=True, help="image files")
    asked = parser.parse_args(arguments)

    classify = pipeline("zero-shot-image-classification", model=asked.model)
    for path in asked.images:
        best = classify(Image.open(path).convert("RGB"), candidate_labels=asked.classes)[0]
        print(f"{path}: {best['label']} {best['score']:.3f}")


if __name__ == "__main__":
    main()
