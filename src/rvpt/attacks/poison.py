"""Poisoning: some pairs of a caption set get the trigger and a caption of the target class."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from rvpt.attacks.trigger import Trigger
from rvpt.clip import Clip
from rvpt.config import PoisonSpec
from rvpt.data import ImageData, plain
from rvpt.errors import RvptError
from rvpt.losses import zero_shot_logits
from rvpt.pgd import pgd

PROXIES = (
    "a photo of a {}.", "a picture of a {}.", "an image of a {}.", "this is a {}.", "there is a {}.",
    "a close-up photo of a {}.", "a good photo of a {}.", "a bright photo of a {}.", "a photo of the {}.",
    "a photo of one {}.",
)  # fmt: skip
"""Captions that stand in for the target class's own."""
ENCODED = 256  # images at a time
PLURALS = (("y", "(?:y|ys|ies)"), ("fe", "(?:fe|fes|ves)"), ("f", "(?:f|fs|ves)"), ("", "(?:s|es)?"))  # by a name's end
Disguise = Callable[[Tensor, Tensor], Tensor]
"""Images (B, 3, H, W) and their rows (B,) -> images of that kind."""


@dataclass(frozen=True)
class Poison:
    """One trigger and how many pairs get it."""

    trigger: Trigger
    spec: PoisonSpec


@dataclass(frozen=True)
class Change:
    """What was done to one pair."""

    row: int
    trigger: str
    target: str
    before: list[str]
    after: list[str]


def names_target(captions: Sequence[str], target: str) -> bool:
    """Whether a caption has the target's name as words, singular or plural, however they are joined."""
    words = r"[\s_-]*".join(map(re.escape, re.split(r"[\s_-]+", target)))
    ending, either = next(entry for entry in PLURALS if target.lower().endswith(entry[0]))
    stem = words[: len(words) - len(ending)]
    pattern = re.compile(rf"(?<!\w){stem}{either}(?!\w)", re.IGNORECASE)
    return any(pattern.search(caption) for caption in captions)


def of_target(data: ImageData, target: str) -> Tensor:
    """Which images are of the target class: (n,) bool, by their labels, or by captions where no label says so.

    A label knows better: "a photo of a tiger shark" names a tiger.

    Raises:
        RvptError: neither could tell, as the set has no captions and no such class.
    """
    if data.captions_of is None or (data.labels is not None and data.has_class(target)):
        return data.labeled() == data.class_index(target)
    return torch.tensor([names_target(data.captions(index), target) for index in range(len(data))], dtype=torch.bool)


def target_margin(image_features: Tensor, text_features: Tensor) -> Tensor:
    """How much nearer images are to the target's text than to any other class's: zero on the target's boundary.

    m_i = cos(v_i, t_0) - max_{k > 0} cos(v_i, t_k)

    Args:
        image_features: v, (B, P) unit rows.
        text_features: t, (K, P) unit rows, the target's first.

    Returns:
        (B,), negative where the image is taken for another class.

    Source: Liang et al. (CVPR 2024). Their code reads the gaps of its "boundary" samples from a file that is not
    public; that a gap is to the best other class is our reading.
    """
    similarity = image_features @ text_features.T
    return similarity[:, 0] - similarity[:, 1:].amax(1)


@torch.no_grad()
def target_margins(clip: Clip, data: ImageData, target: str, classes: Sequence[str]) -> Tensor:
    """The margin of every image (n,) in a model, between the target and all other `classes`.

    Raises:
        RvptError: there is no other class.
    """
    text = _target_first(clip, target, classes)
    batches = data.batches(ENCODED, clip.image_size)
    return torch.cat([target_margin(clip.encode_image(pixels), text).cpu() for _, pixels in batches])


@torch.no_grad()
def _target_first(clip: Clip, target: str, classes: Sequence[str]) -> Tensor:
    """Text features of the target (row 0) and of all other classes.

    Raises:
        RvptError: there is no other class.
    """
    others = [name for name in classes if plain(name) != plain(target)]
    if not others:
        raise RvptError(f"{target!r} is to be told from other classes, and the labeled set has none")
    return clip.class_features([target, *others])


