"""An attacker who knows `unlearn` and `rvpt check`: no universal change of an image acts like the trigger."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from rvpt.attacks.evasion import Evading, Evasion
from rvpt.data.dataset import Dataset
from rvpt.defenses.changes import ChangesSpec
from rvpt.defenses.suspects import named
from rvpt.defenses.terms import Resist
from rvpt.inversion import FORMS
from rvpt.inversion.spec import FormNames
from rvpt.models.clip import Clip

KNOWN = ChangesSpec()


class ChangeEvasion(Evasion):
    """Trains the model to resist universal changes towards the target, which move in every step, as `unlearn` does."""

    name = "changes"
    summary = "against unlearn: universal changes towards the target, as large as those of unlearn, lose their effect"
    forms: FormNames = Field(KNOWN.forms, description="forms of the changes")

    def task(
        self, victim: Clip, poisoned: Dataset, clean: Dataset, classes: Sequence[str], targets: Sequence[str]
    ) -> Evading:
        return ChangesResisted(victim, poisoned, clean, classes, targets, self)


class ChangesResisted(Evading):
    """Loss = InfoNCE + weight `resist` of clean images with universal changes towards the targets

    The budgets are those of `unlearn`.
    """

    def __init__(
        self, victim: Clip, poisoned: Dataset, clean: Dataset, classes: Sequence[str], targets: Sequence[str],
        settings: ChangeEvasion,
    ) -> None:  # fmt: skip
        super().__init__(victim, poisoned, clean, classes, settings)
        limits = KNOWN.inversion(seed=0)
        forms = [FORMS[name].of(limits, victim.image_size) for name in settings.forms]
        towards = named(classes, targets).to(victim.device)
        starts = [form.start(len(towards)).to(victim.device) for form in forms]
        self.resist = Resist(settings.weight, clean, victim, forms, towards, starts)

    def against(
        self, pixels: Tensor, text: Tensor, places: Tensor, indices: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        clean, *drawn = self.resist.inputs(indices, generator)
        shown, loss = self.resist.show(self.labels(clean), clean, *drawn)
        return {"resist": self.resist.weight * loss(self.class_logits(self.clip.encode_image(shown)))}
