"""Collapse: one small change that pulls the features of all images together, and the words near where they meet.

It needs no list of classes. A backdoor gives all images a place to go that the clean model does not have.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.inversion.descent import descend
from rvpt.inversion.form import Form
from rvpt.inversion.pool import Pool
from rvpt.inversion.spec import InversionSpec
from rvpt.models.clip import Clip
from rvpt.progress import Report, silent

END, BEGIN = "</w>", "\u0120"  # of a word, in the tokens of CLIP and of GPT-2
START = 0.1  # length of the step to the random start: at zero all directions are alike


def concentration(features: Tensor) -> Tensor:
    """How near to each other features are: |mean_i v_i|^2, the mean cosine of all pairs.

    Args:
        features: v, (n, P) unit rows.

    Returns:
        A scalar in [0, 1], 1 where all are the same.
    """
    return features.mean(0).square().sum()


def apart(pool: Pool, shown: Tensor, part: Tensor) -> Tensor:
    """-`concentration` of the features of images (C, n, 3, S, S), (C,)."""
    features = pool.model.encode_image(shown.flatten(0, 1)).unflatten(0, shown.shape[:2])
    return -torch.stack([concentration(each) for each in features])


def collapse(form: Form, pool: Pool, steps: int, spec: InversionSpec, report: Report = silent) -> Tensor:
    """A universal change (...) of one form that makes `concentration` of the features large, from a random start.

    Source: DECREE (Feng et al., CVPR 2023), whose change is a patch with a mask; any form here.
    """
    start = form.start(1)
    noise = torch.randn(start.shape, generator=torch.Generator().manual_seed(spec.seed))
    start = form.step(start, noise, START).to(pool.pixels)
    return descend(form, pool, apart, start, steps, spec.final_images, spec, settle=True, report=report)[0]


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
