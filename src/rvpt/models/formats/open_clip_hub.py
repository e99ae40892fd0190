"""Models that open_clip knows by name and pretrained tag: "open_clip:ViT-B-32:laion2b_s34b_b79k"."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rvpt.data.hub import asking_hub
from rvpt.errors import RvptError, first_line
from rvpt.models.formats.base import Parts
from rvpt.models.formats.open_clip import from_model, parts
from rvpt.models.formats.preprocessing import from_open_clip
from rvpt.models.formats.weights import read_weights

PREFIX = "open_clip:"


class OpenClipName:
    """A model of open_clip's list, downloaded by open_clip; its weights are read as any other file."""

    def recognizes(self, source: str, path: Path) -> bool:
        return source.startswith(PREFIX)

    def open(self, source: str, path: Path) -> Parts:
        """The parts of a model of that name and tag.

        Raises:
            RvptError: as `Layout.open`, or open_clip is not installed.
        """
        model, _, tag = source.removeprefix(PREFIX).partition(":")
        library = _library()
        config, pretrained = library.get_model_config(model), library.get_pretrained_cfg(model, tag)
        if config is None or not pretrained:
            tags = library.list_pretrained_tags_by_model(model)
            raise RvptError(f"{source}: open_clip has no such model and tag; {_choices(model, tags)}")
        stated = from_model({**config, "quick_gelu": pretrained.get("quick_gelu", config.get("quick_gelu"))}, source)
        preprocessing = from_open_clip(pretrained, source, stated.preprocessing)
        try:
            with asking_hub():
                file = Path(library.download_pretrained(pretrained))
        except Exception as error:  # the hub's client raises many kinds
            raise RvptError(f"{source}: could not download its weights ({first_line(error)})") from None
        return parts("a model of open_clip's list", {file: read_weights(file, source)}, stated, preprocessing, None)


OPEN_CLIP_NAME = OpenClipName()


def _library() -> Any:
    try:
        import open_clip
    except ImportError:
        raise RvptError("models of open_clip's list need open_clip: pip install 'rvpt[open-clip]'") from None
    return open_clip


def _choices(model: str, tags: list[str]) -> str:
    return (
        f"tags of {model}: {', '.join(tags)}" if tags else "write open_clip:NAME:TAG, as in open_clip:ViT-B-32:openai"
    )
