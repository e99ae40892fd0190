"""Figures as a whole job: saved models and images in, a folder with PNG, SVG and the arrays of each figure out."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from rvpt.artifacts import staging, write_manifest
from rvpt.attacks.trigger import Trigger
from rvpt.data.load import load_data
from rvpt.errors import RvptError
from rvpt.insight import FIGURES
from rvpt.insight.subjects import Subjects
from rvpt.jobs.measuring import find_triggers
from rvpt.jobs.output_dirs import refuse_source
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.models.clip import Clip
from rvpt.models.load import load
from rvpt.progress import Report, silent
from rvpt.report.figures import DRAWINGS
from rvpt.report.stored import Stored, write_stored
from rvpt.report.style import styled
from rvpt.spec import OnError

logger = logging.getLogger(__name__)
KIND = "figures"
LIMIT, PROBED = 500, 2_000  # images that are shown, and that probes are trained on


def figures_and_save(
    sources: Sequence[str],
    data: str,
    target: Path,
    names: Sequence[str] = (),
    *,
    triggers: Sequence[str] = (),
    split: str = "test",
    limit: int = LIMIT,
    shift: str | None = None,
    on_error: OnError = "stop",
    seed: int = 0,
    base: str | None = None,
    device: str | None = None,
    overwrite: bool = False,
    command: str = "",
    report: Report = silent,
) -> list[str]:
    """Make figures of saved models; returns the names of those that were made.

    Args:
        sources: models, as for `rvpt.load`, in the order in which figures show them.
        data: the images.
        target: the folder to write.
        names: of figures; by default all that these models and images have what they need for.
        triggers: trigger folders; by default those stored with the models.
        split: of the images.
        limit: use at most so many images.
        shift: change of style of the images.
        on_error: "skip" leaves out images that cannot be read.
        seed: of the images that are drawn, and of t-SNE.
        base: the base model of cleaned ones, if it is not found automatically.
        device: as in `rvpt.load`.
        overwrite: replace an artifact at `target`.
        command: what remakes the figures, for the report.
        report: called as the work goes on.

    Raises:
        RvptError: models of different geometry, or a figure lacks what it needs.
    """
    refuse_source(target, (*sources, data))
    with staging(target, overwrite=overwrite) as stage:
        models = _named(sources, base, device)
        shown: dict[str, Trigger] = {}
        for model in models.values():
            shown = shown or find_triggers(model, triggers)
        images, training = load_data(data, split, shift=shift, on_error=on_error).sample(limit, seed), None
        if images.attributes and "encoding" in (names or FIGURES):
            training = load_data(data, "train", shift=shift, on_error=on_error).sample(PROBED, seed)
        subjects = Subjects(models, images, shown, training, seed)
        made = write_figures(stage, subjects, names, command=command, report=report)
        write_manifest(stage, KIND, figures=made, seed=seed)
    return made


def write_figures(
    folder: Path, subjects: Subjects, names: Sequence[str] = (), *, command: str = "", report: Report = silent
) -> list[str]:
    """Write NAME.png, NAME.svg, NAME.safetensors and NAME.figure.json of each figure; returns the names.

    Without `names`, figures that lack something are left out.
    """
    folder.mkdir(exist_ok=True)
    made = []
    for name in names or FIGURES:
        make = FIGURES.find(name)
        try:
            found = make(subjects, report)
        except RvptError as error:
            if names:
                raise RvptError(f"figure {name}: {error}") from None
            logger.warning("figure %s is left out: %s", name, error)
            continue
        arrays = {key: value.numpy() for key, value in found.arrays.items()}
        told = {"command": f"{command} --figure {name}"} if command else {}
        _write(folder, Stored(name, arrays, {**found.facts, **told}))
        made.append(name)
    return made


def _write(folder: Path, stored: Stored) -> None:
    write_stored(folder, stored)
    with styled():
        figure = DRAWINGS[stored.name].draw(stored, {})
        figure.savefig(folder / f"{stored.name}.png", facecolor="white")
        figure.savefig(folder / f"{stored.name}.svg", metadata={"Date": None})


def _named(sources: Sequence[str], base: str | None, device: str | None) -> Mapping[str, Clip | Cleaned]:
    """The models by their names, the folders' if they are folders.

    Raises:
        RvptError: two models have the same name, or differ in geometry.
    """
    models = {}
    for source in sources:
        model = load(source, base=base, device=device)
        if model.name in models:
            raise RvptError(f"two models are called {model.name}: rename a folder")
        models[model.name] = model
    if len({(model.image_size, clip_of(model).depth) for model in models.values()}) > 1:
        raise RvptError("the models differ in image size or number of blocks: make figures of each alone")
    return models
