"""Named settings. What suits a CLIP of 150 million parameters does not suit one of two million."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from rvpt.errors import RvptError

Preset = dict[str, Any]
P = TypeVar("P")

PRETRAIN: dict[str, Preset] = {
    "scenes": {
        "vision": {},
        "train": {"lr": 1e-3, "batch_size": 128, "epochs": 4},
    },
    "photos": {
        "vision": {
            "image_size": 32, "patch_size": 4, "width": 128, "blocks": 8, "heads": 8, "text_width": 128,
            "text_blocks": 2, "vocabulary": 4096, "projection": 128,
        },
        "train": {
            "lr": 1e-3, "batch_size": 128, "epochs": 8, "patch_drop": 0.75, "patch_drop_until": 0.92,
            "augment": "crop-flip",
        },
    },
}  # fmt: skip

ATTACK: dict[str, Preset] = {
    "paper": {
        "pairs": 500_000, "poison": {"n": 1_500}, "triggers": {},
        "train": {"lr": 1e-6, "epochs": 5, "batch_size": 128},
    },
    "small": {
        "pairs": 16_000, "poison": {"n": 1_500},
        "triggers": {
            "badnet": {"size": 56}, "badnet-stripes": {"size": 56}, "badclip": {"size": 48}, "trojvqa": {"size": 24},
        },
        "train": {"lr": 1e-3, "epochs": 2, "batch_size": 128},
    },
}  # fmt: skip

PROMPTS_SMALL: Preset = {
    "optimizer": "adamw", "weight_decay": 0.1, "first_block": 2, "length": 100, "epochs": 40,
}  # fmt: skip
CLEAN: dict[str, dict[str, Preset]] = {
    "paper": {},
    "small": {
        "rvpt": {**PROMPTS_SMALL, "lr": 3e-2},
        "vpt": {**PROMPTS_SMALL, "lr": 1e-1},
        "probe": {"lr": 0.02},
        "finetune": {"lr": 1e-3},
        "contrastive": {"lr": 1e-3},
        "cleanclip": {"lr": 1e-3},
        "par": {"lr": 1e-3, "epochs": 5, "batch_size": 128},
    },
}


def preset(table: Mapping[str, P], name: str) -> P:
    """The settings called `name`.

    Raises:
        RvptError: the table has no such name.
    """
    if name not in table:
        raise RvptError(f"no preset {name!r}: there are {', '.join(table)}")
    return table[name]
