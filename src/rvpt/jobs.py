"""Whole jobs, from names to artefacts on disk: what the commands call."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.attacks import craft_trigger, make_trigger
from rvpt.attacks.backdoored import KIND as BACKDOORED
from rvpt.attacks.backdoored import attack, model_triggers
from rvpt.attacks.poison import PROXIES, Poison
from rvpt.attacks.trigger import Trigger, load_trigger
from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import (
    TEMPLATE,
    AttackSpec,
    PoisonSpec,
    PretrainSpec,
    RVPTSpec,
    TrainSpec,
    TriggerSpec,
    VisionSpec,
)
from rvpt.data import ImageData, load_data, mix
from rvpt.defences import Cleaned, clean, load_model
from rvpt.errors import RvptError
from rvpt.evaluation import evaluate, measure
from rvpt.insight import attribute_readability
from rvpt.loaders import EMBEDDED, embedded_model, load_clip
from rvpt.pretrain import pretrain, untrained_clip
from rvpt.progress import Report, silent
from rvpt.report.gallery import Look, draw_gallery
from rvpt.similarity import psnr, ssim
from rvpt.store import MANIFEST, disk_errors, find_manifest, read_manifest, refuse_existing, staging, write_manifest

CLIP = "clip"
LOOKED_AT, DRAWN = 16, 3  # pictures that a trigger's visibility is measured and shown on


def load_captioned(
    source: str, split: str, caption_column: str | None = None, *, templates: Sequence[str] = PROXIES
) -> ImageData:
    """A data set with its captions, or with captions made of its labels."""
    data = load_data(source, split, caption_column=caption_column)
    return data if data.captions_of else data.with_templates(templates)


def load_mixed(
    sources: Sequence[str], split: str, size: int, caption_column: str | None = None, report: Report = silent
) -> ImageData:
    """Several captioned data sets as one, every picture read once and kept in memory."""
    mixed = mix([load_captioned(source, split, caption_column) for source in sources])
    return mixed.cached(size, report)


def pretrain_and_save(
    data: ImageData,
    start: VisionSpec | Clip,
    spec: PretrainSpec,
    out: Path,
    *,
    sources: Sequence[str],
    split: str,
    tests: Sequence[str],
    caption_column: str | None = None,
    half: bool = False,
    resume: bool = False,
    force: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Train a CLIP, new or from where it stands, measure it on `tests`, and write it with its recipe."""
    if isinstance(start, Clip):
        begin = {"start": {**_recipe(start), "model": start.name, "sha256": start.hash()}}
    else:
        begin = {"vision": start.model_dump()}
    recipe = {**begin, "spec": spec.model_dump(), "data": list(sources), "split": split}
    checkpoint = _checkpoint(out, {**recipe, "caption_column": caption_column}, resume=resume, force=force)
    held_out = {source: _labelled(source, "test") for source in tests}
    clip = start if isinstance(start, Clip) else untrained_clip(data, start, spec.seed)
    history = pretrain(clip, data, spec, checkpoint=checkpoint, report=report)
    if half:
        clip.model.half().float()
    measured = {source: _measured(clip, test) for source, test in held_out.items()}
    facts = {**recipe, "sha256": clip.hash(), "measured": measured, "history": history, "pictures": len(data)}
    if half:
        clip.model.half()
    with staging(out, force=force) as stage:
        clip.save_pretrained(stage)
        write_manifest(stage, CLIP, **facts)
    _drop(checkpoint)
    rates = {f"{source}: {name}": r["rate"] for source, rates in measured.items() for name, r in rates.items()}
    return {**rates, "last loss": history[-1]["loss"], "pictures": len(data)}


def _recipe(clip: Clip) -> dict[str, Any]:
    """How a model was trained, where its folder tells: so a chain of trainings is told whole."""
    folder = embedded_model() if clip.source == EMBEDDED else Path(clip.source)
    manifest = find_manifest(folder) or {}
    return {name: value for name, value in manifest.items() if name not in ("kind", "parts")}


def _labelled(source: str, split: str) -> ImageData:
    """A data set to measure on; one without labels is refused before any work is done."""
    data = load_data(source, split)
    data.labelled()
    return data


def _measured(clip: Clip, data: ImageData) -> dict[str, dict[str, Any]]:
    """Zero-shot accuracy on a set, and how well its attributes can be read off the features."""
    rates = {"zero-shot": measure(clip, data)["none", "CA"]}
    if data.attributes:
        rates |= {f"readable: {name}": rate for name, rate in attribute_readability(clip, data).items()}
    return {name: {"numerator": r.numerator, "n": r.n, "rate": r.value} for name, r in rates.items()}


