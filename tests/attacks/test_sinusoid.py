"""SIG: the wave agrees with its formula, and is the same in every row and channel."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

from rvpt.attacks.sinusoid import sinusoid
from triggers import SIDE, trigger_of


@pytest.mark.parametrize("waves", [1.0, 6.0, 2.5])
def test_sinusoid_agrees_with_loops(waves: float) -> None:
    phase = torch.tensor([0.0, 0.3])
    wave = sinusoid(phase, 0.2, waves, 16)
    assert wave.shape == (2, 1, 1, 16)
    for b, j in product(range(2), range(16)):
        expected = 0.2 * np.sin(2 * np.pi * (waves * j / 16 + phase[b].item()))
        assert wave[b, 0, 0, j].item() == pytest.approx(expected, abs=1e-5)


def test_sig_adds_the_same_to_every_row_and_channel() -> None:
    gray = torch.full((1, 3, SIDE, SIDE), 0.5)
    added = trigger_of("sig")(gray) - gray
    assert torch.equal(added, added[:, :1, :1].expand_as(added))
    assert added.abs().max() <= 40 / 255 + 1e-6
    assert added.abs().max() > 0.9 * 40 / 255
