"""An attacker who knows RVPT: the backdoor is trained while prompts of the attacker's own work against it."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor
from torch.nn import functional as F

from rvpt.attacks.evasion import Evading, Evasion
from rvpt.data.dataset import Dataset
from rvpt.defenses.base import refuse_missing_block
from rvpt.errors import RvptError
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts, frozen_pass, prompted_pass
from rvpt.training.loop import frozen
from rvpt.training.losses import feature_repelling
from rvpt.training.own_rate import OwnRate

SEED = 2412  # of the attacker's prompts: who cleans the model starts from others


class PromptEvasion(Evasion):
    """Trains the backdoor with and without prompts, which are trained as RVPT trains them, in the same steps."""

    name = "prompts"
    summary = (
        "against rvpt: the backdoor is trained with and without prompts of the attacker, which are trained as by rvpt"
    )
    alpha: float = Field(2.0, ge=0, description="weight of the feature-repelling loss of the prompts")
    prompt_length: int = Field(100, ge=1, description="prompts per block")
    first_block: int = Field(2, ge=0, description="first prompted block, counted from 0")
    rate: float = Field(30.0, gt=0, description="learning rate of the prompts, in learning rates of the model")

    def refuse(self, clip: Clip, classes: Sequence[str], targets: Sequence[str]) -> None:
        super().refuse(clip, classes, targets)
        try:
            blocks = clip.blocks
        except RvptError:
            raise RvptError("the evasion prompts needs a ViT CLIP: use the evasion changes") from None
        refuse_missing_block(self.first_block, len(blocks))

    def task(
        self, victim: Clip, poisoned: Dataset, clean: Dataset, classes: Sequence[str], targets: Sequence[str]
    ) -> Evading:
        return PromptsAtWork(victim, poisoned, clean, classes, self)


class PromptsAtWork(Evading):
    """Loss = InfoNCE + weight InfoNCE with prompts p + R(p)

    R(p) = CE(tau cos(image with p, text of each class)) + alpha FR on clean images, the loss of RVPT. The model is
    trained by the first two, with p fixed, and p by the last, with the model fixed, in one backward pass.
    """

    def __init__(
        self, victim: Clip, poisoned: Dataset, clean: Dataset, classes: Sequence[str], settings: PromptEvasion
    ) -> None:
        super().__init__(victim, poisoned, clean, classes, settings)
        self.alpha = settings.alpha
        blocks = range(settings.first_block, len(victim.blocks))
        self.prompts = RepulsivePrompts(blocks, settings.prompt_length, victim.width, seed=SEED).to(victim.device)
        self.prompts.table = OwnRate.of(self.prompts.table.detach(), settings.rate)

    def against(
        self, pixels: Tensor, text: Tensor, places: Tensor, indices: Tensor, generator: torch.Generator
    ) -> dict[str, Tensor]:
        with frozen(self.prompts):
            tokens = self.clip.run_blocks(self.clip.embed(pixels), stop=self.prompts.first_block)[0]
            image, _ = prompted_pass(self.clip, self.prompts, tokens)
            prompted = self.weight * self.paired(image, text, places)
        with frozen(self.clip):
            return {"prompted": prompted, "RVPT": self._cleaning(indices)}

    def _cleaning(self, indices: Tensor) -> Tensor:
        """The loss of RVPT on clean images."""
        pixels = self.clean.pixels(indices, self.clip.image_size).to(self.clip.device)
        tokens, rows = frozen_pass(self.clip, pixels, self.prompts.first_block)
        image, prompted_rows = prompted_pass(self.clip, self.prompts, tokens)
        own = F.cross_entropy(self.class_logits(image), self.labels(pixels))
        return own + self.alpha * feature_repelling(prompted_rows, rows)
