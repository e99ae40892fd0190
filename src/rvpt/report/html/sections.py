"""The sections of a page, each made from the evidence; those without a block are left out."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from rvpt.errors import RvptError
from rvpt.report.cells import cells
from rvpt.report.evidence import Evidence
from rvpt.report.figures import DRAWINGS, cost, effect
from rvpt.report.groups import by_data
from rvpt.report.html.svg import inline_svg
from rvpt.report.html.tables import Cell, Table, cost_table, run_tables
from rvpt.report.inspections import HEADINGS, place, predicted, summary
from rvpt.report.names import guess
from rvpt.report.tradeoff import tradeoff_figure

WIDEST = 1600  # pixels of an image
MOST_DRAWN = 10  # defenses in a figure of rates
IMAGES = {
    "demo.png": ("Images and predictions", "Test images without and with triggers, and the most probable classes."),
    "check.png": ("The change that the check found", "Images, the same changed, and the change, amplified."),
}
RATES = (
    "CA: accuracy on clean images. PA: accuracy on triggered images. ASR: share of triggered images that are "
    "classified as the attack target, images of the target class left out. Point at a rate for n, interval and seeds."
)


@dataclass
class Block:
    """A part of a section: a figure (SVG, or an image as a data URI) with its caption, or a table."""

    title: str = ""
    svg: str = ""
    image: str = ""
    alt: str = ""
    caption: str = ""
    command: str = ""
    table: Table | None = None


@dataclass
class Section:
    """A heading, a text, and blocks."""

    title: str
    text: str = ""
    blocks: list[Block] = field(default_factory=list)


def drawn(kind: Any, found: Any, name: str, title: str, caption: str, command: str) -> Block:
    """A figure of what was found, by the functions `draw` and `describe` of a module or a `Drawing`."""
    alt, tips = kind.describe(found), dict[str, str]()
    svg = inline_svg(kind.draw(found, tips), name, alt, tips)
    return Block(title, svg=svg, alt=alt, caption=caption, command=command)


def rates(evidence: Evidence) -> Section:
    """Accuracy and attack success before and after, a figure for each data set."""
    section = Section("Before and after", "The lower the attack success and the higher the accuracy, the better.")
    for number, (data, rows) in enumerate(by_data(evidence.rows).items()):
        found = effect.marks(rows)
        if found and len({title for line in found.values() for title in line}) <= MOST_DRAWN:
            title = "Accuracy and attack success"
            caption = f"{data}. Whiskers are 95% Wilson intervals, or standard deviations over several measurements."
            section.blocks.append(drawn(effect, found, f"rates{number}", title, caption, page_command(evidence)))
    return section


def images(evidence: Evidence) -> Section:
    """Images that commands draw."""
    section = Section("Examples")
    for path in evidence.images:
        title, alt = IMAGES[path.name]
        section.blocks.append(Block(title, image=data_uri(path), alt=alt, caption=f"{path.parent.name}/{path.name}"))
    return section


def figures(evidence: Evidence) -> Section:
    """The stored figures, drawn again from their arrays."""
    section = Section("Inside the models", "What the models do with clean and with triggered images.")
    found = [(list(DRAWINGS).index(stored.name), stored) for stored in evidence.figures if DRAWINGS.find(stored.name)]
    for number, (_, stored) in enumerate(sorted(found, key=lambda pair: pair[0])):
        drawing, facts = DRAWINGS[stored.name], stored.facts
        with refusing_damage(f"the figure {stored.name}"):
            caption = f"{drawing.caption} {facts['n']} images of {facts['data']}, seed {facts['seed']}."
            command = str(facts.get("command", ""))
            section.blocks.append(drawn(drawing, stored, f"figure{number}", drawing.title, caption, command))
    return section


def costs(evidence: Evidence) -> Section:
    """Accuracy against attack success, and the cost of each defense."""
    section = Section("Score against cost")
    panels = {data: found for data, rows in by_data(evidence.rows).items() if (found := cells(rows)).lines}
    if any(len(found.titles) > 2 for found in panels.values()):
        alt = (
            "Scatter plot of accuracy against attack success, a mark for each defense and attack; all rates are below."
        )
        command = f"rvpt report {shlex.join(evidence.sources)} --plot tradeoff.png"
        svg = inline_svg(tradeoff_figure(panels), "tradeoff", alt)
        caption = "The best defenses are at the lower right."
        section.blocks.append(
            Block("Accuracy against attack success", svg=svg, alt=alt, caption=caption, command=command)
        )
    for number, (data, rows) in enumerate(by_data(evidence.rows).items()):
        scored = cost.defense_costs(rows)
        if 1 < len(scored) <= MOST_DRAWN and all(each.seconds and each.trained for each in scored):
            title = "Attack success against cost"
            caption = f"{data}, means over common attacks. The lower and the farther left, the better."
            section.blocks.append(drawn(cost, scored, f"cost{number}", title, caption, page_command(evidence)))
        if table := cost_table(data, rows):
            section.blocks.append(Block(table=table))
    return section


def page_command(evidence: Evidence) -> str:
    """The command that makes the page."""
    return f"rvpt report {shlex.join(evidence.sources)} --output report.html"


def tables(evidence: Evidence) -> Section:
    """All rates."""
    return Section("All rates", RATES, [Block(table=table) for table in run_tables(evidence.rows)])


def checks(evidence: Evidence) -> Section:
    """What checks found: the suspected targets."""
    from rvpt.detection.verdict import basis

    section = Section("Checks for backdoors", "Small changes of images that make the model predict a class.")
    for verdict in evidence.verdicts:
        with refusing_damage(f"verdict.json of {verdict['folder']}"):
            lines = [
                [Cell(str(row["class"])), Cell(f"{100 * row['share']:.0f}", row["share"]), Cell(str(row["form"]))]
                for row in verdict["targets"]
            ]
            why = basis(verdict)
            caption = f"{verdict.get('model', verdict['folder'])}: {verdict['verdict']} ({why})"
        section.blocks.append(Block(table=Table(caption, ["target", "images flipped, in %", "form"], 1, lines)))
    return section


def inspections(evidence: Evidence) -> Section:
    """What inspections flagged: the most suspicious images with their scores, as an image and as a table."""
    section = Section(
        "Inspected images", "Images on which the suspect and the cleaned model disagree may be triggered."
    )
    for facts in evidence.inspections:
        with refusing_damage(f"the inspection {facts['folder']}"):
            lines = [
                [
                    Cell(place(line)), Cell(guess(line, "suspect")), Cell(guess(line, "cleaned")),
                    Cell(f"{line['score']:.3f}", line["score"]), Cell(f"{line['p_value']:.4f}", line["p_value"]),
                ]
                for line in facts["found"]
            ]  # fmt: skip
            words = f"{facts['folder']}: {summary(facts)}"
            classes = f" The suspect predicts: {predicted(facts)}." if facts["predictions"] else ""
        if lines and facts["sheet"].is_file():
            alt = "The flagged images with the highest scores, and what both models predict for them."
            sheet = data_uri(facts["sheet"])
            section.blocks.append(Block("Flagged images", image=sheet, alt=alt, caption=f"{words}.{classes}"))
        section.blocks.append(Block(table=Table(words, HEADINGS, 3, lines)))
    return section


def cleanings(evidence: Evidence) -> Section:
    """How models were cleaned: data, cost, last losses and settings."""
    section = Section("How the models were cleaned")
    for facts in evidence.cleanings:
        with refusing_damage(f"manifest.json of {facts['folder']}"):
            last = (facts.get("history") or [{}])[-1]
            told = {
                "defense": facts.get("defense"), "data": facts.get("data", {}).get("name"),
                "images": facts.get("images"), "trained parameters": facts.get("trained_parameters"),
                "seconds": round(facts.get("seconds", 0.0), 1),
                **{f"{name} after the last epoch": round(value, 4) for name, value in last.items()},
                **facts.get("spec", {}),
            }  # fmt: skip
        lines = [[Cell(str(name)), Cell(str(value))] for name, value in told.items() if value is not None]
        section.blocks.append(Block(table=Table(str(facts["folder"]), ["setting", "value"], 2, lines)))
    return section


SECTIONS: tuple[Callable[[Evidence], Section], ...] = (
    rates,
    images,
    figures,
    costs,
    tables,
    checks,
    inspections,
    cleanings,
)
"""In the order of the page."""


def data_uri(path: Path) -> str:
    """An image as a data URI: decoded, made smaller and encoded as WebP, so that only pixels get into the page.

    Raises:
        RvptError: it is not a PNG image.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as image:
            shown = image.convert("RGB")
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise RvptError(f"{path} cannot be read as a PNG image: {error}") from None
    shown.thumbnail((WIDEST, 4 * WIDEST))
    out = BytesIO()
    shown.save(out, "WEBP", quality=88)
    return f"data:image/webp;base64,{base64.b64encode(out.getvalue()).decode()}"


@contextmanager
def refusing_damage(what: str) -> Iterator[None]:
    """Turn errors at files that were edited by hand into an RvptError."""
    try:
        yield
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise RvptError(f"{what} is damaged ({type(error).__name__}: {error}): make it again") from error
