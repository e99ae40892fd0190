"""The paper's numbers for comparison: ViT-B/32, Zhang et al. (arXiv 2412.20392)."""

from __future__ import annotations

CALTECH101 = {  # table 2: (attack, defense) -> (CA, ASR), in percent
    ("badnet", "none"): (93.06, 91.38), ("blended", "none"): (93.41, 92.69),
    ("badnet", "probe"): (93.62, 1.22), ("blended", "probe"): (93.41, 12.82),
    ("badnet", "cleanclip"): (91.18, 36.87), ("blended", "cleanclip"): (90.77, 1.14),
    ("badnet", "rvpt"): (94.02, 0.00), ("blended", "rvpt"): (94.34, 0.00),
}  # fmt: skip
PAPER = {"caltech101": CALTECH101}


def paper_of(data: str) -> dict[tuple[str, str], tuple[float, float]]:
    """The paper's numbers on a data set, however its name is written; empty for others."""
    return PAPER.get("".join(filter(str.isalnum, data.lower())), {})


def beside(data: str, attack: str, defense: str) -> str:
    """The paper's "CA, ASR" of a data set, attack and defense; empty if it has none."""
    known = paper_of(data).get((attack, defense))
    return f"{known[0]:.1f}, {known[1]:.1f}" if known else ""
