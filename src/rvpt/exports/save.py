"""Exporting: a model is written, read back, compared with the model, and only then put in its place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from rvpt.artifacts import CARD, staging, write_manifest
from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.exports import EXPORTS
from rvpt.exports.base import TOLERANCE, Export, largest_difference, on_cpu, outputs_of, reference_inputs
from rvpt.exports.cards import export_card
from rvpt.files import write_text
from rvpt.models.card import BACKDOORED
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.encode import refuse_name
from rvpt.progress import Report, silent
from rvpt.rows import Row
from rvpt.tensors import sha256_tensors, write_tensors

KIND = "export"
REFERENCE, EXPECTED = "reference.safetensors", "expected."
COLUMNS = (
    "model", "data", "attack", "defense", "seed", "metric", "rate", "numerator", "n", "low", "high", "test",
    "clean_seconds", "trained_parameters",
)  # fmt: skip
"""Of rows in a manifest."""


def export(
    model: Clip | Cleaned,
    to: str,
    folder: str | Path,
    *,
    data: Dataset | None = None,
    rows: Sequence[Row] = (),
    overwrite: bool = False,
    report: Report = silent,
    **settings: Any,
) -> dict[str, Any]:
    """Write a model in another format, after checking that the files give the model's outputs.

    Args:
        model: a Clip or a Cleaned; it is not changed.
        to: the format; `rvpt export --help` lists them.
        folder: to write; whole or not at all.
        data: clean images, for formats that train a model ("distilled").
        rows: measurements; those of this model go into the manifest and the model card.
        overwrite: replace an artifact of rvpt.
        report: called after each step of a training.
        settings: of formats that train a model, such as epochs=20.

    Returns:
        The facts in the manifest.

    Raises:
        RvptError: an unknown format, or one that cannot hold the model; the message says why, and what to use instead.
        MachineError: the disk is full or not writable.
    """
    refuse_name(model)
    kind = EXPORTS.find(to)
    made, facts = prepared(kind, model, lambda spec: data, settings, report)
    return save(kind, made, folder, facts, rows, overwrite=overwrite)


def prepared(
    kind: Export,
    model: Clip | Cleaned,
    images: Callable[[Any], Dataset | None],
    settings: Mapping[str, Any],
    report: Report = silent,
) -> tuple[Clip | Cleaned, dict[str, Any]]:
    """The model to write, another one if the format trains it, and the facts about it for the manifest.

    `images` is called with all settings, and returns the clean images to train on if there are any.

    Raises:
        RvptError: the format cannot hold the model, does not have a setting, or lacks images.
    """
    kind.refuse(model)
    spec = kind.settings(model, **settings)
    made = kind.prepare(model, images(spec), spec, report)
    trained = {"spec": spec.model_dump(), "trained_sha256": made.hash()} if kind.trains else {}
    warned = {BACKDOORED: True} if isinstance(model, Clip) and model.backdoored else {}
    return made, {"model": model_facts(model), **warned, **trained}


def save(
    kind: Export,
    model: Clip | Cleaned,
    folder: str | Path,
    facts: dict[str, Any],
    rows: Sequence[Row] = (),
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a prepared model in one format, with a manifest that holds facts, and rows if they are of this model.

    Raises:
        RvptError: rows of other models, or files that do not give the model's outputs.
    """
    mine = [row for row in rows if row.get("hashes", {}).get("model") == model.hash()]
    if rows and not mine:
        raise RvptError(f"none of the {len(rows)} rows is of {model.name} (hashes.model differs): measure it first")
    copied = on_cpu(model)
    inputs = reference_inputs(clip_of(copied))
    expected = outputs_of(copied, inputs)
    with staging(Path(folder), overwrite=overwrite) as stage:
        written = kind.write(copied, stage)
        difference = largest_difference(kind.run(stage, inputs, clip_of(copied)), expected)
        if not difference <= TOLERANCE:
            raise RvptError(
                f"{model.name} as {kind.name} gives other outputs than the model (by {difference:.1e}): not written"
            )
        write_reference(stage / REFERENCE, inputs, expected)
        shown = [{name: row[name] for name in COLUMNS if name in row} for row in mine]
        told = {
            "format": kind.name, **facts, **written, "rows": shown,
            "largest_difference": difference,
            "libraries": {name: version(name) for name in kind.libraries},
        }  # fmt: skip
        write_text(stage / CARD, export_card(Path(folder).resolve().name, told, kind.card(told)))
        write_manifest(stage, KIND, **told)
    return told


def model_facts(model: Clip | Cleaned) -> dict[str, Any]:
    """What a model is: its base model with revision and hash, and the hash of the prompts and the head."""
    clip, facts = clip_of(model), model.facts if isinstance(model, Cleaned) else {}
    tensors = model.tensors() if isinstance(model, Cleaned) else {}
    return {
        "name": model.name,
        "defense": facts.get("defense"),
        "base_model": facts.get("base_model", clip.source),
        "base_revision": facts.get("base_revision", clip.revision),
        "base_activation": clip.asked_activation,
        "base_sha256": facts.get("base_sha256") or clip.hash(),
        "prompts_sha256": sha256_tensors(tensors) if tensors else None,
        "sha256": model.hash(),
    }


def write_reference(path: Path, inputs: dict[str, Tensor], outputs: dict[str, Tensor]) -> None:
    """Write inputs and the outputs that are expected for them."""
    write_tensors(path, {**inputs, **{f"{EXPECTED}{name}": value for name, value in outputs.items()}})


def split_reference(tensors: dict[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The inputs and the expected outputs in a file that `write_reference` wrote."""
    inputs = {name: value for name, value in tensors.items() if not name.startswith(EXPECTED)}
    return inputs, {name.removeprefix(EXPECTED): tensors[name] for name in tensors.keys() - inputs.keys()}
