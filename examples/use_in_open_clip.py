"""Use a model in open_clip's code: one with weights of its own, or a distilled one.

rvpt export cleaned --to distilled --data path/to/images -o distilled
rvpt export distilled --to openclip -o exported
python examples/use_in_open_clip.py --model exported --classes cat dog --images one.jpg two.jpg

It needs open_clip: pip install 'rvpt[open-clip]'.
"""

from __future__ import annotations

import argparse

import open_clip
import torch
from PIL import Image
from transformers import AutoTokenizer


def main(arguments: list[str] | None = None) -> None:
    """Print the most probable class of each image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="exported", help="folder that rvpt export --to openclip wrote")
    parser.add_argument("--classes", nargs="+", required=True)
    parser.add_argument("--images", nargs="+", required=True, help="image files")
    asked = parser.parse_args(arguments)

    model, preprocess = open_clip.create_model_from_pretrained(f"local-dir:{asked.model}")
    tokenizer = AutoTokenizer.from_pretrained(asked.model)  # open_clip.get_tokenizer has CLIP's own vocabulary only
    captions = [f"a photo of a {name}." for name in asked.classes]
    ids = torch.zeros(len(captions), model.context_length, dtype=torch.int64)
    for row, found in zip(ids, tokenizer(captions)["input_ids"], strict=True):
        row[: len(found)] = torch.tensor(found)

    pixels = torch.stack([preprocess(Image.open(path).convert("RGB")) for path in asked.images])
    with torch.no_grad():
        image, text = model.encode_image(pixels, normalize=True), model.encode_text(ids, normalize=True)
        probabilities = (model.logit_scale.exp() * image @ text.T).softmax(dim=1)
    for path, row in zip(asked.images, probabilities, strict=True):
        print(f"{path}: {asked.classes[int(row.argmax())]} {row.max():.3f}")


if __name__ == "__main__":
    main()
