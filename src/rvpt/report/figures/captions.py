"""Nearest captions: `cosine` (M, 1 + T, c); the facts have the texts as `captions`, nested in the same way."""

from __future__ import annotations

from typing import Any

from rvpt.report.figures.base import Drawing
from rvpt.report.stored import Stored
from rvpt.report.style import INK, looks, new_figure

LONGEST = 46  # characters of a caption


def draw(stored: Stored, tips: dict[str, str]) -> Any:
    cosines, texts = stored.arrays["cosine"], stored.facts["captions"]
    models, names = stored.facts["models"], stored.facts["looks"]
    styles = looks(models)
    figure = new_figure(2.75 * len(names) + 0.3, 1.25 * len(models) + 0.2)
    grid = figure.subplots(len(models), len(names), sharex=True, squeeze=False)
    for number, line in enumerate(grid):
        for look, axes in enumerate(line):
            values = cosines[number, look]
            axes.barh(range(len(values)), values, color=styles[models[number]]["color"], alpha=0.28, height=0.86)
            for place, text in enumerate(texts[number][look]):
                axes.text(0.012, place, shortened(text), va="center", fontsize=6.5, color=INK)
            axes.invert_yaxis()
            axes.set_yticks([])
            axes.grid(visible=False)
            axes.spines["left"].set_visible(False)
            if number == 0:
                axes.set_title(names[look])
        line[0].set_ylabel(models[number], fontsize=8)
    for axes in grid[-1]:
        axes.set_xlabel("cosine")
    return figure


def shortened(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def describe(stored: Stored) -> str:
    told = [
        f"{model}, {name}: {shortened(str(stored.facts['captions'][number][look][0]))!r}"
        for number, model in enumerate(stored.facts["models"])
        for look, name in enumerate(stored.facts["looks"])
    ]
    return f"Bar charts of the captions nearest to the mean image feature. First of each: {'; '.join(told)}."


DRAWING = Drawing(
    "The nearest captions",
    "The captions whose text features are nearest to the mean feature of the images, clean and with each trigger.",
    draw,
    describe,
)
