"""From names of models and data to the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from rvpt.data.dataset import Dataset
from rvpt.data.load import load_data
from rvpt.data.preprocess import to_image
from rvpt.detection.monitor import Monitor
from rvpt.errors import RvptError
from rvpt.jobs.measuring import find_triggers
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.load import load
from rvpt.spec import OnError
from rvpt.web.compare import Comparison, enlarged
from rvpt.web.page import build

SAMPLES, FITTED = 8, 200  # images to choose from, and images for the monitor


def open_page(
    suspect: str,
    cleaned: str,
    data: str | None = None,
    *,
    split: str = "test",
    classes: Sequence[str] | None = None,
    triggers: Sequence[str] = (),
    report: Path | None = None,
    device: str | None = None,
    on_error: OnError = "stop",
) -> Any:
    """The page of two saved models, as a gradio Blocks.

    Args:
        suspect: the model before, as for `rvpt.load`.
        cleaned: the model after.
        data: images without triggers.
        split: of the images.
        classes: by default those of the images, or those that the model was cleaned with.
        triggers: trigger folders, by default those saved with the suspect.
        report: an HTML file to show.
        device: as in `rvpt.load`.
        on_error: "skip" leaves out images that cannot be read.

    Raises:
        RvptError: gradio is not installed, class names are not known, or a file cannot be read.
    """
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise RvptError("the page needs gradio: pip install 'rvpt[web]'") from None
    shown = _text(report) if report else None
    before, after = load(suspect, device=device), load(cleaned, device=device)
    images = load_data(data, split, on_error=on_error) if data else None
    names = list(classes or (images.classes if images else ()) or _cleaned_with(after))
    if not names:
        raise RvptError(f"{cleaned} does not say its class names: give them as classes=FILE")
    monitor = Monitor(before, after, names).fit(images.sample(FITTED)) if images else None
    comparison = Comparison(before, after, find_triggers(before, triggers), monitor)
    return build(comparison, names, _samples(images, before), shown)


def _cleaned_with(model: Clip | Cleaned) -> Sequence[str]:
    return model.facts.get("classes") or () if isinstance(model, Cleaned) else ()


def _samples(images: Dataset | None, model: Clip | Cleaned) -> list[Any]:
    if images is None:
        return []
    pixels = images.pixels(torch.arange(min(SAMPLES, len(images))), model.image_size)
    return [enlarged(to_image(each)) for each in pixels]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RvptError(f"{path} cannot be read: {error}") from None