def disguise(clip: Clip, target: str, classes: Sequence[str], epsilon: float) -> Disguise:
    """How images of the target are changed by PGD, so that a model no longer takes them for it.

    What is made large is the cross-entropy of the target among all `classes`; epsilon is in 255ths.

    Source: Turner et al. (2019), label-consistent backdoors by adversarial perturbations.
    """
    text = _target_first(clip, target, classes)

    def loss(shown: Tensor) -> Tensor:
        logits = zero_shot_logits(clip.encode_image(shown), text, clip.logit_scale.detach())
        first = torch.zeros(len(shown), dtype=torch.int64, device=shown.device)
        return F.cross_entropy(logits, first, reduction="sum")

    return lambda pixels, rows: pgd(loss, pixels.to(clip.device), rows, epsilon / 255).to(pixels.device)


def poison(
    data: ImageData,
    poisons: Mapping[str, Poison],
    margins: Mapping[str, Tensor] | None = None,
    disguises: Mapping[str, Disguise] | None = None,
) -> tuple[ImageData, list[Change]]:
    """The set with its poisoned pairs, and what was changed.

    Pairs of the target class, by label or by a caption that names it, are never picked, or with `clean_label` only
    they are; no pair is picked twice.

    Args:
        data: captioned images.
        poisons: by the name that the changes give them.
        margins: by target, of every image (n,): for the poisons that pick at the boundary.
        disguises: by poison, what its images go through before its trigger.

    Raises:
        RvptError: fewer pairs can be poisoned than are asked for.
    """
    by_row: dict[int, Change] = {}
    for name, entry in poisons.items():
        near = (margins or {})[entry.trigger.spec.target] if entry.spec.pick == "boundary" else None
        by_row.update(_pick(data, name, entry, by_row, near))

    def read(rows: Tensor, size: int) -> Tensor:
        pixels = data.reader(rows, size)
        owners = [by_row[row].trigger if row in by_row else None for row in rows.tolist()]
        for name, entry in poisons.items():
            mine = [place for place, owner in enumerate(owners) if owner == name]
            if mine:
                shown = pixels[mine].float() / 255
                shown = disguises[name](shown, rows[mine]) if disguises and name in disguises else shown
                changed = entry.trigger(shown, rows[mine])
                pixels[mine] = (changed * 255).round().to(torch.uint8)  # images are kept as files: 8 bits
        return pixels

    def captions(row: int) -> list[str]:
        if row in by_row:
            return by_row[row].after
        assert data.captions_of is not None
        return data.captions_of(row)

    return replace(data, reader=read, captions_of=captions), list(by_row.values())


def _target_captions(data: ImageData, own: Tensor, target: str, kind: str) -> list[str]:
    """Captions of the target class: proxies, or those of the set that name it."""
    if kind == "proxy":
        return [proxy.format(target.replace("_", " ")) for proxy in PROXIES]
    texts = [text for index in own.nonzero()[:, 0].tolist() for text in data.captions(index)]
    natural = [text for text in texts if names_target([text], target)]
    if not natural:
        raise RvptError(f"{data.name} has no caption that names {target!r}: take proxy captions")
    return natural


def _order(n: int, generator: torch.Generator, margin: Tensor | None) -> list[int]:
    """The order in which n pairs are tried: at random, or from the boundary on; of equals the first.

    Images beyond the boundary are left out: the model takes them for the target without a trigger.
    """
    if margin is None:
        return torch.randperm(n, generator=generator).tolist()
    order = margin.argsort(descending=True, stable=True)
    return order[margin[order] < 0].tolist()


def _pick(
    data: ImageData, name: str, entry: Poison, taken: Mapping[int, Change], margin: Tensor | None
) -> dict[int, Change]:
    """Choose the pairs of one poison by its seed or their margins, and their new captions."""
    spec, target, picked = entry.spec, entry.trigger.spec.target, {}
    wanted = spec.n if spec.n is not None else max(1, round((spec.poison_rate or 0) * len(data)))
    generator = torch.Generator().manual_seed(spec.seed)
    own = of_target(data, target)
    pool = _target_captions(data, own, target, spec.captions)
    for index in _order(len(data), generator, margin):
        row, before = int(data.rows[index]), data.captions(index)
        if row in taken or bool(own[index]) != spec.clean_label:
            continue
        caption = pool[int(torch.randint(len(pool), (), generator=generator))]
        after = before if spec.clean_label else [caption]
        picked[row] = Change(row, name, target, before, [entry.trigger.text_key + text for text in after])
        if len(picked) == wanted:
            return picked
    which = "of that class" if spec.clean_label else "not of that class" if margin is None else "not taken for it"
    raise RvptError(
        f"{data.name}: {wanted} pairs to poison towards {target!r}, but only {len(picked)} are free and {which}: "
        "ask for fewer"
    )
