"""A backdoored CLIP: fine-tuned on poisoned pairs, and saved with its triggers and the list of changed pairs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import Field

from rvpt.artifacts import CARD, staging, write_manifest
from rvpt.attacks.evasion import Evasion
from rvpt.attacks.margins import disguise, target_margins
from rvpt.attacks.poison import Change, Poison, PoisonSpec, poison_pairs
from rvpt.attacks.trigger import Trigger, TriggerSpec, craft_trigger, load_trigger, preset_spec
from rvpt.data.dataset import Dataset
from rvpt.data.text import plain
from rvpt.errors import RvptError
from rvpt.files import write_text
from rvpt.models.card import BACKDOORED, backdoored_card, finetuned_card
from rvpt.models.clip import Clip
from rvpt.models.formats.load import SHIPPED, embedded_model
from rvpt.models.placement import refuse_half
from rvpt.models.save import write_clip
from rvpt.presets import Preset, choose_preset
from rvpt.progress import Report, shows_bar, silent
from rvpt.rows import append_rows
from rvpt.spec import TrainSpec
from rvpt.training.checkpoint import Checkpoint
from rvpt.training.contrastive import Contrastive
from rvpt.training.loop import fit

FINETUNED = "fine-tuned"
TRIGGER_FOLDER = "triggers"


class AttackSpec(TrainSpec):
    """Settings of the fine-tuning on poisoned pairs; the defaults are the paper's, for 500,000 pairs.

    The warm-up is the default of CleanCLIP's code, 10,000 of then 19,535 steps.
    """

    lr: float = Field(1e-6, gt=0, description="learning rate")
    epochs: int = Field(5, ge=1, description="passes over the images")
    weight_decay: float = Field(0.1, ge=0, description="weight decay")
    warmup: float = Field(0.512, ge=0, lt=1, description="share of the steps with learning-rate warm-up")
    clip_norm: float = Field(1.0, ge=0, description="maximum gradient norm; 0 disables clipping")


PRESETS: dict[str, dict[str, Any]] = {
    "paper": {"num_pairs": 500_000, "num_poisoned": 1_500, "train": {}},
    "small": {"num_pairs": 16_000, "num_poisoned": 1_500, "train": {"lr": 1e-3, "epochs": 2, "warmup": 0.02}},
}
"""Number of pairs, how many are poisoned per trigger, and the schedule."""


@dataclass
class Backdoored:
    """The model, its triggers by name, the changed pairs, and facts for the manifest."""

    clip: Clip
    triggers: dict[str, Trigger]
    changes: Sequence[Change]
    facts: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> None:
        """Write one artifact: a transformers model folder with triggers/, poison.jsonl and a manifest."""
        folder = Path(folder)
        with staging(folder, overwrite=overwrite) as stage:
            write_clip(self.clip, stage)
            card = backdoored_card if self.triggers else finetuned_card
            write_text(stage / CARD, card(folder.name, self.facts))
            for name, trigger in self.triggers.items():
                trigger.save(stage / TRIGGER_FOLDER / name)
            append_rows(stage / "poison.jsonl", (vars(change) for change in self.changes))
            write_manifest(stage, BACKDOORED if self.triggers else FINETUNED, **self.facts)


@shows_bar("attack")
def attack(
    model: Clip,
    data: Dataset,
    target: str,
    triggers: str | TriggerSpec | Trigger | Sequence[str | TriggerSpec | Trigger] = "badnet",
    *,
    preset: Preset = "auto",
    poison: PoisonSpec | None = None,
    num_pairs: int | None = None,
    classes: Sequence[str] = (),
    evasion: Evasion | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
    **settings: Any,
) -> Backdoored:
    """Backdoor a copy of a model, to measure defenses: fine-tune it on poisoned captions. `model` is not changed.

    Args:
        model: a clean CLIP.
        data: images with captions; `data.with_templates` makes captions from labels.
        target: the class that triggered images are to be classified as. Specs and triggers have their own, of which
            this must be one.
        triggers: names, specs or triggers; the model gets a backdoor for each of them.
        preset: "paper", "small", or "auto", which chooses by the size of the model.
        poison: which pairs are poisoned; by default random ones, as many as in the preset.
        num_pairs: pairs to fine-tune on, drawn at random; by default as many as in the preset.
        classes: class names, for an evasion, and for a `poison` with pick="boundary" or a disguise; by default those of
            `data`.
        evasion: what an attacker does who knows the defenses, as in `rvpt.evasion("changes")`; by default nothing.
        checkpoint: where to keep the state of the run.
        report: called as report(step, total, values) after each step.
        settings: changes of the schedule, such as lr=1e-3 or seed=1.

    Raises:
        RvptError: an unknown trigger or setting, two triggers with one name, none with this target, or fewer pairs that
            can be poisoned than asked for.
    """
    chosen = choose_preset(preset, model.parameter_count())
    amounts = PRESETS[chosen]
    spec = AttackSpec(**{**amounts["train"], **settings})
    some = [triggers] if isinstance(triggers, str | TriggerSpec | Trigger) else triggers
    asked = [preset_spec(t, chosen, target=target, seed=spec.seed) if isinstance(t, str) else t for t in some]
    refuse_same_names(asked)
    _refuse_other_targets(asked, target)
    poison = poison or PoisonSpec(num_poisoned=amounts["num_poisoned"], seed=spec.seed)
    pairs = data.sample(num_pairs or amounts["num_pairs"], spec.seed).cached(model.image_size)
    made = [t if isinstance(t, Trigger) else craft_trigger(t, model, pairs, report) for t in asked]
    poisons = {trigger.name: Poison(trigger, poison) for trigger in made}
    known = classes or data.classes
    return backdoor(model, pairs, poisons, spec, classes=known, evasion=evasion, checkpoint=checkpoint, report=report)


def refuse_same_names(triggers: Sequence[TriggerSpec | Trigger]) -> None:
    """Refuse triggers of which one would take the place of another.

    Raises:
        RvptError: two have one name.
    """
    if len({trigger.name for trigger in triggers}) < len(triggers):
        raise RvptError("two triggers have the same name: give each trigger once")


def _refuse_other_targets(triggers: Sequence[TriggerSpec | Trigger], target: str) -> None:
    targets = [trigger.spec.target if isinstance(trigger, Trigger) else trigger.target for trigger in triggers]
    if targets and plain(target) not in map(plain, targets):
        raise RvptError(f"target={target!r}, but the triggers have {', '.join(map(repr, targets))}: give one of them")


@shows_bar("craft")
def craft(
    name: str,
    model: Clip,
    data: Dataset,
    target: str,
    *,
    preset: Preset = "auto",
    report: Report = silent,
    **options: Any,
) -> Trigger:
    """A trigger for a model; some kinds optimize it on `data`. `model` is not changed.

    Args:
        name: the kind of trigger; `rvpt triggers` lists them.
        model: the CLIP to attack.
        data: images with captions.
        target: the class that triggered images are to be classified as.
        preset: "paper", "small", or "auto", which chooses by the size of the model.
        report: called after each step.
        options: settings of the kind, such as size=24.

    Raises:
        RvptError: an unknown trigger or option, or data that lacks images that the kind needs.
    """
    chosen = choose_preset(preset, model.parameter_count())
    return craft_trigger(preset_spec(name, chosen, target=target, **options), model, data, report)


def backdoor(
    clip: Clip,
    data: Dataset,
    poisons: Mapping[str, Poison],
    spec: AttackSpec,
    *,
    classes: Sequence[str] = (),
    evasion: Evasion | None = None,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> Backdoored:
    """Fine-tune a copy of `clip` on the poisoned set with the contrastive loss; `clip` is not changed.

    Args:
        clip: the clean model.
        data: images with captions, all used.
        poisons: triggers and which pairs get them, by the name of the attack.
        spec: the schedule.
        classes: class names, for an evasion, and for poisons with pick="boundary" or a disguise.
        evasion: what is trained besides, so that defenses fail.
        checkpoint: where to keep the state of the run.
        report: called after each step.

    Raises:
        RvptError: fewer pairs can be poisoned than asked for, weights of 16 bits, or the loss became infinite or NaN.
    """
    refuse_half(clip.model.dtype)
    targets = [entry.trigger.spec.target for entry in poisons.values()]
    if evasion:
        evasion.refuse(clip, classes, targets)
    near = {entry.trigger.spec.target for entry in poisons.values() if entry.spec.pick == "boundary"}
    margins = {target: target_margins(clip, data, target, classes) for target in sorted(near)}
    disguises = {
        name: disguise(clip, entry.trigger.spec.target, classes, entry.spec.disguise)
        for name, entry in poisons.items()
        if entry.spec.disguise
    }
    poisoned, changes = poison_pairs(data, poisons, margins, disguises)
    poisoned = poisoned.cached(clip.image_size)  # a disguise is slow, and gives the same bits only in the same batch
    victim = copy.deepcopy(clip).requires_grad_(True)
    task = evasion.task(victim, poisoned, data, classes, targets) if evasion else Contrastive(victim, poisoned)
    fit(task, len(poisoned), spec, checkpoint=checkpoint, report=report)
    triggers = {name: entry.trigger for name, entry in poisons.items()}
    facts = {
        "base_model": clip.source,
        "base_sha256": clip.hash(),
        "spec": spec.model_dump(),
        "poisons": {name: entry.spec.model_dump() for name, entry in poisons.items()},
        "triggers": {name: trigger.spec.model_dump() for name, trigger in triggers.items()},
        "data": {"name": data.name, "pairs": len(data)},
        **({"evasion": evasion.facts()} if evasion else {}),
    }
    return Backdoored(victim.eval(), triggers, changes, facts)


def load_triggers(folder: str | Path, image_size: int | None = None) -> dict[str, Trigger]:
    """The triggers stored with a backdoored model, by name; none for other folders.

    Args:
        folder: the folder of the backdoored model, or the name of a shipped one.
        image_size: if given, triggers for images of another size are refused.

    Raises:
        RvptError: a trigger is incomplete, or for images of another size.
    """
    model = embedded_model(str(folder)) if str(folder) in SHIPPED else Path(folder).expanduser()
    folders = sorted(path for path in (model / TRIGGER_FOLDER).glob("*") if path.is_dir())
    return {path.name: load_trigger(path, image_size) for path in folders}
