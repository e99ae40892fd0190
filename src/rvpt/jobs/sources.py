"""What several jobs need: data by their names, and where a run keeps its state."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from rvpt.attacks.poison import PROXIES
from rvpt.captioning import PROMPT
from rvpt.checkpoint import Checkpoint
from rvpt.config import TEMPLATE, Spec, Template
from rvpt.data import ImageData, mix
from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.readers import CAPTION_COLUMNS, load_data
from rvpt.shifts import find_shift, shifted
from rvpt.store import refuse_existing


class HeldOut(Spec):
    """A set to measure on, and how; `target` is the target class's name there, where it differs.

    Classification and the adversarial protocol need labels, retrieval captions, captioning one of them and a
    `captioner`, a LLaVA, which is asked by `prompt`; readability needs attributes beside the class, as `scenes` has.
    `epsilon` is the largest adversarial change, in 255ths.

    With `only`, pictures of these classes alone are measured; they may still be taken for any class. With `limit`, so
    many of them at random, the same for every model. With `shift`, all are seen through a change of style.
    """

    data: str
    split: str = "test"
    target: str | None = None
    template: Template = TEMPLATE
    only: list[str] = Field([])
    limit: int | None = Field(None, ge=1)
    shift: str | None = None
    protocol: Literal["classification", "retrieval", "captioning", "adversarial", "readability"] = "classification"
    captioner: str | None = None
    prompt: str = PROMPT
    epsilon: float = Field(2.0, gt=0, le=255)
    batch_size: int | None = Field(None, ge=1)

    @field_validator("shift")
    @classmethod
    def _shift_is_known(cls, shift: str | None) -> str | None:
        if shift is not None:
            find_shift(shift)
        return shift

    @model_validator(mode="after")
    def _captioner_is_there(self) -> HeldOut:
        if (self.protocol == "captioning") != (self.captioner is not None):
            raise ValueError("captioning and a captioner (--captioner, a LLaVA's folder or hub id) go together")
        return self

    @property
    def title(self) -> str:
        """The set's name and what is asked of it, in a few words."""
        asked = [f"only {', '.join(self.only)}" if self.only else None, self.shift]
        asked += [self.protocol] if self.protocol != "classification" else []
        return " ".join([Path(self.data).name, *(f"({words})" for words in asked if words)])

    def facts(self) -> dict[str, Any]:
        """What rows tell of how they were measured, where it is not as usual; the rest they tell by columns."""
        told = self.model_dump(
            exclude_defaults=True, exclude={"data", "target", "template", "only", "shift", "batch_size"}
        )
        return told | ({"captioner": Path(self.captioner).name} if self.captioner else {})

    def load(self) -> ImageData:
        """The pictures to measure on.

        Raises:
            RvptError: they are not there, have no labels or captions, or none of a class that is asked for.
        """
        data = READERS[self.protocol](self.data, self.split)
        data = data.only(self.only) if self.only else data
        data = data.sample(self.limit) if self.limit else data
        return shifted(data, self.shift) if self.shift else data


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


def labelled_data(source: str, split: str) -> ImageData:
    """A data set to measure on; one without labels is refused before any work is done."""
    data = load_data(source, split)
    data.labelled()
    return data


def captioned_data(source: str, split: str) -> ImageData:
    """A data set to retrieve from; one without captions is refused before any work is done."""
    data = load_data(source, split)
    if data.captions_of is None:
        raise RvptError(f"{source} has no captions, which retrieval needs: a column {' or '.join(CAPTION_COLUMNS)}")
    return data


def named_data(source: str, split: str) -> ImageData:
    """A data set to be captioned; one with neither labels nor captions is refused before any work is done."""
    data = load_data(source, split)
    if data.captions_of is None:
        data.labelled()
    return data


def attributed_data(source: str, split: str) -> ImageData:
    """A data set whose attributes are read off features; one without is refused before any work is done."""
    data = load_data(source, split)
    if not data.attributes:
        raise RvptError(f"{source} has no attributes, which readability needs: scenes has, photographs do not")
    return data


READERS = {
    "classification": labelled_data,
    "adversarial": labelled_data,
    "retrieval": captioned_data,
    "captioning": named_data,
    "readability": attributed_data,
}
"""What each protocol measures on."""


def open_checkpoint(out: Path, key: dict[str, Any], *, resume: bool, force: bool) -> Checkpoint:
    """Where a run towards `out` keeps its state; refuses early what could not be written in the end."""
    refuse_existing(out, force=force)
    folder = out.parent / f"{out.name}.run"
    if force and not resume:
        shutil.rmtree(folder, ignore_errors=True)
    checkpoint = Checkpoint(folder, key, resume)
    checkpoint.check()
    return checkpoint


def drop(checkpoint: Checkpoint) -> None:
    shutil.rmtree(checkpoint.folder, ignore_errors=True)
