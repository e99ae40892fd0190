"""Protocols: what can be measured of a model, on which data, with which settings. A new one goes into PROTOCOLS."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from rvpt.adversarial import resist
from rvpt.attacks.trigger import Trigger
from rvpt.captioning import PROMPT, describe, load_captioner
from rvpt.clip import Clip
from rvpt.config import TEMPLATE, Spec, Template
from rvpt.data import ImageData
from rvpt.defenses import Cleaned
from rvpt.errors import RvptError
from rvpt.evaluation import Counts, measure, to_rows
from rvpt.insight import PROBED, readability, resistivity
from rvpt.jobs.sources import labeled_data
from rvpt.progress import Report, silent
from rvpt.readers import CAPTION_COLUMNS, load_data
from rvpt.retrieval import retrieve
from rvpt.shifts import find_shift, shifted
from rvpt.store import unnamed

Rows = list[dict[str, Any]]
Counting = Callable[[], Counts]
Triggers = Mapping[str, Trigger]


@dataclass(frozen=True)
class Protocol:
    """One way to measure a model.

    `read` refuses, before any work is done, a source that lacks what is measured on. `prepare` takes the model, the
    data, their HeldOut and the triggers, if it `shows_triggers`; what it returns counts, and rows tell how long that
    took. `options` are the settings of a HeldOut that not every protocol has. `by_class`: a model that knows its
    classes alone, and no texts, can be measured too.
    """

    read: Callable[[str, str], ImageData]
    prepare: Callable[..., Counting]
    options: tuple[str, ...] = ()
    by_class: bool = False
    shows_triggers: bool = True
    batch_size: int = 256


def _captioned(source: str, split: str) -> ImageData:
    data = load_data(source, split)
    if data.captions_of is None:
        raise RvptError(f"{source} has no captions, which retrieval needs: a column {' or '.join(CAPTION_COLUMNS)}")
    return data


def _named(source: str, split: str) -> ImageData:
    data = load_data(source, split)
    if data.captions_of is None:
        data.labeled()
    return data


def _attributed(source: str, split: str) -> ImageData:
    data = load_data(source, split)
    if not data.attributes:
        raise RvptError(f"{source} has no attributes, which readability needs: scenes has, photographs do not")
    return data


def _classify(model: Clip | Cleaned, data: ImageData, test: HeldOut, triggers: Triggers, **shared: Any) -> Counting:
    return partial(measure, model, data, triggers, template=test.template, **shared)


def _retrieve(model: Clip | Cleaned, data: ImageData, test: HeldOut, triggers: Triggers, **shared: Any) -> Counting:
    return partial(retrieve, model, data, triggers, **shared)


def _caption(model: Clip | Cleaned, data: ImageData, test: HeldOut, triggers: Triggers, **shared: Any) -> Counting:
    assert test.captioner is not None
    return partial(describe, model, data, load_captioner(test.captioner, test.prompt), triggers, **shared)


def _resist(model: Clip | Cleaned, data: ImageData, test: HeldOut, triggers: Triggers, **shared: Any) -> Counting:
    return partial(resist, model, data, epsilon=test.epsilon, template=test.template, **shared)


def _read_off(model: Clip | Cleaned, data: ImageData, test: HeldOut, triggers: Triggers, **shared: Any) -> Counting:
    return partial(readability, model, data, load_data(test.data, "train").sample(PROBED), **shared)


def _move(model: Clip | Cleaned, data: ImageData, test: HeldOut, triggers: Triggers, **shared: Any) -> Counting:
    return partial(resistivity, model, data, triggers, **shared)


PROTOCOLS = {
    "classification": Protocol(labeled_data, _classify, ("target", "template"), by_class=True),
    "retrieval": Protocol(_captioned, _retrieve, ("target",)),
    # a LLaVA's keys and values take half a GiB a image
    "captioning": Protocol(_named, _caption, ("target", "captioner", "prompt"), batch_size=8),
    "adversarial": Protocol(labeled_data, _resist, ("template", "epsilon"), by_class=True, shows_triggers=False),
    "readability": Protocol(_attributed, _read_off, by_class=True, shows_triggers=False),
    "resistivity": Protocol(load_data, _move, by_class=True),
}


class HeldOut(Spec):
    """A set to measure on, and how; `target` is the target class's name there, where it differs.

    Classification and the adversarial protocol need labels, retrieval captions, captioning one of them and a
    `captioner`, a LLaVA, which is asked by `prompt`; readability needs attributes beside the class, as `scenes` has;
    resistivity needs triggers. `epsilon` is the largest adversarial change, in 255ths.

    With `only`, images of these classes alone are measured; they may still be taken for any class. With `limit`, so
    many of them at random, the same for every model. With `shift`, all are seen through a change of style.
    """

    data: str
    split: str = "test"
    target: str | None = None
    template: Template = TEMPLATE
    only: list[str] = Field([])
    limit: int | None = Field(None, ge=1)
    shift: str | None = None
    protocol: str = "classification"
    captioner: str | None = None
    prompt: str = PROMPT
    epsilon: float = Field(2.0, gt=0, le=255)
    batch_size: int | None = Field(None, ge=1)

    @field_validator("protocol")
    @classmethod
    def _protocol_is_known(cls, protocol: str) -> str:
        if protocol not in PROTOCOLS:
            raise RvptError(f"no protocol {protocol!r}: there are {', '.join(PROTOCOLS)}")
        return protocol

    @field_validator("shift")
    @classmethod
    def _shift_is_known(cls, shift: str | None) -> str | None:
        if shift is not None:
            find_shift(shift)
        return shift

    @model_validator(mode="after")
    def _options_fit(self) -> HeldOut:
        own = {option for protocol in PROTOCOLS.values() for option in protocol.options}
        for option in self.model_dump(exclude_defaults=True):
            if option in own - {*self.how.options}:
                raise ValueError(f"{option}: the protocol {self.protocol} has no use for it: leave it out")
        if self.protocol == "readability" and self.split == "train":
            raise ValueError("split: readability learns on train: measure another")
        if self.protocol == "captioning" and self.captioner is None:
            raise ValueError("captioning needs a captioner: --captioner, a LLaVA's folder or hub id")
        return self

    @property
    def how(self) -> Protocol:
        return PROTOCOLS[self.protocol]

    @property
    def title(self) -> str:
        """The set's name and what is asked of it, in a few words."""
        asked = [f"only {', '.join(self.only)}" if self.only else None, self.shift]
        asked += [self.protocol] if self.protocol != "classification" else []
        return " ".join([Path(unnamed(self.data)).name, *(f"({words})" for words in asked if words)])

    def facts(self) -> dict[str, Any]:
        """What rows tell of how they were measured, where it is not as usual; the rest they tell by columns."""
        told = self.model_dump(
            exclude_defaults=True, exclude={"data", "target", "template", "only", "shift", "batch_size"}
        )
        return told | ({"captioner": Path(self.captioner).name} if self.captioner else {})

    def load(self) -> ImageData:
        """The images to measure on.

        Raises:
            RvptError: they are not there, have no labels or captions, or none of a class that is asked for.
        """
        data = self.how.read(self.data, self.split)
        data = data.only(self.only) if self.only else data
        data = data.sample(self.limit) if self.limit else data
        return shifted(data, self.shift) if self.shift else data

    def measure(
        self, model: Clip | Cleaned, triggers: Triggers, facts: Mapping[str, Any], report: Report = silent
    ) -> Rows:
        """Rows of a model under the triggers; `facts` are more entries of every row."""
        size, data = self.batch_size or self.how.batch_size, self.load()
        count = self.how.prepare(model, data, self, triggers, batch_size=size, report=report)
        asked = {"template": self.template} if "template" in self.how.options else {}
        return to_rows(model, data, count, {**asked, **facts})
