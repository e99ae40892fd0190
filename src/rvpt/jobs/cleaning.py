"""Cleaning as a whole job: a model and a data set in, an adapter out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.config import RVPTSpec
from rvpt.data import load_data
from rvpt.defences import clean
from rvpt.jobs.sources import drop, open_checkpoint
from rvpt.loaders import load_clip
from rvpt.progress import Report, silent


def clean_and_save(
    model: str,
    source: str,
    out: Path,
    spec: RVPTSpec,
    *,
    split: str = "train",
    shots: int = 16,
    without: Sequence[str] = (),
    resume: bool = False,
    force: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Clean a model on `shots` pictures a class and write the adapter."""
    clip = load_clip(model)
    draw = {"source": source, "split": split, "shots": shots, "seed": spec.seed, "without": list(without)}
    checkpoint = open_checkpoint(
        out, {"spec": spec.model_dump(), "model": clip.hash(), "data": draw}, resume=resume, force=force
    )
    few_shot = load_data(source, split).without(without).few_shot(shots, spec.seed)
    cleaned = clean(clip, few_shot, spec, checkpoint=checkpoint, report=report)
    cleaned.facts.update(data=draw)
    cleaned.save_pretrained(out, force=force)
    drop(checkpoint)
    trained, last = cleaned.prompts.parameter_count(), cleaned.facts["history"][-1]
    return {
        "pictures": len(few_shot),
        "trained parameters": trained,
        "share of the model's": f"{100 * trained / clip.parameter_count():.2f}%",
        "CE": round(last["CE"], 4),
        "FR": round(last["FR"], 4),
        "seconds": round(cleaned.facts["seconds"], 1),
    }
