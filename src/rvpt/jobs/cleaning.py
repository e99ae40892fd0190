"""Cleaning as a whole job: a model and a data set in, a cleaned model on disk out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import canonical, unnamed
from rvpt.data.skip import skipped_facts
from rvpt.data.splits import TRAIN
from rvpt.data.text import find_class
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Defense, Run, clean_with
from rvpt.defenses.unlabeled import settle
from rvpt.errors import RvptError
from rvpt.jobs.drawing import how_drawn, read_images, select, without_classes
from rvpt.jobs.findings import suspected_targets
from rvpt.jobs.output_dirs import open_checkpoint
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.presets import CleanPreset, choose_preset
from rvpt.progress import Report, silent
from rvpt.spec import OnError, TrainSpec

TARGETS = "targets"  # the setting of defenses that use suspected targets


def clean_and_save(
    model: Clip,
    source: str,
    target: Path,
    defense: str = "rvpt",
    settings: Mapping[str, Any] | None = None,
    *,
    preset: CleanPreset = "auto",
    check: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    report: Report = silent,
    **drawing: Any,
) -> dict[str, Any]:
    """Clean a model with a defense and write the result; returns a summary.

    Args:
        model: the suspect.
        source: the data set that clean images are drawn from.
        target: the folder to write.
        defense: a name.
        settings: changes of the preset.
        preset: "paper", "small", "coop" or "auto".
        check: the folder of a check of this model, for defenses that use its suspected targets.
        resume: continue an interrupted run.
        overwrite: replace an artifact at `target`.
        report: called after each step.
        drawing: how the images are drawn, as in `plan`.

    Raises:
        RvptError: an option that the defense does not use, or an error of `rvpt.clean`.
    """
    settings = dict(settings or {})
    if check:
        settings |= _found(check, DEFENSES.find(defense), model, preset, settings)
        _refuse_left_out(settings[TARGETS], drawing.get("without") or ())
    todo = plan(model, source, defense, settings, preset=preset, **drawing)
    key = {"defense": defense, **todo.key(model)}
    checkpoint = open_checkpoint(target, key, (model.source, source), resume=resume, overwrite=overwrite)
    with checkpoint.tried():
        cleaned = clean_with(todo.kind, model, todo.read(model), todo.spec, Run(checkpoint, report))
    cleaned.facts["data"] = todo.facts()
    cleaned.save_pretrained(target, overwrite=overwrite)
    checkpoint.drop()
    chosen = choose_preset(preset, model.parameter_count(), todo.kind.presets())
    return {"preset": chosen, **_summary(cleaned, model, _seen(todo.draw, todo.drawn))}


@dataclass(frozen=True)
class Plan:
    """What a cleaning will do.

    Args:
        kind: the defense.
        spec: all settings.
        draw: how the images are drawn.
        drawn: the images, without labels where these are predicted.
        left: the other images of the data set.
    """

    kind: type[Defense]
    spec: TrainSpec
    draw: dict[str, Any]
    drawn: Dataset
    left: Dataset

    def key(self, model: Clip) -> dict[str, Any]:
        """What distinguishes the run from others."""
        data = {**self.draw, "source": canonical(self.draw["source"]), **skipped_facts(self.drawn)}
        return {"spec": self.spec.model_dump(), "model": model.hash(), "classes": self.drawn.classes, "data": data}

    def facts(self) -> dict[str, Any]:
        """How the images were drawn, for the manifest."""
        source, shift = self.draw["source"], self.draw.get("shift")
        name = Path(unnamed(source)).name
        told = {"source": canonical(source), "name": f"{name} ({shift})" if shift else name}
        return {**self.draw, **told, **skipped_facts(self.drawn)}

    def read(self, model: Clip) -> Dataset:
        """The images; in memory if they are pairs, which have many epochs."""
        return self.drawn.cached(model.image_size) if "num_pairs" in self.draw else self.drawn


def plan(
    model: Clip,
    source: str,
    defense: str,
    settings: Mapping[str, Any],
    *,
    preset: CleanPreset = "auto",
    split: str | None = TRAIN,
    shots: int | None = None,
    without: Sequence[str] = (),
    num_pairs: int | None = None,
    caption_column: str | None = None,
    classes: Sequence[str] | None = None,
    shift: str | None = None,
    on_error: OnError = "stop",
) -> Plan:
    """What `clean_and_save` with these arguments will do; nothing is trained or written.

    Args:
        model: the suspect.
        source: the data set that clean images are drawn from.
        defense: a name.
        settings: changes of the preset.
        preset: "paper", "small", "coop" or "auto".
        split: the split of the data set to draw from.
        shots: images per class, for defenses that learn from labels; 16 by default. Without labels, this many times the
            number of classes are drawn at random.
        without: classes to leave out, for these defenses.
        num_pairs: image-caption pairs, for defenses that learn from captions; by default as many as published.
        caption_column: the column with the captions, for these defenses.
        classes: names of the classes, for defenses that do without labels; labels are not used then.
        shift: change of style of the images.
        on_error: "skip" leaves out images that cannot be read.

    Raises:
        RvptError: an option that the defense does not use, a setting that does not fit, or no images that do.
    """
    kind = DEFENSES.find(defense)
    seed = kind.settings(preset, model, **settings).seed  # what does not fit is refused before images are read
    given = {"shots": shots, "without": list(without), "num_pairs": num_pairs, "caption_column": caption_column}
    draw = {"source": source, "split": split, "seed": seed, **how_drawn(kind, given)}
    draw |= {"shift": shift} if shift else {}
    whole = read_images(draw, on_error)
    spec, whole = settle(kind, model, whole, classes, preset, settings)
    if "shots" in draw and whole.labels is None:
        draw = without_classes(draw, len(whole.classes))
    drawn = select(whole, draw)
    kind.refuse(model, drawn, spec)
    left = whole.select((~torch.isin(whole.rows, drawn.rows)).nonzero()[:, 0])
    return Plan(kind, spec, draw, drawn, left)


def uses_targets(kind: type[Defense]) -> bool:
    """Whether a defense can use the targets that a check suspects: its settings have `targets`."""
    return TARGETS in kind.Spec.model_fields


def _found(
    check: Path, kind: type[Defense], model: Clip, preset: CleanPreset, settings: Mapping[str, Any]
) -> dict[str, Any]:
    """The setting that a check gives to a defense: as many targets as its setting `suspects` says, if it has that.

    Raises:
        RvptError: the defense has no such setting, it is given twice, or the check belongs to another model.
    """
    if not uses_targets(kind):
        able = ", ".join(name for name, each in DEFENSES.items() if uses_targets(each)) or "none"
        raise RvptError(f"{kind.name} does not use what a check found: remove check={check}, or choose from {able}")
    if TARGETS in settings:
        raise RvptError(f"{TARGETS} are given, and so is check={check}: give one of them")
    asked = kind.settings(preset, model, **settings).model_dump()
    return {TARGETS: tuple(suspected_targets(check, model, asked.get("suspects")))}


def _refuse_left_out(targets: Sequence[str], without: Sequence[str]) -> None:
    """Refuse classes that a check suspects if they are left out: nothing would be trained against them.

    Raises:
        RvptError: one is left out.
    """
    if left_out := [name for name in without if find_class(targets, name) is not None]:
        raise RvptError(
            f"the check suspects {', '.join(left_out)}, whose images are left out: remove without={left_out}"
        )


def _summary(cleaned: Cleaned, model: Clip, seen: dict[str, str]) -> dict[str, Any]:
    """What was done, for the user."""
    facts, whole = cleaned.facts, model.parameter_count(tokens=cleaned.own_weights)
    return {
        "defense": facts["defense"],
        "images": facts["images"],
        **seen,
        **({"trained against": ", ".join(targets)} if (targets := facts.get("resisted_targets")) else {}),
        "trained parameters": cleaned.trained_parameters,
        "share of parameters": f"{100 * cleaned.trained_parameters / whole:.2f}%",
        **{term: round(value, 4) for term, value in facts.get("history", [{}])[-1].items()},
        "seconds": round(facts["seconds"]),
    }


def _seen(draw: Mapping[str, Any], drawn: Dataset) -> dict[str, str]:
    """What was drawn: the classes, those with few images, and images that were left out."""
    seen = {} if "num_pairs" in draw else {"classes": _classes(drawn)}
    if "shots" in draw:
        seen |= _few(drawn, draw["shots"])
    if drawn.skipped:
        seen["left out"] = _left_out(drawn)
    return seen


def _classes(drawn: Dataset) -> str:
    """How many classes have images, and which have none."""
    if drawn.labels is None:
        return f"{len(drawn.classes)}, labels predicted by the suspect"
    seen, _ = drawn.present()
    unseen = [name for name in drawn.classes if name not in seen]
    return f"{len(seen)}" + (f", none of {', '.join(unseen[:5])}{', ...' if unseen[5:] else ''}" if unseen else "")


def _few(drawn: Dataset, shots: int) -> dict[str, str]:
    """The classes that have fewer images than asked for."""
    counts = drawn.labeled().bincount(minlength=len(drawn.classes)).tolist()
    few = [f"{name} ({n})" for name, n in zip(drawn.classes, counts, strict=True) if 0 < n < shots]
    return {f"fewer than {shots} images": ", ".join(few)} if few else {}


def _left_out(drawn: Dataset) -> str:
    """How many images could not be read, and which."""
    count = len(drawn.skipped)
    return f"{count} image{'s' if count > 1 else ''} that cannot be read: {'; '.join(drawn.skipped)}"
