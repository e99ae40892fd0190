"""Collapse: one small change that pulls the features of all images together, and the words near where they meet.

It needs no list of classes. A backdoor gives all images a place to go that the clean model does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.inversion.ball import REACH
from rvpt.inversion.form import project
from rvpt.models.clip import Clip
from rvpt.models.encode import Encoder
from rvpt.progress import Report, silent

END, BEGIN = "</w>", "\u0120"  # of a word, in the tokens of CLIP and of GPT-2
START = 0.1  # share of the budget that the random start has: at zero all directions are alike


def concentration(features: Tensor) -> Tensor:
    """How near to each other features are: |mean_i v_i|^2, the mean cosine of all pairs.

    Args:
        features: v, (n, P) unit rows.

    Returns:
        A scalar in [0, 1], 1 where all are the same.
    """
    return features.mean(0).square().sum()


def collapse(
    model: Encoder, pixels: Tensor, limit: float, *, steps: int, images: int, seed: int, report: Report = silent
) -> Tensor:
    """A universal change (3, S, S) with |delta|_2 <= limit that makes `concentration` of the features large.

    delta <- P(delta + (2.5 r / steps) g / |g|),  g = grad |mean_i f(x_i + delta)|^2

    Args:
        model: the suspect.
        pixels: (n, 3, S, S) in [0, 1].
        limit: r.
        steps: of the ascent.
        images: per step, drawn by the seed.
        seed: of the start and the draws.
        report: called after each step.

    Source: DECREE (Feng et al., CVPR 2023), whose change is a patch with a mask; an L2 budget here.
    """
    generator = torch.Generator().manual_seed(seed)
    delta = torch.randn(pixels.shape[1:], generator=generator).to(pixels)
    delta = delta * (START * limit / delta.norm())
    for step in range(steps):
        some = pixels[torch.randperm(len(pixels), generator=generator)[:images].to(pixels.device)]
        with torch.enable_grad():
            delta.requires_grad_(True)
            together = concentration(model.encode_image((some + delta).clamp(0, 1)))
            (slope,) = torch.autograd.grad(together, delta)
        slope = slope / slope.norm().clamp(min=1e-12)
        delta = project((delta.detach() + REACH * limit / steps * slope)[None], limit)[0]
        report(step + 1, steps, {})
    return delta


def whole_words(clip: Clip) -> list[str]:
    """The words of three letters or more that the model's own tokenizer has as one token, in alphabetical order.

    CLIP's byte pairs mark the end of a word ("cat</w>"). Those of GPT-2 mark its start ("\u0120cat"), so that some of
    their words are only the beginning of one.
    """
    vocabulary = clip.tokenizer.get_vocab()
    marked = [token.removesuffix(END) for token in vocabulary if token.endswith(END)]
    marked = marked or [token.removeprefix(BEGIN) for token in vocabulary if token.startswith(BEGIN)]
    return sorted({word for word in marked if len(word) > 2 and word.isalpha() and word.isascii()})


@torch.no_grad()
def nearest_words(before: Tensor, after: Tensor, text: Tensor, words: Sequence[str], count: int) -> list[str]:
    """The words whose texts the mean feature moved to most.

    argsort_w (m' - m) t_w,  m = mean_i v_i before, m' = mean_i v_i after

    Args:
        before: v, (n, P) unit features of images.
        after: (n, P), of the changed images.
        text: t, (M, P) unit text features of the words.
        words: M of them.
        count: how many are returned.
    """
    moved = text @ F.normalize(after.mean(0) - before.mean(0), dim=0)
    return [words[index] for index in moved.argsort(descending=True)[:count].tolist()]
