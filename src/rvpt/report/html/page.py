"""One self-contained HTML file from evidence: a verdict in a sentence, then figures and tables, and the rows inside."""

from __future__ import annotations

import json
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from rvpt import __version__
from rvpt.errors import RvptError
from rvpt.report.costs import cost_lines
from rvpt.report.evidence import Evidence
from rvpt.report.groups import by_data
from rvpt.report.html.sections import SECTIONS
from rvpt.report.html.summary import effects, headline
from rvpt.report.names import spelled
from rvpt.report.style import styled
from rvpt.rows import Row

MOST_BYTES = 5 * 2**20


def page(evidence: Evidence, title: str) -> str:
    """The page of some evidence.

    Raises:
        RvptError: it would be larger than 5 MB, or something in the evidence is damaged.
    """
    with styled():
        sections = [section for make in SECTIONS if (section := make(evidence)).blocks]
    text = _template().render(
        title=title,
        headline=headline(evidence),
        numbers=_numbers(evidence.rows),
        sections=sections,
        rows=script_json(list(evidence.rows)),
        count=len(evidence.rows),
        sources=evidence.sources,
        version=__version__,
    )
    if len(text.encode()) > MOST_BYTES:
        raise RvptError(f"the report would have {len(text) / 2**20:.1f} MB, more than 5: give fewer rows or folders")
    return text


def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    parts = files("rvpt.report.html")
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for name in ("css", "js"):
        environment.globals[name] = parts.joinpath(f"page.{name}").read_text(encoding="utf-8")
    return environment.from_string(parts.joinpath("page.html").read_text(encoding="utf-8"))


def script_json(value: Any) -> str:
    """JSON that cannot end the <script> element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c")


def _numbers(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The numbers under the headline: what the best defense changed, and what it cost."""
    if not (found := effects(rows)):
        return []
    best = found[0]
    changes = {"Attack success rate": best.asr, "Accuracy on clean images": best.ca}
    numbers = [
        {"label": label, "before": f"{before:.1f}%", "after": f"{after:.1f}%"}
        for label, (before, after) in changes.items()
    ]
    for line in cost_lines(by_data(rows)[best.data]):
        if line.title == best.title:
            name = spelled(line.title)
            numbers.append({"label": f"Seconds of {name}", "before": "", "after": f"{line.seconds:.0f}"})
            numbers.append({"label": "Trained parameters", "before": "", "after": f"{line.trained:,}"})
    return numbers
