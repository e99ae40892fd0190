"""Pretraining as a whole job: data sets in, a model folder with its settings out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rvpt.artifacts import find_manifest, staging
from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import canonical
from rvpt.data.load import load_data, load_labeled, load_mixed
from rvpt.data.skip import skipped_facts
from rvpt.evaluation.classification import measure
from rvpt.evaluation.probing import PROBED, attribute_readability
from rvpt.jobs.output_dirs import open_checkpoint
from rvpt.models.clip import Clip
from rvpt.models.formats.load import EMBEDDED, embedded_model
from rvpt.models.placement import find_device
from rvpt.models.save import write_artifact
from rvpt.progress import Report, silent
from rvpt.rows import CLEAN
from rvpt.spec import OnError
from rvpt.training.pretrain import PretrainSpec, VisionSpec, train_clip, untrained_clip


def pretrain_and_save(
    sources: Sequence[str],
    start: VisionSpec | Clip,
    spec: PretrainSpec,
    target: Path,
    *,
    split: str | None,
    tests: Sequence[str],
    caption_column: str | None = None,
    on_error: OnError = "stop",
    half: bool = False,
    device: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Train a CLIP, measure it on `tests`, and write it with its settings; returns a summary.

    Args:
        sources: captioned data sets; all are used together.
        start: the geometry of a new CLIP, or a CLIP to train further, which is changed.
        spec: the schedule.
        target: the folder to write.
        split: the split of the sources.
        tests: labeled data sets whose split "test" measures zero-shot accuracy.
        caption_column: the column with the captions.
        on_error: "skip" leaves out images that cannot be read.
        half: round the weights to float16 and store them so.
        device: where a new CLIP is trained; by default the GPU, if there is one.
        resume: continue an interrupted run.
        overwrite: replace an artifact at `target`.
        report: called after each step.

    Raises:
        RvptError: data that cannot be read, or a `target` that cannot be written.
    """
    recipe = {**_begin(start), "spec": spec.model_dump(), "data": list(sources), "split": split}
    reads = (*sources, *tests, *([start.source] if isinstance(start, Clip) else []))
    key = {**recipe, "data": [canonical(source) for source in sources], "caption_column": caption_column}
    if on_error != "stop":
        key["on_error"] = on_error
    checkpoint = open_checkpoint(target, key, reads, resume=resume, overwrite=overwrite)
    data = load_mixed(sources, split, caption_column, on_error=on_error).cached(start.image_size, report)
    held_out = {
        source: load_labeled(source, "test", on_error=on_error).cached(start.image_size) for source in tests
    }  # fails early
    clip = start if isinstance(start, Clip) else untrained_clip(data, start, spec.seed).to(find_device(device))
    history = train_clip(clip, data, spec, checkpoint=checkpoint, report=report)
    if half:
        clip.model.half().float()
    measured = {source: _measured(clip, source, test) for source, test in held_out.items()}
    facts = {**recipe, "sha256": clip.hash(), "measured": measured, "history": history, "images": len(data)}
    facts |= skipped_facts(data)
    if half:
        clip.model.half()
    with staging(target, overwrite=overwrite) as stage:
        write_artifact(clip, stage, target.resolve().name, **facts)
    checkpoint.drop()
    rates = {f"{source}: {name}": r["rate"] for source, rates in measured.items() for name, r in rates.items()}
    left_out = {"left out": list(data.skipped)} if data.skipped else {}
    return {**rates, "last loss": history[-1]["loss"], "images": len(data), **left_out}


def _begin(start: VisionSpec | Clip) -> dict[str, Any]:
    """What a training starts from."""
    if isinstance(start, Clip):
        return {"start": {**_recipe(start), "model": start.name, "sha256": start.hash()}}
    return {"vision": start.model_dump()}


def _recipe(clip: Clip) -> dict[str, Any]:
    """How a model was trained, if its folder has a manifest: then the new manifest has all stages."""
    folder = embedded_model() if clip.source == EMBEDDED else Path(clip.source)
    manifest = find_manifest(folder) or {}
    return {name: value for name, value in manifest.items() if name not in ("kind", "parts")}


def _measured(clip: Clip, source: str, data: Dataset) -> dict[str, dict[str, Any]]:
    """Zero-shot accuracy on a set, and linear probes for its attributes."""
    rates = {"zero-shot": measure(clip, data)[CLEAN, "CA"]}
    if data.attributes:
        seen = load_data(source, "train").sample(PROBED)
        rates |= {f"readable: {name}": rate for name, rate in attribute_readability(clip, seen, data).items()}
    return {name: {"numerator": r.numerator, "n": r.n, "rate": r.value} for name, r in rates.items()}
