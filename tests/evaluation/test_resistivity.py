"""Perturbation resistivity agrees with a slow twin, with and without prompts."""

from __future__ import annotations

import pytest
import torch

import reference
from helpers import memory_data
from rvpt.evaluation.perturbations import PERTURBATIONS
from rvpt.evaluation.resistivity import resistivity
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts
from triggers import trigger_of

DATA = memory_data(7)


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [2, 100])
def test_it_agrees_with_its_slow_twin(clip: Clip, batch_size: int) -> None:
    trigger = trigger_of("badnet", side=48, size=100)
    pixels = DATA.pixels(torch.arange(7), 48)
    pair = pixels, trigger(pixels, DATA.rows)
    prompts = RepulsivePrompts(range(len(clip.blocks)), 3, clip.width, std=3.0)
    for model, rows in (
        (clip, [reference.frozen(clip, shown, 0)[1] for shown in pair]),
        (Cleaned(clip, prompts), [reference.prompted(clip, prompts.blocks, prompts.table, shown)[1] for shown in pair]),
    ):
        counts = resistivity(model, DATA, {"badnet": trigger}, batch_size=batch_size)
        found = [mean for (attack, _), mean in counts.items() if attack == "badnet"]
        assert list(counts)[: len(found)] == [("badnet", f"PR_{d}") for d in range(1, len(clip.blocks) + 1)]
        assert [mean.value for mean in found] == pytest.approx(reference.resistivity(*rows), abs=1e-5)
        assert min(mean.value for mean in found) < 0.999
        assert {mean.interval() for mean in counts.values()} == {None}


@torch.no_grad()
@pytest.mark.parametrize("name", PERTURBATIONS)
def test_benign_perturbations_are_measured_without_a_trigger(clip: Clip, name: str) -> None:
    counts = resistivity(clip, DATA, batch_size=3)
    assert {attack for attack, _ in counts} == {f"benign {each}" for each in PERTURBATIONS}
    pixels = DATA.pixels(torch.arange(7), 48)
    pair = (reference.frozen(clip, shown, 0)[1] for shown in (pixels, PERTURBATIONS[name](pixels, DATA.rows)))
    found = [mean.value for (attack, _), mean in counts.items() if attack == f"benign {name}"]
    assert found == pytest.approx(reference.resistivity(*pair), abs=1e-5)
