"""Loading the model of a command that needs one as it was before it was cleaned."""

from __future__ import annotations

from rvpt.errors import RvptError
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.load import load


def load_suspect(source: str, device: str | None) -> Clip:
    """The CLIP in a folder or on the hub.

    Raises:
        RvptError: it was cleaned already, or whatever `rvpt.load` raises.
    """
    model = load(source, device=device)
    if isinstance(model, Cleaned):
        base = model.facts.get("base_model", model.clip.source)
        raise RvptError(f"{source} is a cleaned model: give the model that it was made from, {base}")
    return model
