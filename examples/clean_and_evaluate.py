"""Clean a suspect CLIP with a few labeled images per class, and measure accuracy before and after.

python examples/clean_and_evaluate.py --model path/to/clip --data path/to/images --output-dir cleaned
"""

from __future__ import annotations

import argparse

import rvpt


def main(arguments: list[str] | None = None) -> None:
    """Clean, save, load and measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-clip", help="folder or hub id of a ViT CLIP")
    parser.add_argument("--data", default="scenes", help="images with labels, with the splits train and test")
    parser.add_argument("--shots", type=int, default=16, help="images per class")
    parser.add_argument("--epochs", type=int, help="by default the preset's")
    parser.add_argument("--limit", type=int, default=2000, help="test images")
    parser.add_argument("--output-dir", default="cleaned")
    asked = parser.parse_args(arguments)

    suspect = rvpt.load(asked.model)
    few_shot = rvpt.load_data(asked.data, split="train").few_shot(asked.shots)
    test = rvpt.load_data(asked.data, split="test").sample(asked.limit)

    settings = {} if asked.epochs is None else {"epochs": asked.epochs}
    cleaned = rvpt.clean(suspect, few_shot, "rvpt", **settings)
    cleaned.save_pretrained(asked.output_dir)
    print(f"{cleaned.trained_parameters:,} parameters trained on {len(few_shot)} images")

    for model in (suspect, rvpt.load(asked.output_dir)):
        for row in rvpt.evaluate(model, test):
            interval = f"95% interval {row['low']:.3f} to {row['high']:.3f}"
            print(f"{row['defense']}: {row['metric']} {row['rate']:.3f} ({interval})")


if __name__ == "__main__":
    main()
