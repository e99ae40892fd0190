"""The search without classes: its objective against a loop, and the words that it names."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from helpers import random_clip, random_pixels
from rvpt.detection.collapse import collapse, concentration, nearest_words, whole_words
from rvpt.inversion import FORMS
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec


def unit(n: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed)), dim=-1)


def test_concentration_is_the_mean_cosine_of_all_pairs() -> None:
    features = unit(5)
    pairs = [torch.dot(one, other) for one in features for other in features]
    assert concentration(features).item() == pytest.approx(sum(pairs).item() / 25, abs=1e-6)
    assert concentration(features[:1].expand(4, -1)).item() == pytest.approx(1.0)


@pytest.fixture(params=["additive", "waves", "warp"])  # a patch does little to the features of a random model
def form(request: pytest.FixtureRequest) -> Form:
    return FORMS[request.param].of(InversionSpec(budget=12, patch_size=90), 32)


def pool() -> Pool:
    clip, pixels = random_clip(image_size=32).requires_grad_(False), random_pixels(12, 32)
    return Pool.of(clip, pixels, unit(3)[:, :0].new_ones(3, clip.encode_image(pixels).shape[1]))


def test_a_change_pulls_features_together(form: Form) -> None:
    some, spec = pool(), InversionSpec(final_images=8)
    drawn = form.draw(len(some), torch.Generator().manual_seed(0))
    found = collapse(form, some, 8, spec)
    with torch.no_grad():
        changed = form.apply(some.pixels, found[None], drawn)[0]
        before, after = (concentration(some.model.encode_image(pixels)) for pixels in (some.pixels, changed))
    assert after > before


def test_a_budget_of_zero_changes_nothing() -> None:
    form = FORMS["additive"].of(InversionSpec(budget=0), 32)
    assert (collapse(form, pool(), 2, InversionSpec()) == 0).all()


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
    "tokens", [("dog</w>", "cat</w>", "ca", "ox</w>", "1</w>"), ("\u0120dog", "\u0120cat", "ca", "\u01201")]
)
def test_whole_words_of_both_kinds_of_tokenizers(tokens: tuple[str, ...]) -> None:
    clip = random_clip(image_size=32)
    clip.tokenizer = Words(*tokens)
    assert whole_words(clip) == ["cat", "dog"]
