"""One self-contained HTML file from evidence: a verdict in a sentence, then figures and tables, and the rows inside."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import Any

from rvpt import __version__
from rvpt.errors import RvptError
from rvpt.report.cells import cells
from rvpt.report.evidence import Evidence
from rvpt.report.figures import DRAWINGS, effect
from rvpt.report.groups import by_data
from rvpt.report.html.summary import effects, headline
from rvpt.report.html.svg import inline_svg
from rvpt.report.html.tables import Cell, Table, cost_table, run_tables
from rvpt.report.markdown import spelled
from rvpt.report.style import styled
from rvpt.report.tradeoff import tradeoff_figure
from rvpt.rows import UNCLEANED, Row

MOST_BYTES = 5 * 2**20
LARGEST_IMAGE = 400_000  # bytes of an image that is embedded as it is
WIDEST = 1600  # pixels of one that is not
MOST_DRAWN = 10  # defenses in a figure of effects
TITLES = {
    "demo.png": ("Images and predictions", "Test images without and with triggers, and the most probable classes."),
    "check.png": ("The change that the check found", "Images, the same with the change that was found, and the change, amplified."),
}


@dataclass
class Block:
    """A part of a section: a figure (SVG, or an image as a data URI) or a table."""

    title: str = ""
    svg: str = ""
    image: str = ""
    alt: str = ""
    caption: str = ""
    command: str = ""
    table: Table | None = None


@dataclass
class Section:
    title: str
    text: str = ""
    blocks: list[Block] = field(default_factory=list)


def page(evidence: Evidence, title: str) -> str:
    """The page of some evidence.

    Raises:
        RvptError: it would be larger than 5 MB.
    """
    with styled():
        sections = [section for make in SECTIONS if (section := make(evidence)).blocks]
    text = _template().render(
        title=title,
        headline=headline(evidence.rows, evidence.verdicts, evidence.cleanings),
        numbers=_numbers(evidence.rows),
        sections=sections,
        rows=_script_json(list(evidence.rows)),
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
    environment.globals.update(
        {name: parts.joinpath(f"page.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    )
    return environment.from_string(parts.joinpath("page.html").read_text(encoding="utf-8"))


def _script_json(value: Any) -> str:
    """JSON that cannot end the <script> element that it stands in."""
    return json.dumps(value, separators=(",", ":")).replace("<", "\\u003c").replace("\u2028", "\\u2028")


def _numbers(rows: Sequence[Row]) -> list[dict[str, str]]:
    """The numbers under the headline: what the best defense changed, and what it cost."""
    if not (found := effects(rows)):
        return []
    best = found[0]
    return [
        {"label": "Attack success rate", "before": f"{best.asr[0]:.1f}%", "after": f"{best.asr[1]:.1f}%", "good": "low"},
        {"label": "Accuracy on clean images", "before": f"{best.ca[0]:.1f}%", "after": f"{best.ca[1]:.1f}%", "good": "high"},
        *_costs(rows, best.title),
    ]  # fmt: skip


def _costs(rows: Sequence[Row], title: str) -> list[dict[str, str]]:
    cost = {line[0].text: line for line in cost_table(rows).lines}.get(spelled(title))
    if cost is None:
        return []
    return [
        {"label": f"Seconds of {spelled(title)}", "before": "", "after": cost[3].text, "good": ""},
        {"label": "Trained parameters", "before": "", "after": cost[1].text, "good": ""},
    ]


def _effects(evidence: Evidence) -> Section:
    """Accuracy and attack success before and after."""
    section = Section("Before and after", "Rates of every model. The lower the attack success and the higher the accuracy, the better.")
    for number, (data, rows) in enumerate(by_data(evidence.rows).items()):
        found = effect.marks(rows)
        titles = {title for line in found.values() for title in line}
        if found and len(titles) <= MOST_DRAWN:
            tips: dict[str, str] = {}
            alt = effect.describe(found)
            svg = inline_svg(effect.draw(found, tips), f"effect{number}", alt, tips)
            caption = f"{data}. Whiskers are 95% Wilson intervals, or standard deviations over several seeds."
            section.blocks.append(Block("Accuracy and attack success", svg, alt=alt, caption=caption, command=_report(evidence)))
    return section


def _tables(evidence: Evidence) -> Section:
    text = "CA: accuracy on clean images. PA: accuracy on triggered images. ASR: share of triggered images that are classified as the attack target, images of the target class left out."
    return Section("All rates", text, [Block(table=table) for table in run_tables(evidence.rows)])


def _tradeoff(evidence: Evidence) -> Section:
    """Accuracy against attack success, and the cost of each defense."""
    section = Section("Score against cost")
    panels = {data: found for data, rows in by_data(evidence.rows).items() if (found := cells(rows)).lines}
    if any(len(found.titles) > 2 for found in panels.values()):
        alt = "Scatter plot of accuracy against attack success, a mark for each defense and attack. The numbers are in the table of all rates."
        svg = inline_svg(tradeoff_figure(panels), "tradeoff", alt)
        section.blocks.append(Block("Accuracy against attack success", svg, alt=alt, caption="The best defenses are at the lower right.",
                                    command=f"rvpt report {' '.join(evidence.sources)} --plot tradeoff.png"))
    if any(row["defense"] not in UNCLEANED for row in evidence.rows):
        section.blocks.append(Block(table=cost_table(evidence.rows)))
    return section


def _images(evidence: Evidence) -> Section:
    section = Section("Examples")
    for path in evidence.images:
        title, alt = TITLES[path.name]
        section.blocks.append(Block(title, image=_data_uri(path), alt=alt, caption=f"{path.parent.name}/{path.name}"))
    return section


def _data_uri(path: Path) -> str:
    """An image as a data URI, as WebP and no wider than `WIDEST`, so that nothing but pixels gets into the page.

    Raises:
        RvptError: it is not a PNG image.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            picture = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RvptError(f"{path} cannot be read as a PNG image: {error}") from None
    picture.thumbnail((WIDEST, 4 * WIDEST))
    out = BytesIO()
    picture.save(out, "WEBP", quality=88, method=4)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


