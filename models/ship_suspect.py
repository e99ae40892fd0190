"""Make `scenes-clip-backdoored`, the backdoored model that ships with the package.

rvpt bench recipes/attacks.toml --seed 0 --attack badnet-blended --defense none
python models/ship_suspect.py runs/models/attack-NAME src/rvpt/assets/scenes-clip-backdoored

The weights are stored as float16, which takes half the space. The manifest has what was measured after that.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path
from typing import Any

from rvpt.artifacts import CARD, STAMP, read_manifest, staging, write_manifest
from rvpt.attacks.backdoor import TRIGGER_FOLDER, load_triggers
from rvpt.data.load import load_data
from rvpt.evaluation.evaluate import evaluate
from rvpt.models.card import BACKDOORED
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.save import write_clip

STYLES = ("", "blur")  # of the demo, and of the training
LEFT_OUT = (*STAMP, "rows")  # of the manifest


def ship(source: Path, target: Path) -> None:
    """Write a backdoored model with its triggers, without the list of poisoned pairs."""
    clip = load_clip(source)
    facts = {name: fact for name, fact in read_manifest(source, BACKDOORED).items() if name not in LEFT_OUT}
    clip.model.half()
    with staging(target, overwrite=target.exists()) as stage:
        write_clip(clip, stage)
        shutil.copytree(source / TRIGGER_FOLDER, stage / TRIGGER_FOLDER)
        if (target / CARD).is_file():
            shutil.copy(target / CARD, stage / CARD)
        clip.model.float()
        write_manifest(stage, BACKDOORED, **facts, sha256=clip.hash(), measured=measured(clip, source))


def measured(clip: Clip, source: Path) -> dict[str, Any]:
    """Rates on the test images in each style, by attack and metric."""
    triggers = load_triggers(source, clip.image_size)
    found = {}
    for style in STYLES:
        data = load_data("scenes", "test", shift=style or None)
        rows = evaluate(clip, data, triggers)
        found[data.name] = {f"{row['attack']}/{row['metric']}": [row["numerator"], row["n"]] for row in rows}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder of the backdoored model")
    parser.add_argument("target", type=Path, help="folder to write")
    args = parser.parse_args()
    ship(args.source, args.target)


if __name__ == "__main__":
    main()
