"""Matplotlib figures as SVG inside a page: colors of the page's theme, texts as texts, tooltips on marks."""

from __future__ import annotations

import re
from io import StringIO
from typing import Any
from xml.sax.saxutils import quoteattr

from rvpt.report.style import INK, LINE, MUTED

THEMED = {INK: "var(--ink)", MUTED: "var(--muted)", LINE: "var(--line)", "#000000": "var(--ink)"}
SCALE = 1.5  # CSS pixels for a point of a figure
FONT = re.compile(r"font: (?:\w+ )?([\d.]+px) [^;\"<>]*")


def inline_svg(figure: Any, name: str, alt: str, tips: dict[str, str] | None = None) -> str:
    """A figure as an <svg> element with an alternative text; its identifiers begin with `name`."""
    out = StringIO()
    figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    for color, variable in THEMED.items():
        text = re.sub(re.escape(color), variable, text, flags=re.IGNORECASE)
    text = FONT.sub(r"font: \1 var(--font)", text)
    text = re.sub(r'(id="|href="#|url\(#)', rf"\g<1>{name}-", text)
    for gid, words in (tips or {}).items():
        text = text.replace(f'<g id="{name}-{gid}">', f'<g class="mark" data-tip={quoteattr(words)}>')
    label = f'role="img" aria-label={quoteattr(alt)}'
    width, height = (72 * side for side in figure.get_size_inches())
    head = f'<svg viewBox="0 0 {width:g} {height:g}" style="--natural: {SCALE * width:.0f}px" {label}>'
    return head + text[text.index(">") + 1 :].strip()
