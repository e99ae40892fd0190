"""The search without classes: its objective against a loop, and the words that it names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.detection.collapse import collapse, concentration, nearest_words, whole_words


def unit(n: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_concentration_is_the_mean_cosine_of_all_pairs() -> None:
    features = unit(5)
    pairs = [torch.dot(one, other) for one in features for other in features]
    assert concentration(features).item() == pytest.approx(sum(pairs).item() / 25, abs=1e-6)
    assert concentration(features[:1].expand(4, -1)).item() == pytest.approx(1.0)


def test_a_change_pulls_features_together_within_its_budget() -> None:
    clip, pixels = random_clip(image_size=32).requires_grad_(False), random_pixels(12, 32)
    delta = collapse(clip, pixels, 3.0, steps=8, images=8, seed=0)
    assert delta.norm() <= 3.0 * (1 + 1e-5)
    with torch.no_grad():
        before, after = (concentration(clip.encode_image((pixels + d).clamp(0, 1))) for d in (0 * delta, delta))
    assert after > before


def test_a_budget_of_zero_changes_nothing() -> None:
    clip = random_clip(image_size=32).requires_grad_(False)
    assert (collapse(clip, random_pixels(4, 32), 0.0, steps=2, images=4, seed=0) == 0).all()


def test_the_nearest_word_is_the_one_that_features_moved_to() -> None:
    before, text = unit(6), unit(3, seed=1)
    after = F.normalize(before + 5 * text[2], dim=-1)
    assert nearest_words(before, after, text, ["cat", "dog", "banana"], 2)[0] == "banana"


class Words:
    def __init__(self, *tokens: str) -> None:
        self.tokens = tokens

    def get_vocab(self) -> dict[str, int]:
        return {token: index for index, token in enumerate(self.tokens)}


@pytest.mark.parametrize(
    "tokens", [("dog</w>", "cat</w>", "ca", "a</w>", "1</w>"), ("\u0120dog", "\u0120cat", "ca", "\u01201")]
)
def test_whole_words_of_both_kinds_of_tokenizers(tokens: tuple[str, ...]) -> None:
    clip = random_clip(image_size=32)
    clip.tokenizer = Words(*tokens)
    assert whole_words(clip) == ["cat", "dog"]
