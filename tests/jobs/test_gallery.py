"""The gallery of triggers: PSNR and SSIM of each, and a figure."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rvpt.attacks.trigger import trigger_spec
from rvpt.data.load import load_data
from rvpt.errors import RvptError
from rvpt.evaluation.similarity import psnr, ssim
from rvpt.jobs.gallery import trigger_gallery
from triggers import trigger_of

SPECS = [trigger_spec(name, target="owl", seed=1) for name in ("badnet", "blended")]


def test_visibility_is_measured_on_the_first_images(tmp_path: Path) -> None:
    trigger_of("sig", side=48).save(tmp_path / "sig")
    found = trigger_gallery([*SPECS, tmp_path / "sig"], "scenes:40", "test", 48)
    assert [entry["name"] for entry in found] == ["badnet", "blended", "sig"]
    pixels = load_data("scenes:40", "test").pixels(torch.arange(16), 48)
    changed = trigger_of("blended", side=48)(pixels)
    expected = {"psnr": float(psnr(pixels, changed).mean()), "ssim": float(ssim(pixels, changed).mean())}
    assert {key: found[1][key] for key in expected} == pytest.approx(expected)
    assert found[1]["images"] == 16
    assert found[1]["measured_with"] == {"mode": "fixed", "ratio": 0.2}


def test_a_figure_is_drawn_and_not_overwritten_unasked(tmp_path: Path) -> None:
    plot = tmp_path / "triggers.png"
    trigger_gallery(SPECS, "scenes:10", "test", 48, plot=plot)
    first = plot.read_bytes()
    assert first.startswith(b"\x89PNG")
    with pytest.raises(RvptError, match=r"already exists: .*overwrite=True"):
        trigger_gallery(SPECS[:1], "scenes:10", "test", 48, plot=plot)
    assert plot.read_bytes() == first
    trigger_gallery(SPECS[:1], "scenes:10", "test", 48, plot=plot, overwrite=True)
    assert plot.read_bytes() != first


def test_a_trigger_for_images_of_another_size_is_refused(tmp_path: Path) -> None:
    trigger_of("sig").save(tmp_path / "sig")
    with pytest.raises(RvptError, match="made for images of 32x32"):
        trigger_gallery([tmp_path / "sig"], "scenes:10", "test", 48)
