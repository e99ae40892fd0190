"""Specs: the settings of a run, checked when they are created and stored with the result of the run."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_origin

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic.fields import FieldInfo

from rvpt.errors import RvptError

TEMPLATE = "a photo of a {}."
Precision = Literal["fp32", "bf16", "fp16"]
OnError = Literal["stop", "skip"]
"""At images that cannot be read: raise an error, or leave them out and list them."""
Augment = Literal["none", "crop-flip", "noise-erase"]
"""Random changes of training images."""
S = TypeVar("S", bound="Spec")


def check_template(template: str) -> str:
    """Return the template if it has a place for the class name.

    Raises:
        RvptError: it does not.
    """
    try:
        if "\0" in template.format("\0"):
            return template
    except (AttributeError, LookupError, ValueError):
        pass
    raise RvptError(f"{template!r} needs {{}} where the class name goes, and no other braces")


Template = Annotated[str, AfterValidator(check_template)]
"""A caption with a place for the class name, such as "a photo of a {}."."""


class Spec(BaseModel):
    """A frozen record that refuses unknown names and values out of range.

    Where several values are expected, a text with commas will do, such as "additive,patch".

    Raises:
        RvptError: an unknown name or a wrong value, named in the message.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    if not TYPE_CHECKING:  # type checkers see the fields as arguments instead

        def __init__(self, /, **values: Any) -> None:
            fields = type(self).model_fields
            try:
                super().__init__(**{name: _listed(fields.get(name), value) for name, value in values.items()})
            except ValidationError as error:
                raise RvptError(_message(error, type(self))) from None

    @classmethod
    def stored(cls: type[S], values: Any) -> S:
        """The spec stored in an artifact, which may have been edited by hand."""
        if not isinstance(values, dict):
            raise RvptError(f"the artifact's spec is not a record of names and values (it is {values!r}): recreate it")
        return cls(**values)


def _listed(field: FieldInfo | None, value: Any) -> Any:
    """The parts of a text with commas, for a field that takes several values."""
    if isinstance(value, str) and field is not None and get_origin(field.annotation) is tuple:
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


def _message(error: ValidationError, spec: type[Spec]) -> str:
    """The first of pydantic's errors as one line."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    cause = first.get("ctx", {}).get("error")
    if cause is not None:  # raised by one of rvpt's own checks
        return f"{name}: {cause}" if name else str(cause)
    if first["type"] == "extra_forbidden":
        known = ", ".join(spec.model_fields)
        return f"{name}: unknown setting: {f'choose from {known}' if known else 'there are none: remove it'}"
    if first["type"] == "missing":
        what = getattr(spec.model_fields.get(name), "description", None)
        return f"{name} is required{f' ({what})' if what else ''}: pass it as {name}=..."
    return f"{name}: {first['msg']} (got {first['input']!r})"


class TrainSpec(Spec):
    """Optimizer and schedule of a training run: linear warm-up, then a cosine from `lr` to zero."""

    optimizer: Literal["adamw", "sgd"] = Field("adamw", description="how the weights are updated")
    lr: float = Field(1e-3, gt=0, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of SGD")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    warmup: float = Field(0.0, ge=0, lt=1, description="share of the steps with learning-rate warm-up")
    epochs: int = Field(1, ge=1, description="passes over the images")
    batch_size: int = Field(128, ge=1, description="images per training step")
    clip_norm: float = Field(0.0, ge=0, description="maximum gradient norm; 0 disables clipping")
    precision: Precision = Field("fp32", description="arithmetic of the forward pass; weights stay fp32")
    seed: int = Field(0, ge=0, lt=2**63, description="random seed")

    def decayed(self, done: float) -> float:
        """The learning rate after a share in [0, 1) of the steps that follow the warm-up: lr (1 + cos(pi done)) / 2."""
        return self.lr * 0.5 * (1 + math.cos(math.pi * done))
