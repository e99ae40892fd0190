"""Tiny artifacts: a clean CLIP, the same with two backdoors, the adapter that cleans that, and a check of it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rvpt.attacks.backdoor import AttackSpec
from rvpt.attacks.poison import PoisonSpec
from rvpt.attacks.trigger import preset_spec
from rvpt.jobs.attacking import attack_and_save
from rvpt.jobs.checking import check_and_save
from rvpt.jobs.cleaning import clean_and_save
from rvpt.jobs.pretraining import pretrain_and_save
from rvpt.models.formats.load import load_clip
from rvpt.training.pretrain import PretrainSpec, VisionSpec

TARGET = "anchor"
TRIGGERS = ("badnet", "blended")
GEOMETRY = {"width": 32, "blocks": 4, "text_width": 32}
CLEANING = {"epochs": 6, "prompt_length": 2, "first_block": 2}


CHECKING = {"num_images": 40, "steps": 1, "final_steps": 1, "images": 4, "final_images": 4, "collapse_steps": 1}


@dataclass(frozen=True)
class Tiny:
    """Folders of the three models, and of a check of the backdoored one."""

    clip: Path
    backdoored: Path
    cleaned: Path
    check: Path


def build_tiny(home: Path) -> Tiny:
    """The artifacts in `home`; those that are there are kept."""
    tiny = Tiny(home / "clip", home / "backdoored", home / "cleaned", home / "check")
    if not tiny.clip.exists():
        _pretrain(tiny.clip)
    if not tiny.backdoored.exists():
        _attack(tiny.clip, tiny.backdoored)
    if not tiny.cleaned.exists():
        clean_and_save(load_clip(tiny.backdoored), "scenes:500", tiny.cleaned, settings=CLEANING, shots=1)
    if not tiny.check.exists():
        check_and_save(load_clip(tiny.backdoored), "scenes:40", tiny.check, split="train", **CHECKING)
    return tiny


def _pretrain(target: Path) -> None:
    spec = PretrainSpec(lr=1e-3, batch_size=128, epochs=1)
    start = VisionSpec(**GEOMETRY)
    pretrain_and_save(["scenes:300"], start, spec, target, split="train", tests=["scenes:24"])


def _attack(clip: Path, target: Path) -> None:
    triggers = [preset_spec(name, "small", target=TARGET) for name in TRIGGERS]
    spec, poison = AttackSpec(lr=1e-3, epochs=2, warmup=0.02), PoisonSpec(num_poisoned=20)
    attack_and_save(
        load_clip(clip), ["scenes:200"], target, triggers, poison, spec,
        num_pairs=16_000, split="train", test="scenes:48", test_split="test",
    )  # fmt: skip