def _figures(evidence: Evidence) -> Section:
    """The stored figures, drawn again from their arrays."""
    section = Section("Inside the models", "What the models do with clean and with triggered images.")
    for number, stored in enumerate(evidence.figures):
        drawing, tips = DRAWINGS.find(stored.name), dict[str, str]()
        alt = drawing.describe(stored)
        svg = inline_svg(drawing.draw(stored, tips), f"figure{number}", alt, tips)
        section.blocks.append(Block(drawing.title, svg, alt=alt, caption=drawing.caption, command=str(stored.facts.get("command", ""))))
    return section


def _checks(evidence: Evidence) -> Section:
    """What checks found: the suspected targets."""
    section = Section("Checks for backdoors", "Small changes of images that make the model predict a class.")
    for verdict in evidence.verdicts:
        lines = [[Cell(str(row["class"])), Cell(f"{100 * row['share']:.0f}", row["share"]), Cell(str(row["form"]))] for row in verdict["targets"]]
        caption = f"{verdict.get('model', verdict['folder'])}: {verdict['verdict']} (p = {verdict['p_value']:.2g})"
        section.blocks.append(Block(table=Table(caption, ["target", "images flipped, in %", "form"], 1, lines)))
    return section


def _cleanings(evidence: Evidence) -> Section:
    """How models were cleaned: settings and losses."""
    section = Section("How the models were cleaned")
    for facts in evidence.cleanings:
        told = {"defense": facts.get("defense"), "data": facts.get("data", {}).get("name"), "images": facts.get("images"),
                "trained parameters": facts.get("trained_parameters"), "seconds": round(facts.get("seconds", 0.0), 1)}
        last = facts.get("history", [{}])[-1]
        told |= {f"{name} after the last epoch": round(value, 4) for name, value in last.items()}
        told |= facts.get("spec", {})
        lines = [[Cell(str(name)), Cell(str(value))] for name, value in told.items() if value is not None]
        section.blocks.append(Block(table=Table(str(facts["folder"]), ["setting", "value"], 2, lines)))
    return section


def _report(evidence: Evidence) -> str:
    return f"rvpt report {' '.join(evidence.sources)} --output report.html"


SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
    _effects, _images, _figures, _tradeoff, _tables, _checks, _cleanings,
)  # fmt: skip
