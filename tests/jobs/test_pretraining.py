"""Pretraining as a job: what the manifest tells, and training in stages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from helpers import image_folder
from rvpt.artifacts import read_manifest
from rvpt.data.scenes import ATTRIBUTES
from rvpt.errors import RvptError
from rvpt.jobs.pretraining import pretrain_and_save
from rvpt.models.formats.load import load_clip
from rvpt.training.pretrain import PretrainSpec, VisionSpec
from tiny import GEOMETRY, Tiny

SPEC = PretrainSpec(epochs=1)


def pretrained(target: Path, **options: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {"split": "train", "tests": ["scenes:24"], **options}
    start = settings.pop("start", None) or VisionSpec(**GEOMETRY)
    return pretrain_and_save(settings.pop("sources", ["scenes:40"]), start, SPEC, target, **settings)


def test_the_manifest_has_the_settings_and_what_was_measured(tiny: Tiny) -> None:
    manifest = read_manifest(tiny.clip, "clip")
    assert manifest["vision"] == VisionSpec(**GEOMETRY).model_dump()
    assert manifest["spec"] == PretrainSpec(lr=1e-3, batch_size=128, epochs=1).model_dump()
    assert (manifest["data"], manifest["split"], manifest["images"]) == (["scenes:300"], "train", 300)
    assert manifest["sha256"] == load_clip(tiny.clip).hash()
    measured = manifest["measured"]["scenes:24"]
    assert measured.keys() == {"zero-shot", *(f"readable: {name}" for name in ATTRIBUTES)}
    assert measured["zero-shot"]["n"] == 24


def test_a_second_stage_keeps_the_settings_of_the_first(tiny: Tiny, tmp_path: Path) -> None:
    start = load_clip(tiny.clip)
    first = read_manifest(tiny.clip)
    pretrained(tmp_path / "more", start=start)
    manifest = read_manifest(tmp_path / "more")
    assert manifest["start"].items() >= {key: first[key] for key in ("vision", "spec", "history", "sha256")}.items()
    assert manifest["start"]["model"] == "clip"
    assert manifest["sha256"] == load_clip(tmp_path / "more").hash() != first["sha256"]


def test_half_precision_is_stored_and_measured(tmp_path: Path) -> None:
    for half in (False, True):
        pretrained(tmp_path / str(half), half=half, tests=[])
    sizes = [(tmp_path / str(half) / "model.safetensors").stat().st_size for half in (False, True)]
    assert sizes[1] < 0.6 * sizes[0]
    assert read_manifest(tmp_path / "True")["sha256"] == load_clip(tmp_path / "True").hash()


def test_all_data_are_opened_before_the_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("rvpt.jobs.pretraining.train_clip", lambda *_, **__: pytest.fail("trained"))
    torn = next(image_folder(tmp_path / "torn").rglob("*.png"))
    torn.write_bytes(torn.read_bytes()[:40])
    for tests, message in ((["nowhere/at/all"], "nowhere"), ([str(tmp_path / "torn")], "cannot be read")):
        with pytest.raises(RvptError, match=message):
            pretrained(tmp_path / "out", tests=tests)
    assert not (tmp_path / "out").exists()
