"""Margins of images at the target's boundary, and changes that move images away from their class."""

from __future__ import annotations

import pytest
import torch

import reference
from helpers import memory_data
from rvpt.attacks.margins import disguise, target_margin, target_margins
from rvpt.errors import RvptError
from rvpt.models.clip import Clip

CLASSES = ("Sea_Umbrella", "anchor", "heart")


def test_margins_agree_with_loops_over_images_and_texts() -> None:
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (9, 4))
    image, text = (rows / rows.norm(dim=1, keepdim=True) for rows in (image, text))
    assert target_margin(image, text).tolist() == pytest.approx(reference.target_margin(image, text))


def test_margins_of_a_set_are_those_of_its_images(clip: Clip) -> None:
    data = memory_data(300)
    text = clip.encode_text([f"a photo of a {name}." for name in ("sea umbrella", "anchor", "heart")]).detach()
    expected = reference.target_margin(clip.encode_image(data.pixels(torch.arange(300), 48)).detach(), text)
    found = target_margins(clip, data, "sea umbrella", CLASSES)
    assert found.tolist() == pytest.approx(expected, abs=1e-5)
    assert not found.requires_grad
    assert len(set(found.tolist())) == 300


def test_a_disguise_moves_images_away_from_the_target_and_is_small(clip: Clip) -> None:
    data = memory_data(4)
    pixels = data.pixels(torch.arange(4), 48)
    changed = disguise(clip, "anchor", CLASSES, 8.0)(pixels, data.rows)
    assert float((changed - pixels).abs().max()) <= 8 / 255 + 1e-6
    text = clip.class_features(CLASSES)
    before, after = ((clip.encode_image(p) @ text.T * clip.logit_scale).softmax(1)[:, 1] for p in (pixels, changed))
    assert (after < before).all()


def test_a_target_without_other_classes_is_refused(clip: Clip) -> None:
    with pytest.raises(RvptError, match="there is no class besides 'owl'"):
        target_margins(clip, memory_data(2), "owl", ["owl"])
    with pytest.raises(RvptError, match="there is no class besides 'sea_lion'"):
        disguise(clip, "sea_lion", ["Sea Lion"], 8.0)
