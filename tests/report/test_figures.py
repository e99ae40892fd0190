"""Figures: accuracy against ASR, guesses of models, and what triggers change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from results import joined, rows_of
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.report.cells import cells
from rvpt.report.figure import Panel, draw_guesses
from rvpt.report.figures import confusion, cost, effect
from rvpt.report.figures.cost import defense_costs
from rvpt.report.figures.cost import describe as describe_costs
from rvpt.report.figures.curves import draw_curves
from rvpt.report.figures.effect import marks
from rvpt.report.gallery import Look, draw_gallery
from rvpt.report.stored import Stored
from rvpt.report.style import looks, styled
from rvpt.report.tradeoff import draw_panel, draw_tradeoff


def test_each_attack_has_a_small_mark_and_each_defense_a_large_one_at_its_mean() -> None:
    runs = [rows_of(rate, defense=name, attack=attack) for name, attack, rate in (
        ("none", "a", 0.8), ("none", "b", 0.6), ("none", "c", 0.0), ("rvpt", "a", 0.1), ("rvpt", "b", 0.3),
    )]  # fmt: skip
    axes = Figure().subplots()
    draw_panel(axes, "d", cells(joined(*runs)))
    drawn = [[tuple(map(round, point)) for point in marks.get_offsets().tolist()] for marks in axes.collections]
    assert drawn == [[(90, 80), (90, 60), (90, 0)], [(90, 70)], [(90, 10), (90, 30)], [(90, 20)]]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["no defense", "RVPT"]
    assert axes.get_title() == "d: a small mark for each attack, large: means over 2 attacks"


def test_names_in_other_scripts_are_drawn_without_a_warning(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    with styled():
        figure = Figure()
        figure.suptitle("\u732b \u0915")
        figure.savefig(tmp_path / "plot.svg")
    assert not [str(each.message) for each in recwarn]


def test_the_tradeoff_of_one_attack_tells_of_no_means() -> None:
    axes = Figure().subplots()
    draw_panel(axes, "d", cells(rows_of(0.1)))
    assert "means" not in axes.get_title()


def size(path: Path) -> tuple[int, int]:
    with Image.open(path, formats=["PNG"]) as image:
        return image.size


def test_the_tradeoff_has_a_panel_for_each_data_set(tmp_path: Path) -> None:
    heights = []
    for sets in ("d", "de"):
        draw_tradeoff([{**row, "data": name} for name in sets for row in rows_of(0.2)], tmp_path / "t.png")
        heights.append(size(tmp_path / "t.png")[1])
    assert heights[1] == 2 * heights[0]
    with pytest.raises(RvptError, match="no run has both CA and ASR"):
        draw_tradeoff(rows_of(0.1)[1:], tmp_path / "other.png")


def test_many_defenses_have_different_colors() -> None:
    axes = Figure().subplots()
    runs = [rows_of(0.1, defense="rvpt", spec={"alpha": n}, shots=n) for n in range(14)]
    draw_panel(axes, "d", cells(joined(*runs)))
    assert len({tuple(marks.get_facecolor()[0]) for marks in axes.collections[::2]}) == 14


def test_the_gallery_has_a_line_for_each_trigger(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8, 3), dtype=np.float32)
    heights = []
    for count in (1, 2):
        draw_gallery(images, [Look(f"t{i}", images + 0.1, 20.0, 0.9) for i in range(count)], tmp_path / "g.png")
        heights.append(size(tmp_path / "g.png")[1])
    assert heights[1] > heights[0]


def test_guesses_are_drawn_for_each_image_and_look(tmp_path: Path) -> None:
    image = np.zeros((8, 8, 3), dtype=np.float32)
    guesses = {name: [("cat", 0.7), ("dog", 0.2), ("owl", 0.1)] for name in ("none", "rvpt")}
    panels = [Panel(look, "cat", "dog", image, guesses) for _ in range(2) for look in ("clean", "badnet")]
    draw_guesses(panels, tmp_path / "wide.png")
    draw_guesses(panels[:2], tmp_path / "narrow.png")
    (wide, high), (narrow, same) = size(tmp_path / "wide.png"), size(tmp_path / "narrow.png")
    assert (wide, high) == (2 * narrow, same)


def test_a_defense_looks_the_same_in_every_figure() -> None:
    every, some = looks(["none", *DEFENSES]), looks(["other", "rvpt", "probe", "rvpt, alpha=2"])
    assert some["rvpt"] == every["rvpt"]
    assert some["probe"] == every["probe"]
    assert len({each["color"] for each in some.values()}) == 4
    assert len({tuple(each.values()) for each in every.values()}) == len(every)


def test_costs_are_those_of_the_attacks_that_all_defenses_have() -> None:
    cost = {"clean_seconds": 10.0, "trained_parameters": 5, "peak_memory_bytes": 2**20}
    runs = [rows_of(rate, defense=name, attack=attack, **cost) for name, attack, rate in (
        ("vpt", "a", 0.8), ("vpt", "b", 0.6), ("rvpt", "a", 0.1),
    )]  # fmt: skip
    found = defense_costs(joined(*runs))
    assert [each[:4] for each in found] == [("vpt", pytest.approx(80), 90, 10), ("rvpt", pytest.approx(10), 90, 10)]
    assert {(each.trained, each.memory) for each in found} == {(5, 2**20)}
    assert "VPT: ASR 80.0%, accuracy 90.0%, 10 seconds, 5 trained parameters" in describe_costs(found)
    assert defense_costs(rows_of(0.1, defense="none")) == []


def test_marks_of_models_with_the_same_attack_are_apart() -> None:
    found = marks(joined(rows_of(0.1, model="one"), rows_of(0.3, model="two"), rows_of(0.5, attack="sig")))
    assert {name: round(line["rvpt"].rate) for name, line in found.items()} == {
        "accuracy on clean images": 90, "badnet, one": 10, "badnet, two": 30, "sig": 50,
    }  # fmt: skip


def test_names_in_legends_belong_to_their_lines_whatever_they_begin_with() -> None:
    names, values = ["_first", "second"], np.zeros((2, 1, 2), np.float32)
    (legend,) = draw_curves(values, values, values, names, ["badnet"], "PR", {}).legends
    style = {name: each["color"] for name, each in looks(names).items()}
    colors = [line.get_color() for line in legend.get_lines()]
    assert colors == [style[text.get_text()] for text in legend.get_texts()]
    assert "second" in [text.get_text() for text in legend.get_texts()]


def test_long_names_of_models_stay_above_their_matrices() -> None:
    counts = np.ones((2, 1, 2, 2), np.int64)
    facts = {"models": [f"cleaned {LONG}", LONG.replace(" ", "")], "looks": ["clean"], "classes": ["cat", "dog"]}
    with styled():
        figure = confusion.draw(Stored("confusion", {"counts": counts, "targets": np.zeros(0, np.int64)}, facts), {})
        figure.canvas.draw()
        first, second = (axes.title.get_window_extent() for axes in figure.axes)
    assert first.x1 < second.x0
    assert second.x1 <= figure.canvas.get_width_height()[0]


LONG = "unlearn, labels=given shots=16 epochs=6 batch_size=16 weight_decay=0.0123 forms=additive, patch, warp, grating"


@pytest.mark.parametrize("kind", ["effect", "cost", "curves"])
def test_a_legend_of_long_names_is_whole(kind: str) -> None:
    names, values = ["rvpt", LONG, f"{LONG} lr=1", "vpt"], np.zeros((4, 1, 2), np.float32)
    with styled():
        if kind == "effect":
            line = dict.fromkeys(names, effect.Mark(50, 40, 60, ""))
            figure = effect.draw({"accuracy on clean images": line, "badnet": line}, {})
        elif kind == "cost":
            figure = cost.draw([cost.Cost(name, 10.0, 90.0, 5.0, 7, None) for name in names], {})
        else:
            figure = draw_curves(values, values, values, names, ["badnet"], "PR", {})
        figure.canvas.draw()
        (legend,), (axes, *_) = figure.legends, figure.axes
        box, (width, height) = legend.get_window_extent(), figure.canvas.get_width_height()
    assert box.x0 >= 0 and box.y0 >= 0 and box.x1 <= width + 1 and box.y1 <= height + 1  # noqa: PT018
    assert axes.get_window_extent().height > 70  # points of the figure: the legend leaves room
