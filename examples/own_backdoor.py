"""Backdoor a copy of a CLIP, clean it with several defenses, and compare how much of the backdoor remains.

python examples/own_backdoor.py --model scenes-clip --data scenes --target lightning --defenses vpt rvpt
"""

from __future__ import annotations

import argparse
from pathlib import Path

import rvpt


def main(arguments: list[str] | None = None) -> None:
    """Attack, clean by every defense, and print accuracy and attack success."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="scenes-clip", help="folder or hub id of a clean ViT CLIP")
    parser.add_argument("--data", default="scenes", help="images with labels and captions, splits train and test")
    parser.add_argument("--target", default="lightning", help="class that triggered images are to be classified as")
    parser.add_argument("--triggers", nargs="+", default=["badnet", "blended"])
    parser.add_argument("--defenses", nargs="+", default=["vpt", "rvpt"], help="defenses that learn from labels")
    parser.add_argument("--num-pairs", type=int, default=16_000, help="image-caption pairs to fine-tune on")
    parser.add_argument("--poison-rate", type=float, default=0.09, help="share of the pairs poisoned per trigger")
    parser.add_argument("--shots", type=int, default=16, help="images per class for the defenses")
    parser.add_argument("--epochs", type=int, help="of attack and defenses; by default the presets'")
    parser.add_argument("--limit", type=int, default=2000, help="test images")
    parser.add_argument("--output-dir", type=Path, default=Path("backdoored"))
    asked = parser.parse_args(arguments)

    model = rvpt.load(asked.model)
    train, test = (rvpt.load_data(asked.data, split=split) for split in ("train", "test"))
    test = test.sample(asked.limit)
    settings = {} if asked.epochs is None else {"epochs": asked.epochs}

    captioned = train if train.captions_of else train.with_templates(["a photo of a {}.", "a picture of a {}."])
    poison = rvpt.PoisonSpec(poison_rate=asked.poison_rate)
    backdoored = rvpt.attack(
        model, captioned, asked.target, asked.triggers, poison=poison, num_pairs=asked.num_pairs, **settings
    )
    backdoored.save(asked.output_dir)

    few_shot = train.few_shot(asked.shots)
    models = {"before the attack": model, "none": backdoored.clip}
    models |= {name: rvpt.clean(backdoored.clip, few_shot, name, **settings) for name in asked.defenses}
    for defense, checked in models.items():
        rows = rvpt.evaluate(checked, test, backdoored.triggers)
        found = (f"{row['attack']} {row['metric']} {row['rate']:.3f}" for row in rows if row["metric"] in ("CA", "ASR"))
        print(f"{defense}: {', '.join(found)}")


if __name__ == "__main__":
    main()
