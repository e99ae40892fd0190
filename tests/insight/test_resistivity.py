"""The mean of the resistivity curves is what the protocol measures."""

from __future__ import annotations

import pytest
import torch

from helpers import memory_data
from rvpt.evaluation.resistivity import resistivity
from rvpt.insight.resistivity import resistivity_curves
from rvpt.models.clip import Clip
from triggers import trigger_of


@pytest.mark.parametrize("batch_size", [3, 100])
def test_the_mean_over_images_is_the_protocols(clip: Clip, batch_size: int) -> None:
    data, trigger = memory_data(7), trigger_of("badnet", side=48, size=100)
    changes = {"badnet": trigger, "nothing": lambda pixels, rows: pixels}
    curves = resistivity_curves(clip, data, changes, batch_size=batch_size)
    assert curves.shape == (2, 7, len(clip.blocks))
    measured = resistivity(clip, data, {"badnet": trigger})
    expected = [measured["badnet", f"PR_{block}"].value for block in range(1, len(clip.blocks) + 1)]
    assert curves[0].mean(0).tolist() == pytest.approx(expected, abs=1e-5)
    torch.testing.assert_close(curves[1], torch.ones(7, len(clip.blocks)))
