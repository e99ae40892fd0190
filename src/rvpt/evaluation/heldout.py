"""A held-out set and how to measure on it, for recipes and commands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field, model_validator

from rvpt.data.dataset import Dataset
from rvpt.data.identifiers import unnamed
from rvpt.data.load import load_data
from rvpt.data.shifts import ShiftName
from rvpt.errors import RvptError
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.base import Encoder, Protocol, Triggers
from rvpt.evaluation.evaluate import evaluate, make_protocol
from rvpt.progress import Report, silent
from rvpt.rows import Rows
from rvpt.spec import OnError, Spec

KEPT_BYTES = 2**28  # per set and image size
COLUMNS = ("target", "template")  # settings that rows have keys for


class HeldOut(Spec):
    """Which images to measure on, and with which protocol; other keys are settings of the protocol."""

    data: str = Field(description="the data set")
    split: str = Field("test", description="its split")
    only: list[str] = Field([], description="classes whose images are measured; any class may be predicted")
    limit: int | None = Field(None, ge=1, description="measure at most so many random images, the same for all models")
    shift: ShiftName | None = Field(None, description="change of style of all images")
    on_error: OnError = Field("stop", description="skip leaves out images that cannot be read, and rows count them")
    protocol: str = Field("classification", description="how to measure")
    batch_size: int | None = Field(None, ge=1, description="images per batch; by default the protocol's")
    settings: dict[str, Any] = Field({}, description="settings of the protocol")

    @model_validator(mode="before")
    @classmethod
    def _gather_settings(cls, values: dict[str, Any]) -> dict[str, Any]:
        if not isinstance(values, dict) or not isinstance(values.get("settings", {}), dict):
            return values
        own = {name: value for name, value in values.items() if name in cls.model_fields}
        others = {name: value for name, value in values.items() if name not in cls.model_fields}
        return {**own, "settings": {**own.get("settings", {}), **others}}

    @model_validator(mode="after")
    def _fits(self) -> HeldOut:
        make_protocol(self.protocol, **self.settings)
        if self.split == self.how.learns_on:
            raise RvptError(f"split: {self.protocol} trains on {self.split}: measure on another split")
        return self

    @property
    def how(self) -> type[Protocol]:
        """The protocol's class."""
        return PROTOCOLS.find(self.protocol)

    @property
    def title(self) -> str:
        """The set's name and how it is measured, in a few words."""
        asked = [f"only {', '.join(self.only)}" if self.only else None, self.shift]
        asked += [self.protocol] if self.protocol != "classification" else []
        asked += [f"{name}={value}" for name, value in self.settings.items()]
        return " ".join([Path(unnamed(self.data)).name, *(f"({words})" for words in asked if words)])

    def facts(self) -> dict[str, Any]:
        """The entry `test` of rows: settings that differ from the defaults and have no column of their own."""
        told = self.model_dump(
            exclude_defaults=True, exclude={"data", "only", "shift", "on_error", "batch_size", "settings"}
        )
        own = self.how.Settings(**self.settings).model_dump(exclude_defaults=True, exclude=set(COLUMNS))
        return told | own | ({"captioner": Path(own["captioner"]).name} if "captioner" in own else {})

    def open(self) -> Opened:
        """Read the data and prepare the protocol, once for all models.

        Raises:
            RvptError: the data are missing, lack what the protocol needs, or have no image of a class in `only`.
        """
        data, how = load_data(self.data, self.split, on_error=self.on_error, shift=self.shift), self.how
        how.check(data)
        data = data.only(self.only) if self.only else data
        data = data.sample(self.limit) if self.limit else data
        training = load_data(self.data, how.learns_on, on_error=self.on_error) if how.learns_on else None
        protocol = make_protocol(self.protocol, training, **self.settings)
        return Opened(self, data, protocol)


@dataclass(frozen=True)
class Opened:
    """An opened held-out set and its protocol; with `keep` its images stay in memory for the next model."""

    asked: HeldOut
    data: Dataset
    protocol: Protocol
    keep: bool = False
    _kept: dict[int, Dataset] = field(default_factory=dict, repr=False, compare=False)

    def measure(
        self, model: Encoder, triggers: Triggers, facts: Mapping[str, Any] | None = None, report: Report = silent
    ) -> Rows:
        """Rows of a model under the triggers; `facts` are more entries of every row."""
        skipped = {"skipped": len(self.data.skipped)} if self.data.skipped else {}
        shared = {"test": self.asked.facts() | skipped, **(facts or {})}
        return evaluate(
            model, self._sized(model.image_size), triggers, protocol=self.protocol, facts=shared,
            batch_size=self.asked.batch_size, report=report,
        )  # fmt: skip

    def _sized(self, size: int) -> Dataset:
        """The data, with images of one size in memory where they are kept."""
        if not self.keep or 3 * size * size * len(self.data) > KEPT_BYTES:
            return self.data
        if size not in self._kept:
            self._kept[size] = self.data.cached(size)
        return self._kept[size]