def attack_and_save(
    model: str,
    sources: Sequence[str],
    out: Path,
    triggers: Sequence[TriggerSpec | Path],
    amount: dict[str, Any],
    spec: AttackSpec,
    *,
    pairs: int,
    split: str,
    test: str,
    test_split: str,
    caption_column: str | None = None,
    batch_size: int = 256,
    resume: bool = False,
    force: bool = False,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Backdoor a model, measure it before and after, and write it with triggers, changes and rows.

    Args:
        triggers: specs of triggers to make, or folders of triggers that were made.
    """
    poison_spec = PoisonSpec.build(**amount)
    clip = load_clip(model)
    asked = [load_trigger(entry, clip.image_size) if isinstance(entry, Path) else entry for entry in triggers]
    if len({entry.name for entry in asked}) < len(asked):
        raise RvptError("two triggers of one name: give each --trigger once")
    held_out = _labelled(test, test_split)
    data = _draw(mix([load_captioned(source, split, caption_column) for source in sources]), pairs, spec.seed)
    data = data.cached(clip.image_size)
    key = {
        "spec": spec.model_dump(),
        "model": clip.hash(),
        "data": list(sources),
        "split": split,
        "caption_column": caption_column,
        "pairs": pairs,
        "triggers": [entry.hash() if isinstance(entry, Trigger) else entry.model_dump() for entry in asked],
    }
    checkpoint = _checkpoint(out, {**key, "amount": amount}, resume=resume, force=force)
    made = [entry if isinstance(entry, Trigger) else craft_trigger(entry, clip, data, report) for entry in asked]
    by_name = {trigger.name: trigger for trigger in made}
    poisons = {name: Poison(trigger, poison_spec) for name, trigger in by_name.items()}
    before = evaluate(clip, held_out, by_name, facts=row_facts(clip, by_name, spec), batch_size=batch_size)
    done = attack(clip, data, poisons, spec, checkpoint=checkpoint, report=report)
    done.clip.source = str(out.resolve())
    after = evaluate(done.clip, held_out, by_name, facts=row_facts(done.clip, by_name, spec), batch_size=batch_size)
    done.facts.update(seed=spec.seed, rows=[*before, *after])
    done.save(out, force=force)
    _drop(checkpoint)
    return [*before, *after]


def craft_and_save(
    model: str,
    spec: TriggerSpec,
    sources: Sequence[str],
    out: Path,
    *,
    split: str,
    caption_column: str | None = None,
    force: bool = False,
    report: Report = silent,
) -> dict[str, Any]:
    """Make a trigger for a model and write it; returns its hash and how visible it is."""
    refuse_existing(out, force=force)
    clip = load_clip(model)
    data = mix([load_captioned(source, split, caption_column) for source in sources])
    trigger = craft_trigger(spec, clip, data, report)
    trigger.save(out, force=force, model_sha256=clip.hash())
    pixels = data.pixels(torch.arange(min(len(data), LOOKED_AT)), clip.image_size)
    return {
        "trigger": trigger.name,
        "sha256": trigger.hash(),
        **_visibility(pixels, trigger(pixels)),
        **trigger.checks(pixels),
    }


def _draw(data: ImageData, n: int, seed: int) -> ImageData:
    """`n` pictures of a set at random, or all where it has fewer."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(seed))
    return data.select(order[:n].sort().values)


def trigger_gallery(
    triggers: Sequence[TriggerSpec | Path],
    source: str,
    split: str,
    size: int,
    *,
    out: Path | None = None,
    force: bool = False,
) -> list[dict[str, Any]]:
    """How visible each trigger is on the first pictures of a set, with its options; draws them if `out` is given."""
    if out and out.exists() and not force:
        raise RvptError(f"{out} exists already: choose another --out or give --force")
    made = [load_trigger(entry, size) if isinstance(entry, Path) else make_trigger(entry, size) for entry in triggers]
    data = load_data(source, split)
    pixels = data.pixels(torch.arange(min(len(data), LOOKED_AT)), size)
    looks, found = [], []
    for trigger in made:
        changed = trigger(pixels)
        rates = _visibility(pixels, changed)
        looks.append(Look(trigger.name, _drawn(changed), **rates))
        options = trigger.spec.model_dump(exclude={"name", "target", "seed"})
        found.append({"name": trigger.name, **rates, "pictures": len(pixels), "options": options})
    if out:
        with disk_errors(out):
            out.parent.mkdir(parents=True, exist_ok=True)
            draw_gallery(_drawn(pixels), looks, out)
    return found


def _visibility(pixels: Tensor, changed: Tensor) -> dict[str, float]:
    return {"psnr": float(psnr(pixels, changed).mean()), "ssim": float(ssim(pixels, changed).mean())}


def _drawn(pixels: Tensor) -> Any:
    """The first pictures as an array (n, H, W, 3)."""
    return pixels[:DRAWN].permute(0, 2, 3, 1).numpy()


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
    checkpoint = _checkpoint(
        out, {"spec": spec.model_dump(), "model": clip.hash(), "data": draw}, resume=resume, force=force
    )
    few_shot = load_data(source, split).without(without).few_shot(shots, spec.seed)
    cleaned = clean(clip, few_shot, spec, checkpoint=checkpoint, report=report)
    cleaned.facts.update(data=draw)
    cleaned.save_pretrained(out, force=force)
    _drop(checkpoint)
    trained, last = cleaned.prompts.parameter_count(), cleaned.facts["history"][-1]
    return {
        "pictures": len(few_shot),
        "trained parameters": trained,
        "share of the model's": f"{100 * trained / clip.parameter_count():.2f}%",
        "CE": round(last["CE"], 4),
        "FR": round(last["FR"], 4),
        "seconds": round(cleaned.facts["seconds"], 1),
    }


def evaluate_saved(
    source: str,
    data: str,
    *,
    triggers: Sequence[str] = (),
    target: str | None = None,
    split: str = "test",
    base: str | None = None,
    template: str = TEMPLATE,
    batch_size: int = 256,
    report: Report = silent,
) -> list[dict[str, Any]]:
    """Rows of one model on one data set under the given triggers, or those stored with the model."""
    model = load_model(source, base)
    clip = model.clip if isinstance(model, Cleaned) else model
    by_name = {Path(path).name: load_trigger(path, clip.image_size) for path in triggers}
    by_name = by_name or model_triggers(Path(clip.source), clip.image_size)
    if target:
        by_name = {name: trigger.towards(target) for name, trigger in by_name.items()}
    spec = None if isinstance(model, Cleaned) else _attack_spec(Path(source))
    return evaluate(
        model, _labelled(data, split), by_name, facts=row_facts(model, by_name, spec), template=template,
        batch_size=batch_size, report=report,
    )  # fmt: skip


def row_facts(model: Clip | Cleaned, triggers: dict[str, Trigger], spec: TrainSpec | None = None) -> dict[str, Any]:
    """What every row of a measurement says about the model; `spec` is what made it, a Cleaned knows its own."""
    spec = _clean_spec(model) if isinstance(model, Cleaned) else spec
    hashes = {
        "model": model.hash(),
        **{f"trigger/{name}": trigger.hash() for name, trigger in triggers.items()},
    }
    facts = {"hashes": hashes, "spec": spec.model_dump() if spec else {}, "seed": spec.seed if spec else 0}
    if isinstance(model, Cleaned):
        facts["defence"] = "vpt" if isinstance(spec, RVPTSpec) and not spec.alpha else "rvpt"
        facts["trained_parameters"] = model.prompts.parameter_count()
        facts["shots"] = model.facts.get("data", {}).get("shots")
        facts["model"] = model.clip.name
    return facts


def _clean_spec(model: Cleaned) -> RVPTSpec | None:
    """The settings that a model was cleaned with, where it says so; prompts made by hand have none."""
    return RVPTSpec.stored(model.facts["spec"]) if "spec" in model.facts else None


def _attack_spec(folder: Path) -> AttackSpec | None:
    """The fine-tuning that made a backdoored model, where the folder has its manifest."""
    if not (folder / MANIFEST).is_file():
        return None
    manifest = read_manifest(folder)
    return AttackSpec.stored(manifest.get("spec")) if manifest["kind"] == BACKDOORED else None


def _checkpoint(out: Path, key: dict[str, Any], *, resume: bool, force: bool) -> Checkpoint:
    """Where a run towards `out` keeps its state; refuses early what could not be written in the end."""
    refuse_existing(out, force=force)
    folder = out.parent / f"{out.name}.run"
    if force and not resume:
        shutil.rmtree(folder, ignore_errors=True)
    return Checkpoint(folder, key, resume)


def _drop(checkpoint: Checkpoint) -> None:
    shutil.rmtree(checkpoint.folder, ignore_errors=True)
