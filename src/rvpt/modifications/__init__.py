"""What happens to a cleaned model in use: each takes a model and returns a modified one. A new one is a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rvpt.registry import Registry

if TYPE_CHECKING:
    from rvpt.modifications.base import Modification

MODIFICATIONS: Registry[Modification] = Registry(
    "modification",
    {
        "finetune": "rvpt.modifications.finetune:FINETUNE",
        "lora": "rvpt.modifications.finetune:LORA",
        "int8": "rvpt.modifications.rounding:INT8",
        "fp16": "rvpt.modifications.rounding:FP16",
        "prune": "rvpt.modifications.prune:PRUNE",
        "average": "rvpt.modifications.average:AVERAGE",
        "distill": "rvpt.modifications.distill:DISTILL",
    },
)
"""By name, in the order in which docs show them."""
