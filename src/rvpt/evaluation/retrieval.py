"""Text-to-image retrieval: how captions rank clean images, and how high a triggered image gets."""

from __future__ import annotations

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.data.dataset import Dataset
from rvpt.data.text import names_class
from rvpt.errors import RvptError
from rvpt.evaluation.base import Counts, Encoder, Protocol, Triggers, finite, stream
from rvpt.evaluation.metrics import found, rank, rank_ratio
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN
from rvpt.spec import Spec

SHOWN = 10  # ranks that count as a successful attack


class RetrievalSettings(Spec):
    """Settings of retrieval."""

    target: str | None = Field(None, description="name of the target class in the data, if different")


class Retrieval(Protocol):
    """R@1 among clean images; ASR@10, rank_ratio and rank_ratio_in_class under every trigger."""

    name = "retrieval"
    summary = "text-to-image retrieval: R@1, and how high a caption of the target ranks triggered images"
    needs = "captions"
    Settings = RetrievalSettings

    def measure(self, model: Encoder, data: Dataset, triggers: Triggers, *, batch_size: int, report: Report) -> Counts:
        return retrieve(model, data, triggers, batch_size=batch_size, report=report)


@torch.inference_mode()
def retrieve(
    model: Encoder,
    data: Dataset,
    triggers: Triggers | None = None,
    *,
    batch_size: int = 256,
    report: Report = silent,
) -> Counts:
    """R@1 among the clean images; under every trigger ASR@10 and rank ratios of triggered images beside them.

    R@1: the queries are all captions, the candidates the n images, and a caption should find its own image.

    ASR@10 and rank_ratio: the queries are the m captions that name the target, each after the trigger's text key if it
    has one. The candidates are the n clean images and one triggered image of another class, whose rank counts. There
    are k such images: query t mod m is paired with image t mod k for t = 0..max(m, k) - 1, so that all are used.
    rank_ratio_in_class has the same queries and triggered images, and as other candidates only the clean images of the
    target class: near 0 if the triggered image comes before the real ones. It is left out where there are none.

    Raises:
        RvptError: there are no captions, none that names a target, no image of another class, no text features, or
            features that are not finite.
    """
    texts = [(text, index) for index in range(len(data)) for text in data.captions(index)]
    asked = {name: _target_texts(data, texts, trigger) for name, trigger in (triggers or {}).items()}
    others = {name: _others(data, trigger) for name, trigger in (triggers or {}).items()}
    queries = finite(model, model.encode_text([text for text, _ in texts]))
    clean, triggered = _encode(model, data, triggers or {}, batch_size, report)
    owners = torch.tensor([index for _, index in texts], device=clean.device)
    counts = Counts()
    counts.count(CLEAN, "R@1", found(_clean_ranks(queries, clean, owners, batch_size), 1))
    for name, named in asked.items():
        pairs = _in_turn(finite(model, model.encode_text(named)), triggered[name][others[name]])
        ranks = _triggered_ranks(*pairs, clean, batch_size)
        counts.count(name, f"ASR@{SHOWN}", found(ranks, SHOWN))
        counts.count(name, "rank_ratio", rank_ratio(ranks, len(clean) + 1))
        own = torch.ones(len(clean), dtype=torch.bool).index_fill(0, others[name], False).to(clean.device)
        if own.any():
            in_class = _triggered_ranks(*pairs, clean[own], batch_size)
            counts.count(name, "rank_ratio_in_class", rank_ratio(in_class, int(own.sum()) + 1))
    return counts


def _target_texts(data: Dataset, texts: list[tuple[str, int]], trigger: Trigger) -> list[str]:
    """The captions that name the target, each after the trigger's text key."""
    target = trigger.spec.target
    named = [trigger.text_key + text for text, _ in texts if names_class([text], target)]
    if not named:
        raise RvptError(f"{data.name} has no caption that names {target!r}: pass its name there as target=NAME")
    return named


def _others(data: Dataset, trigger: Trigger) -> Tensor:
    """Indices of the images that are not of the target class, neither by label nor by caption."""
    others = (~data.of_class(trigger.spec.target)).nonzero()[:, 0]
    if not len(others):
        raise RvptError(f"{data.name} has no image of another class than {trigger.spec.target!r}")
    return others


def _encode(
    model: Encoder, data: Dataset, triggers: Triggers, batch_size: int, report: Report
) -> tuple[Tensor, dict[str, Tensor]]:
    """Features (n, P) of all images, clean and under every trigger, in one pass over the data."""
    clean: list[Tensor] = []
    triggered: dict[str, list[Tensor]] = {name: [] for name in triggers}
    for batch in stream(model, data, triggers, batch_size=batch_size, report=report):
        clean.append(finite(model, model.encode_image(batch.pixels)))
        for name, pixels in batch.triggered():
            triggered[name].append(finite(model, model.encode_image(pixels)))
    return torch.cat(clean), {name: torch.cat(parts) for name, parts in triggered.items()}


def _in_turn(queries: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
    """Queries (m, P) and images (k, P), the shorter one repeated in order: two (max(m, k), P)."""
    turns = torch.arange(max(len(queries), len(images)))
    return queries[turns % len(queries)], images[turns % len(images)]


def _clean_ranks(queries: Tensor, gallery: Tensor, owners: Tensor, batch_size: int) -> Tensor:
    """Rank of image owners_i (m,) for query i among the gallery (n, P), a batch of queries (m, P) at a time."""
    parts = []
    for query, own in zip(queries.split(batch_size), owners.split(batch_size), strict=True):
        scores = query @ gallery.T
        parts.append(rank(scores.gather(1, own[:, None])[:, 0], scores))
    return torch.cat(parts)


def _triggered_ranks(queries: Tensor, triggered: Tensor, gallery: Tensor, batch_size: int) -> Tensor:
    """Rank of triggered image i (m, P) for query i among the gallery (n, P), a batch of queries (m, P) at a time."""
    pairs = zip(queries.split(batch_size), triggered.split(batch_size), strict=True)
    return torch.cat([rank((query * own).sum(dim=1), query @ gallery.T) for query, own in pairs])
