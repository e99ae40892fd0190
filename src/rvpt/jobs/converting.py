"""Any CLIP as a folder in transformers' layout, and what a source is."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from rvpt.artifacts import CARD, staging
from rvpt.attacks.backdoor import TRIGGER_FOLDER
from rvpt.files import sha256_file
from rvpt.jobs.output_dirs import refuse_output
from rvpt.models.card import BACKDOORED, ON_PURPOSE
from rvpt.models.cleaned import Cleaned
from rvpt.models.cleaned_config import find_config
from rvpt.models.formats.build import build
from rvpt.models.formats.info import describe_clip
from rvpt.models.formats.load import open_model
from rvpt.models.load import load
from rvpt.models.placement import find_dtype
from rvpt.models.save import write_artifact

logger = logging.getLogger("rvpt")


def convert(
    source: str,
    output_dir: Path,
    *,
    activation: str | None = None,
    precision: str = "fp32",
    revision: str | None = None,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a CLIP of any layout as a folder in transformers' layout, with a manifest that says what it was.

    Args:
        source: as in `rvpt.load`, but not a cleaned model.
        output_dir: the folder to write.
        activation: of the model, where its files do not state it.
        precision: of the weights that are written.
        revision: branch, tag or commit of a hub model.
        overwrite: replace what rvpt wrote there before.

    Returns:
        Layout, number of parameters, and the sha256 of the weights.

    Raises:
        RvptError: the source cannot be read, or the folder must not be replaced.
    """
    refuse_output(output_dir, [source], overwrite=overwrite)
    dtype = find_dtype(precision)
    opened = open_model(source, revision)
    clip = build(opened.parts, source, activation=activation)
    clip.model.to(dtype).float()
    digest = clip.hash()  # that of the weights as they are read again
    clip.model.to(dtype)
    facts: dict[str, Any] = {"sha256": digest, "source": opened.source, "revision": opened.revision}
    facts |= {BACKDOORED: True} if opened.backdoored else {}
    converted = {
        "layout": opened.parts.layout,
        "files": {path.name: sha256_file(path) for path in opened.parts.files},
        "activation": clip.activation,
    }
    with staging(output_dir, overwrite=overwrite) as stage:
        write_artifact(clip, stage, output_dir.resolve().name, **facts, converted=converted)
        if opened.backdoored:
            kept = (Path(source) / TRIGGER_FOLDER).is_dir()
            stay = f": its triggers stay there, in {TRIGGER_FOLDER}/" if kept else ""
            logger.warning(f"{source} is backdoored on purpose{stay}")
            with (stage / CARD).open("a", encoding="utf-8") as card:
                card.write(f"\n{ON_PURPOSE}\n")
    return {"layout": opened.parts.layout, "parameters": clip.parameter_count(tokens=True), "sha256": digest}


def inspect(source: str, *, activation: str | None = None, revision: str | None = None) -> dict[str, Any]:
    """What a model is: its layout, geometry, tokenizer, preprocessing, files and hashes.

    Raises:
        RvptError: the source cannot be read; the message says why.
    """
    if (cleaned := _cleaned(source, activation, revision)) is not None:
        return cleaned
    opened = open_model(source, revision)
    clip = build(opened.parts, source, activation=activation)
    return {"source": opened.source, "revision": opened.revision, **describe_clip(clip, opened.parts, source)}


def _cleaned(source: str, activation: str | None, revision: str | None) -> dict[str, Any] | None:
    """What a cleaned model is; None if the source is not one."""
    folder = Path(source).expanduser()
    if not folder.is_dir() or not find_config(folder):
        return None
    model = load(folder, device="cpu", activation=activation, revision=revision)
    assert isinstance(model, Cleaned)
    return {
        "source": str(folder.resolve()),
        "layout": "a model cleaned by rvpt",
        "defense": model.facts.get("defense"),
        "base model": model.facts.get("base_model", model.clip.source),
        "trained parameters": model.trained_parameters,
        "sha256 of the weights in float32": model.hash(),
        "pickled": False,
    }
