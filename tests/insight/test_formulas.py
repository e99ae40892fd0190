"""Small formulas behind figures: confusion, failures, nearest captions, t-SNE, probes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import memory_data
from rvpt.data.load import load_data
from rvpt.errors import RvptError
from rvpt.evaluation.probing import attribute_readability
from rvpt.insight.captions import captions_of, nearest_texts
from rvpt.insight.confusion import confusion
from rvpt.insight.embedding import tsne
from rvpt.insight.encoding import probe_blocks
from rvpt.insight.failures import still_fooled
from rvpt.models.clip import Clip


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4))))
def test_confusion_counts_every_pair(pairs: list[tuple[int, int]]) -> None:
    labels, predictions = (torch.tensor([pair[side] for pair in pairs], dtype=torch.int64) for side in (0, 1))
    counts = confusion(labels, predictions, 5)
    assert [[counts[k, m] == pairs.count((k, m)) for m in range(5)] for k in range(5)] == [[True] * 5] * 5
    fooled = still_fooled(labels, predictions, 2).tolist()
    assert fooled == [place for place, pair in enumerate(pairs) if pair[1] == 2 and pair[0] != 2]
    assert len(fooled) == int(counts[:, 2].sum() - counts[2, 2])


def test_the_nearest_text_has_the_highest_cosine_with_the_mean_image() -> None:
    texts = torch.eye(4)
    features = torch.tensor([[0.6, 0.8, 0, 0], [0, 0.8, 0.6, 0]])
    places, cosines = nearest_texts(features, texts, 9)
    mean = features.mean(0) / features.mean(0).norm()
    assert places[0] == 1
    assert cosines.tolist() == sorted(mean.tolist(), reverse=True)


def test_captions_are_those_of_the_data_or_of_its_classes() -> None:
    assert captions_of(memory_data(3, captions=[["b"], ["a", "b"], ["c"]])) == ["a", "b", "c"]
    assert captions_of(memory_data(2, [0, 1], ("red_fox", "owl"))) == ["a photo of a red fox.", "a photo of a owl."]


def test_tsne_keeps_clusters_apart_and_depends_on_the_seed_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    centers = torch.eye(8)[[0] * 20 + [4] * 20]
    features = (centers + 0.05 * torch.randn(40, 8, generator=generator)).unflatten(0, (2, 20))
    positions = tsne(features, seed=3)
    assert positions.shape == (2, 20, 2)
    assert torch.equal(positions, tsne(features, seed=3))
    assert not torch.equal(positions, tsne(features, seed=4))
    distance = torch.cdist(positions.flatten(0, 1), positions.flatten(0, 1)).fill_diagonal_(torch.inf)
    assert ((distance.argmin(1) < 20) == (torch.arange(40) < 20)).all()


def test_probes_see_what_the_protocol_sees_in_other_rows(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    seen, held_out = load_data("scenes:60", "train"), load_data("scenes:20", "test")
    found = probe_blocks(clip, seen, held_out)
    assert {len(rates) for rates in found.values()} == {len(clip.blocks)}
    monkeypatch.setattr(clip, "encode_image", lambda pixels: clip.cls_rows(pixels)[:, 1], raising=False)
    assert {name: rates[1] for name, rates in found.items()} == attribute_readability(clip, seen, held_out)
    with pytest.raises(RvptError, match="memory has no attributes, which probes need"):
        probe_blocks(clip, memory_data(3), held_out)
