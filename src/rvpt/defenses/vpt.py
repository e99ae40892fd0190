"""Visual Prompt Tuning: the prompts of RVPT, with cross-entropy alone."""

from __future__ import annotations

from pydantic import Field

from rvpt.defenses.rvpt import RVPT, SMALL, RVPTSpec


class VPTSpec(RVPTSpec):
    """Settings of VPT: those of RVPT without repelling."""

    alpha: float = Field(0.0, ge=0, le=0, description="weight of the feature-repelling loss, always 0")


class VPT(RVPT):
    """Visual Prompt Tuning (Jia et al., ECCV 2022), deep prompts."""

    name = "vpt"
    summary = "deep visual prompts, by cross-entropy alone"
    Spec = VPTSpec
    small = {**SMALL, "lr": 1e-1}
