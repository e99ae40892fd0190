"""Classify images with onnxruntime, tokenizers, numpy and Pillow: neither torch nor rvpt is imported.

rvpt export cleaned --to onnx -o exported
python examples/onnx_without_torch.py --model exported --classes cat dog --images one.jpg two.jpg
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image
from tokenizers import Tokenizer


def main(arguments: list[str] | None = None) -> None:
    """Print the most probable class of each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=Path("exported"), help="folder that rvpt export --to onnx wrote")
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--images", nargs="+", required=True, help="image files")
    asked = parser.parse_args(arguments)

    facts = json.loads((asked.model / "towers.json").read_text())
    geometry = json.loads((asked.model / "preprocessor_config.json").read_text())
    pixel_values = np.stack([preprocess(Image.open(path), geometry) for path in asked.images])
    image = run(asked.model / "image.onnx", pixel_values)
    text = run(asked.model / "text.onnx", tokenize(asked.model, [f"a photo of a {name}." for name in asked.classes]))
    for path, row in zip(asked.images, softmax(facts["logit_scale"] * image @ text.T), strict=True):
        print(f"{path}: {asked.classes[row.argmax()]} {row.max():.3f}")


def preprocess(image: Image.Image, geometry: dict[str, Any]) -> np.ndarray:
    """(3, S, S) float32: both sides or the shorter one resized, the center cropped, each channel normalized."""
    size = geometry["size"]
    if "longest_edge" in size:
        raise SystemExit("this example does not pad images, which preprocessor_config.json asks for")
    width, height = size.get("width"), size.get("height")
    if shortest := size.get("shortest_edge"):
        width, height = (int(shortest * side / min(image.size)) for side in image.size)
    resized = image.convert("RGB").resize((width, height), geometry["resample"])
    if geometry["do_center_crop"]:
        side = geometry["crop_size"]["height"]
        left, top = (width - side) // 2, (height - side) // 2
        resized = resized.crop((left, top, left + side, top + side))
    values = np.asarray(resized, dtype=np.float32) / 255
    normalized = (values - geometry["image_mean"]) / geometry["image_std"]
    return normalized.transpose(2, 0, 1).astype(np.float32)


def tokenize(folder: Path, texts: list[str]) -> np.ndarray:
    """Token ids (n, T) int64; what follows the end of a text is not read."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.enable_padding()
    return np.array([encoded.ids for encoded in tokenizer.encode_batch(texts)], dtype=np.int64)


def run(path: Path, value: np.ndarray) -> np.ndarray:
    """The output of a graph with one input."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: value})[0]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last axis."""
    raised = np.exp(logits - logits.max(-1, keepdims=True))
    return raised / raised.sum(-1, keepdims=True)


if __name__ == "__main__":
    main()
