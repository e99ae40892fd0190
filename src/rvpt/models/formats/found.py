"""Which model there is among tensors: its family, and its weights by the names of the model that is made of them."""

from __future__ import annotations

import logging
import re
from typing import NamedTuple

from rvpt.errors import RvptError
from rvpt.models.formats.families import FAMILIES
from rvpt.models.formats.families.base import Family
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.weights import Stored, Weights

BUFFERS = re.compile(r"(.*\.position_ids|attn_mask|input_resolution|context_length|vocab_size|.*num_batches_tracked)")
"""Numbers that are stored with weights, and that follow from the geometry."""
SUPPORTED = "only ViT CLIPs, ResNet CLIPs and SigLIPs are"
ADAPTED, LONG = "lora_", "positional_embedding_res"
"""Parts of the names of weights that a CLIP has in addition to its own."""
OTHERS = {
    ADAPTED: "an adapter of PEFT, alone or not merged: merge it into its base model (merge_and_unload) and save that",
    "visual.trunk.": f"a CLIP whose image tower is one of timm's, which is not supported: {SUPPORTED}",
    LONG: f"a LongCLIP, whose text tower has two tables of positions, which is not supported: {SUPPORTED}",
}
logger = logging.getLogger("rvpt")


class Found(NamedTuple):
    """A model among tensors, and the names of the tensors beside it, such as an optimizer's."""

    family: Family
    weights: dict[str, Stored]
    beside: list[str]


def find_model(weights: Weights, name: str) -> Found:
    """The model in tensors of any layout.

    Prefixes are removed: "module.", "_orig_mod.", "state_dict.module.".

    Raises:
        RvptError: there is none that is supported, or there are several.
    """
    family, prefix, anchor = _anchor(weights, name)
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    beside = [key for key in weights if not key.startswith(prefix)]
    if prefix:  # expected in training checkpoints only
        logger.log(
            logging.INFO if prefix.startswith("state_dict.") else logging.WARNING,
            "%s: the prefix %s was removed from the names of its weights", name, prefix,
        )  # fmt: skip
    kept = {key: value for key, value in inside.items() if not BUFFERS.fullmatch(key)}
    return Found(family, family.renamed(kept, anchor), beside)


def _anchor(weights: Weights, name: str) -> tuple[Family, str, str]:
    """The family, what stands before all names, and the weight that shows both."""
    found = [
        (family, key.removesuffix(anchor), anchor)
        for key in weights
        for family in FAMILIES.values()
        for anchor in family.anchors
        if key == anchor or key.endswith(f".{anchor}")
    ]
    if len(found) > 1:
        places = ", ".join(prefix or "(no prefix)" for _, prefix, _ in found)
        raise RvptError(f"{name} holds {len(found)} CLIPs, at {places}: save the one you want alone")
    if found and not any(part in key for key in weights for part in (ADAPTED, LONG)):
        return found[0]
    for part, what in OTHERS.items():
        if any(part in key for key in weights):
            raise RvptError(f"{name} is {what}; {LISTED}")
    some = ", ".join(sorted(weights)[:3]) or "none"
    raise RvptError(f"{name} has no weights of a CLIP (it has {some}): {SUPPORTED}; {LISTED}")
