"""RVPT: deep visual prompts, trained with cross-entropy and a loss that repels features from those of the suspect."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run, refuse_missing_block
from rvpt.defenses.tuning import Terms, Tuning, TuningSpec
from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts, prompted_pass
from rvpt.training.loop import fit, frozen

COOP = {"augment": "crop-flip", "weight_decay": 5e-4}  # what CoOp's trainers do, which the paper builds on
SMALL = {"optimizer": "adamw", "weight_decay": 0.1, "first_block": 2, "prompt_length": 100, "epochs": 40}


class RVPTSpec(TuningSpec):
    """Settings of RVPT; the defaults are the paper's. alpha = 0 is plain VPT."""

    optimizer: Literal["adamw", "sgd"] = Field("sgd", description="how the weights are updated")
    lr: float = Field(2e-3, gt=0, description="learning rate")
    epochs: int = Field(50, ge=1, description="passes over the images")
    first_block: int = Field(3, ge=0, description="first prompted block D, counted from 0")
    depth: int | None = Field(None, ge=1, description="number of prompted blocks, instead of first_block")
    depth_from: Literal["output", "input"] = Field("output", description="side from which depth is counted")
    prompt_length: int = Field(50, ge=1, description="prompts per block b")
    alpha: float = Field(2.0, ge=0, description="weight of the feature-repelling loss")
    init_std: float = Field(0.02, gt=0, description="standard deviation of the initial prompts")

    @model_validator(mode="after")
    def _depth_is_given(self) -> RVPTSpec:
        if self.depth is None and self.depth_from == "input":
            raise ValueError("depth_from has no effect without depth: set depth too")
        return self

    def prompted(self, blocks: int) -> range:
        """The prompted blocks of a model with `blocks` blocks.

        D..L-1 by default; the last `depth` blocks, or with depth_from = "input" the first `depth`.

        Raises:
            RvptError: the model has fewer blocks.
        """
        if self.depth is None:
            refuse_missing_block(self.first_block, blocks)
            return range(self.first_block, blocks)
        if self.depth > blocks:
            raise RvptError(f"depth={self.depth} is too deep: the model has {blocks} blocks")
        return range(blocks - self.depth, blocks) if self.depth_from == "output" else range(self.depth)


class PromptTuning(Tuning):
    """Prompts in the blocks from D on.

    Source: Zhang et al. (arXiv 2412.20392), section 4, which has no further terms.
    """

    def __init__(self, clip: Clip, data: Dataset, spec: RVPTSpec, terms: Terms | None = None) -> None:
        blocks = spec.prompted(len(clip.blocks))
        super().__init__(clip, data, spec, blocks[0], terms)
        self.prompts = RepulsivePrompts(blocks, spec.prompt_length, clip.width, spec.init_std, spec.seed)
        self.prompts.to(clip.device)

    def encode(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        return prompted_pass(self.suspect.module, self.prompts, tokens)


class RVPT(Defense):
    """Repulsive Visual Prompt Tuning (Zhang et al., arXiv 2412.20392)."""

    name = "rvpt"
    summary = "deep visual prompts, by cross-entropy and the feature-repelling loss"
    Spec = RVPTSpec
    small = {**SMALL, "lr": 3e-2}
    coop = COOP

    @classmethod
    def refuse(cls, clip: Clip, data: Dataset, spec: Any) -> None:
        super().refuse(clip, data, spec)
        spec.prompted(len(clip.blocks))

    @classmethod
    def task(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> PromptTuning:
        """What is trained."""
        return PromptTuning(clip, data, spec)

    @classmethod
    def facts(cls, task: PromptTuning, data: Dataset) -> dict[str, Any]:
        """How the model was made, for its manifest."""
        return {"trained_parameters": task.prompts.parameter_count() + task.head_parameters()}

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        with frozen(clip):
            task = cls.task(clip, data, spec, run)
            history = fit(task, len(data), spec, checkpoint=run.checkpoint, report=run.report)
        facts = {"history": history, **cls.facts(task, data)}
        if cls is RVPT and not spec.alpha:
            facts["defense"] = "vpt"  # RVPT without repelling is VPT
        return Cleaned(clip, task.prompts.requires_grad_(False), task.head(), facts)
