"""Cleaning as a whole job: a model and a data set in, a cleaned model out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.config import TrainSpec
from rvpt.data import ImageData
from rvpt.defenses import clean, defense
from rvpt.jobs.sources import load_captioned, open_checkpoint
from rvpt.loaders import load_clip
from rvpt.progress import Report, silent
from rvpt.readers import load_data


def clean_and_save(
    model: str,
    source: str,
    out: Path,
    spec: TrainSpec,
    *,
    name: str = "rvpt",
    split: str = "train",
    shots: int = 16,
    without: Sequence[str] = (),
    pairs: int | None = None,
    caption_column: str | None = None,
    resume: bool = False,
    force: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Clean a model by the defense `name` and write what came out.

    Args:
        shots: images a class, for the defenses that learn from labels.
        pairs: images with captions, for the others; None takes the number that was published with them.
    """
    clip, kind = load_clip(model), defense(name)
    known = {
        "shots": shots,
        "without": list(without),
        "pairs": pairs or kind.pairs,
        "caption_column": caption_column,
    }
    draw: dict[str, Any] = {"source": source, "split": split, "seed": spec.seed}
    draw |= {option: known[option] for option in kind.draws}
    drawn = _drawn(draw)
    key = {"defense": name, "spec": spec.model_dump(), "model": clip.hash(), "data": draw, "classes": drawn.classes}
    checkpoint = open_checkpoint(out, key, (model, source), resume=resume, force=force)
    read = drawn.cached(clip.image_size) if kind.captions else drawn
    cleaned = clean(clip, read, spec, checkpoint=checkpoint, report=report)
    cleaned.facts.update(data=draw)
    cleaned.save_pretrained(out, force=force)
    checkpoint.drop()
    facts, whole = cleaned.facts, clip.parameter_count(tokens=cleaned.own_weights)
    return {
        "defense": facts["defense"],
        "images": facts["images"],
        **({} if kind.captions else {"classes": _classes(drawn)}),
        "trained parameters": facts["trained_parameters"],
        "share of the model's": f"{100 * facts['trained_parameters'] / whole:.2f}%",
        **{term: round(value, 4) for term, value in facts["history"][-1].items()},
        "seconds": round(facts["seconds"], 1),
    }


def _classes(drawn: ImageData) -> str:
    """How many classes are learned from, and which have no image."""
    seen, _ = drawn.present()
    unseen = [name for name in drawn.classes if name not in seen]
    return f"{len(seen)}" + (f", none of {', '.join(unseen[:5])}{', ...' if unseen[5:] else ''}" if unseen else "")


def _drawn(draw: dict[str, Any]) -> ImageData:
    """The clean images that a defense learns from."""
    if "pairs" in draw:
        captioned = load_captioned(draw["source"], draw["split"], draw["caption_column"])
        return captioned.sample(draw["pairs"], draw["seed"])
    return load_data(draw["source"], draw["split"]).without(draw["without"]).few_shot(draw["shots"], draw["seed"])
