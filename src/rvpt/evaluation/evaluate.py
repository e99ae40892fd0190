"""Measuring a model with a protocol, as rows."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from rvpt.data.dataset import Dataset
from rvpt.errors import RvptError
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.base import Encoder, Protocol, Triggers, to_rows
from rvpt.models.encode import refuse_name
from rvpt.progress import Report, shows_bar, silent
from rvpt.rows import Rows


def make_protocol(name: str, training: Dataset | None = None, **settings: Any) -> Protocol:
    """A protocol with its settings.

    Raises:
        RvptError: an unknown protocol, a setting that it does not have, or a value out of range.
    """
    kind = PROTOCOLS.find(name)
    if unknown := [setting for setting in settings if setting not in kind.Settings.model_fields]:
        known = ", ".join(kind.Settings.model_fields) or "none"
        raise RvptError(f"{unknown[0]}: protocol {name} has no such setting: choose from {known}")
    return kind(kind.Settings(**settings), training)


@shows_bar("evaluate")
def evaluate(
    model: Encoder,
    data: Dataset,
    triggers: Triggers | None = None,
    *,
    protocol: str | Protocol = "classification",
    training: Dataset | None = None,
    facts: Mapping[str, Any] | None = None,
    batch_size: int | None = None,
    report: Report = silent,
    **settings: Any,
) -> Rows:
    """Measure a model: a row for each attack and metric, with counts and the 95% Wilson interval.

    Args:
        model: a Clip or a Cleaned.
        data: images with labels or captions, as the protocol needs.
        triggers: by the name that rows give the attack; `rvpt.load_triggers` reads those of a backdoored model.
        protocol: a name (`rvpt protocols` lists them), or an object of `make_protocol`, to measure several models.
        training: images to train on, for protocols that do.
        facts: more entries of every row, such as `defense`, `seed` or `hashes`.
        batch_size: images per batch; by default the protocol's.
        report: called as report(images, total, {}) after each batch.
        settings: of the protocol, such as template="a sketch of a {}.".

    Raises:
        RvptError: an unknown protocol or setting, or data or a model that the protocol cannot measure.
    """
    refuse_name(model)
    asked = make_protocol(protocol, training, **settings) if isinstance(protocol, str) else protocol
    if not isinstance(data, Dataset):
        raise RvptError(f"data is a {type(data).__name__}: pass a Dataset, as rvpt.load_data returns it")
    if triggers is not None and not isinstance(triggers, Mapping):
        raise RvptError("triggers must be a mapping of names to triggers, as rvpt.load_triggers returns it")
    asked.check(data)
    triggers = renamed(triggers or {}, getattr(asked.settings, "target", None))
    size = batch_size or asked.batch_size
    count = partial(asked.measure, model, data, triggers, batch_size=size, report=report)
    told = {"template": getattr(asked.settings, "template", None)}
    return to_rows(model, data, count, {**told, **(facts or {})})


def renamed(triggers: Triggers, target: str | None) -> Triggers:
    """The triggers with their target renamed to `target`, its name in the data; unchanged if `target` is None.

    Raises:
        RvptError: they have several targets, or there are none.
    """
    if target is None:
        return triggers
    if len(targets := {trigger.spec.target for trigger in triggers.values()}) != 1:
        some = f"several ({', '.join(sorted(targets))})" if targets else "none"
        raise RvptError(f"target={target} renames the triggers' one target, but they have {some}")
    return {name: trigger.towards(target) for name, trigger in triggers.items()}
