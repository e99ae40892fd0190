"""Slow twins of the fast path, written from the paper's formulas: prompts are tokens, nothing is kept.

They call the Hugging Face modules as they are and share no code with `rvpt.models` or `rvpt.training`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rvpt.models.clip import Clip


def normalized(clip: Clip, pixels: Tensor) -> Tensor:
    """Images in [0, 1] the way the Hugging Face model takes them."""
    return (pixels - clip.mean) / clip.std


def prompted(
    clip: Clip, blocks: Sequence[int], table: Tensor, pixels: Tensor, first: int | None = None
) -> tuple[Tensor, Tensor]:
    """Unit image features (B, P), and the [CLS] rows (B, L - D, W) after each block from D on, by default blocks[0].

    Block d gets [c_d, e_d, p_d]; every token is computed in every block, those of the prompts are then dropped.
    """
    vision = clip.model.vision_model
    hidden = vision.pre_layrnorm(vision.embeddings(normalized(clip, pixels)))
    images, tokens, _ = hidden.shape
    rows = []
    for index, layer in enumerate(vision.encoder.layers):
        if index in blocks:
            prompts = table[list(blocks).index(index)].expand(images, -1, -1)
            hidden = layer(torch.cat([hidden, prompts], dim=1), None)[:, :tokens]
        else:
            hidden = layer(hidden, None)
        if index >= (blocks[0] if first is None else first):
            rows.append(hidden[:, 0])
    features = clip.model.visual_projection(vision.post_layernorm(hidden[:, 0]))
    return features / features.norm(dim=-1, keepdim=True), torch.stack(rows, dim=1)


@torch.no_grad()
def frozen(clip: Clip, pixels: Tensor, first_block: int) -> tuple[Tensor, Tensor]:
    """The second pass, by the plain Hugging Face model: the tokens (B, 1 + N, W) before block D, and the [CLS]
    rows (B, L - D, W) after each block from D on."""
    states = clip.model.vision_model(normalized(clip, pixels), output_hidden_states=True).hidden_states
    return states[first_block], torch.stack([state[:, 0] for state in states[first_block + 1 :]], dim=1)


def dot(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum()


def cosine(a: Tensor, b: Tensor) -> Tensor:
    return dot(a, b) / (dot(a, a).sqrt() * dot(b, b).sqrt())


@torch.no_grad()
def resistivity(clean: Tensor, changed: Tensor) -> list[float]:
    """PR of every block, image by image, of two (B, L, W)."""
    blocks = range(clean.shape[1])
    return [float(mean([cosine(a[d], b[d]) for a, b in zip(clean, changed, strict=True)])) for d in blocks]


def mean(values: Sequence[Tensor]) -> Tensor:
    return torch.stack(list(values)).sum() / len(values)


def cross_entropy(scores: Sequence[Tensor], right: int) -> Tensor:
    """-log softmax(scores)[right]"""
    return torch.stack([score.exp() for score in scores]).sum().log() - scores[right]


def classification(image: Tensor, text: Tensor, tau: Tensor | float, labels: Sequence[int]) -> Tensor:
    """Mean of CE(tau cos(image, text of each class)) over the images."""
    return mean([
        cross_entropy([tau * cosine(row, name) for name in text], label)
        for row, label in zip(image, labels, strict=True)
    ])  # fmt: skip


def feature_repelling(rows: Tensor, frozen_rows: Tensor, margin: float = -1.0) -> Tensor:
    """Mean over images of max(mean over d of cos(c_d, c_d frozen), margin)."""
    values = []
    for changed, still in zip(rows, frozen_rows, strict=True):
        value = mean([cosine(c, c_frozen) for c, c_frozen in zip(changed, still, strict=True)])
        values.append(value if value > margin else torch.tensor(margin, dtype=value.dtype))
    return mean(values)


def resist(scores: Tensor, labels: Sequence[int], targets: Sequence[int]) -> Tensor:
    """Mean over the images of CE with the label, and log(1 + exp(score of the target - score of the label))."""
    return mean([
        cross_entropy(list(row), label) + (1 + (row[target] - row[label]).exp()).log()
        for row, label, target in zip(scores, labels, targets, strict=True)
    ])  # fmt: skip


def keep(scores: Tensor, suspect: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """Mean of weight * KL(suspect's probabilities | the model's) over the images."""
    return mean([
        weight * dot(other.softmax(0), other.softmax(0).log() - row.softmax(0).log())
        for row, other, weight in zip(scores, suspect, weights or [1.0] * len(scores), strict=True)
    ])  # fmt: skip


def losses(
    clip: Clip,
    blocks: Sequence[int],
    table: Tensor,
    pixels: Tensor,
    text: Tensor,
    labels: Sequence[int],
    alpha: float,
    margin: float,
) -> dict[str, Tensor]:
    """CE, FR and their sum CE + alpha FR of one batch, from the images on."""
    image, rows = prompted(clip, blocks, table, pixels)
    _, frozen_rows = frozen(clip, pixels, blocks[0])
    ce = classification(image, text, clip.model.logit_scale.exp(), labels)
    fr = feature_repelling(rows, frozen_rows, margin)
    return {"loss": ce + alpha * fr, "CE": ce, "FR": fr}


def target_margin(image: Tensor, text: Tensor) -> list[float]:
    """cos(image, first text) less the largest cos(image, another text), of every image."""
    return [float(cosine(row, text[0]) - max(cosine(row, other) for other in text[1:])) for row in image]


def info_nce(image: Tensor, text: Tensor, tau: float, pairs: Sequence[Sequence[bool]]) -> Tensor:
    """Symmetric contrastive loss of unit rows; an image (a caption) with several partners has their mean loss."""
    scores = [[tau * dot(row, caption) for caption in text] for row in image]
    columns = list(zip(*scores, strict=True))
    by_image = [
        mean([cross_entropy(row, m) for m, fits in enumerate(pairs[i]) if fits]) for i, row in enumerate(scores)
    ]
    by_text = [
        mean([cross_entropy(column, i) for i, fits in enumerate(pairs) if fits[m]]) for m, column in enumerate(columns)
    ]
    return (mean(by_image) + mean(by_text)) / 2


def place(own: float, others: Sequence[float]) -> int:
    """Where a score stands when all are written down from the highest to the lowest, the first place being 1."""
    return sorted([*others, own], reverse=True).index(own) + 1


def retrieval(
    texts: Sequence[tuple[Tensor, int]],
    named: Sequence[Tensor],
    clean: Sequence[Tensor],
    rivals: Sequence[Tensor],
    of_target: Sequence[int],
) -> dict[str, float]:
    """R@1 of texts with the image each belongs to; ASR@10 and the mean rank ratios of triggered images (rivals).

    Each text that names the target meets one triggered image; both go round until all of them have had a turn.
    """
    at_first = [
        place(dot(text, clean[own]).item(), [dot(text, other).item() for i, other in enumerate(clean) if i != own])
        for text, own in texts
    ]
    ranks, in_class = [], []
    for turn in range(max(len(named), len(rivals))):
        text, rival = named[turn % len(named)], rivals[turn % len(rivals)]
        ranks.append(place(dot(text, rival).item(), [dot(text, other).item() for other in clean]))
        in_class.append(place(dot(text, rival).item(), [dot(text, clean[i]).item() for i in of_target]))
    return {
        "R@1": sum(found == 1 for found in at_first) / len(at_first),
        "ASR@10": sum(found <= 10 for found in ranks) / len(ranks),
        "rank_ratio": sum(found / (len(clean) + 1) for found in ranks) / len(ranks),
        "rank_ratio_in_class": sum(found / (len(of_target) + 1) for found in in_class) / len(in_class),
    }
