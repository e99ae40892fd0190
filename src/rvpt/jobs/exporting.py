"""Exporting as a whole job: a saved model in, a folder in another format out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpt.data.dataset import Dataset
from rvpt.data.load import load_data
from rvpt.data.splits import TRAIN
from rvpt.errors import RvptError
from rvpt.evaluation.heldout import HeldOut, Opened
from rvpt.exports import EXPORTS
from rvpt.exports.save import prepared, save
from rvpt.jobs.drawing import SHOTS
from rvpt.jobs.modifying import measure_modified
from rvpt.jobs.output_dirs import refuse_output
from rvpt.models.load import load
from rvpt.progress import Report, silent
from rvpt.rows import Rows, read_measurements

logger = logging.getLogger("rvpt")


def export_and_save(
    source: str,
    to: str,
    target: Path,
    *,
    base: str | None = None,
    results: Path | None = None,
    data: str | None = None,
    split: str | None = None,
    test_split: str | None = None,
    shots: int | None = None,
    device: str | None = None,
    overwrite: bool = False,
    report: Report = silent,
    settings: Mapping[str, Any] | None = None,
) -> tuple[dict[str, Any], Rows]:
    """Write a saved model in another format; one that is trained for the format is measured before it is written.

    Images without labels are enough to train on; then nothing is measured, unless `test_split` names labeled ones.

    Args:
        source: a model, as for `rvpt.load`.
        to: the format.
        target: the folder to write.
        base: the base model of a cleaned one, if it is not found automatically.
        results: a file with rows of the model, for the manifest and the model card.
        data: for formats that train a model, a data set with clean images to train and to measure on.
        split: to train on; "train" by default.
        test_split: to measure on, under the triggers that are stored with the suspect; "test" by default.
        shots: images to train on, per class (16 by default), or in all (by default all) where they have no labels.
        device: as in `rvpt.load`.
        overwrite: replace an artifact at `target`.
        report: called after each step.
        settings: of the training.

    Returns:
        The facts in the manifest, and the rows of what was trained.

    Raises:
        RvptError: the format cannot hold the model, or lacks `data`.
    """
    kind = EXPORTS.find(to)
    asked = {"data": data, "split": split, "test_split": test_split, "shots": shots}
    for name, value in {**asked, **(settings or {})}.items():
        if value is not None and not kind.trains:
            raise RvptError(f"{to} trains nothing: remove {name}={value}")
    if kind.trains and results:
        raise RvptError(f"{to} is measured while it is made: remove results={results}")
    refuse_output(target, [source, *([data] if data else [])], overwrite=overwrite)
    given = read_measurements(results) if results else []
    model = load(source, base=base, device=device)
    whole, test = _opened(data, split, test_split) if data else (None, None)  # before a long training

    def drawn(spec: Any) -> Dataset | None:
        return None if whole is None else _drawn(whole, shots, spec.seed)

    made, facts = prepared(kind, model, drawn, settings or {}, report)
    if test is None:
        return save(kind, made, target, facts, given, overwrite=overwrite), Rows()
    rows = measure_modified(made, model, to, test, report=report)
    return save(kind, made, target, facts, rows, overwrite=overwrite), rows


def _opened(data: str, split: str | None, test_split: str | None) -> tuple[Dataset, Opened | None]:
    """The images to train on, and those to measure on: none, with a warning, where there are no labels."""
    whole = load_data(data, split or TRAIN)
    if whole.labels is None and test_split is None:
        logger.warning("%s has no labels, so the result is not measured: run rvpt evaluate on labeled images", data)
        return whole, None
    return whole, HeldOut(data=data, split=test_split or "test").open()


def _drawn(whole: Dataset, shots: int | None, seed: int) -> Dataset:
    """The images to train on."""
    if whole.labels is None:
        return whole.sample(shots or len(whole), seed)
    return whole.few_shot(shots or SHOTS, seed)
