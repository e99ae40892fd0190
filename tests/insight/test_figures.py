"""Every figure: what it measures has the documented shapes, and can be stored, read and drawn."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import memory_data
from rvpt.attacks.backdoor import load_triggers
from rvpt.data.load import load_data
from rvpt.errors import RvptError
from rvpt.insight import FIGURES
from rvpt.insight.subjects import Arrays, Subjects
from rvpt.models.clip import Clip
from rvpt.models.load import load
from rvpt.progress import silent
from rvpt.report.figures import DRAWINGS
from rvpt.report.stored import FACTS, Stored, read_stored, write_stored
from rvpt.report.style import ATTACKED, styled
from tiny import Tiny

IMAGES, MODELS, LOOKS, BLOCKS, CLASSES, PATCHES, SIDE = 30, 2, 3, 4, 24, 36, 48
SHAPES: dict[str, dict[str, tuple[int | None, ...]]] = {
    "confusion": {"counts": (MODELS, LOOKS, CLASSES, CLASSES), "targets": (2,)},
    "failures": {
        "images": (None, SIDE, SIDE, 3), "trigger": (None,), "label": (None,), "failed": (2,), "others": (2,),
    },
    "captions": {"cosine": (MODELS, LOOKS, 5)},
    "tsne": {"positions": (MODELS, LOOKS, IMAGES, 2), "labels": (IMAGES,), "targets": (2,)},
    "resistivity": dict.fromkeys(("mean", "std"), (MODELS, 6, BLOCKS)),
    "attention": {"images": (6, SIDE, SIDE, 3), **dict.fromkeys(("cls", "rollout"), (MODELS, 6, None, None))},
    "prompts": dict.fromkeys(("mean", "std"), (MODELS, LOOKS, BLOCKS)),
    "encoding": {**dict.fromkeys(("rate", "low", "high"), (MODELS, 6, BLOCKS)), "chance": (6,)},
}  # fmt: skip


@pytest.fixture(scope="module")
def subjects(tiny: Tiny) -> Subjects:
    models = {"suspect": load(tiny.backdoored), "cleaned": load(tiny.cleaned)}
    triggers = load_triggers(tiny.backdoored)
    return Subjects(models, load_data(f"scenes:{IMAGES}", "test"), triggers, load_data("scenes:40", "train"))


@pytest.fixture(scope="module")
def measured(subjects: Subjects) -> Callable[[str], Arrays]:
    kept: dict[str, Arrays] = {}
    return lambda name: kept.setdefault(name, FIGURES[name](subjects, silent))


def stored_of(name: str, found: Arrays) -> Stored:
    return Stored(name, {key: value.numpy() for key, value in found.arrays.items()}, found.facts)


def test_every_figure_is_measured_and_drawn() -> None:
    assert list(FIGURES) == list(DRAWINGS) == list(SHAPES)


@pytest.mark.parametrize("name", FIGURES)
def test_arrays_have_the_documented_shapes(name: str, measured: Callable[[str], Arrays]) -> None:
    arrays, facts = measured(name)
    assert arrays.keys() == SHAPES[name].keys()
    for key, shape in SHAPES[name].items():
        assert len(arrays[key].shape) == len(shape)
        assert [
            (side, wanted) for side, wanted in zip(arrays[key].shape, shape, strict=True) if wanted not in (None, side)
        ] == []
        assert torch.isfinite(arrays[key].double()).all()
    assert facts["models"] == ["suspect", "cleaned"]
    assert facts["looks"] == ["clean", "badnet", "blended"]


@pytest.mark.parametrize("name", FIGURES)
def test_a_stored_figure_is_read_and_drawn(name: str, measured: Callable[[str], Arrays], tmp_path: Path) -> None:
    stored = stored_of(name, measured(name))
    write_stored(tmp_path, stored)
    again = read_stored(tmp_path / f"{name}{FACTS}")
    assert again.name == name
    assert all(np.array_equal(again.arrays[key], value) for key, value in stored.arrays.items())
    with styled():
        DRAWINGS[name].draw(again, {}).savefig(tmp_path / "figure.png", dpi=40)
    with Image.open(tmp_path / "figure.png") as image:
        assert min(image.size) > 50
    words = DRAWINGS[name].describe(again)
    assert words == DRAWINGS[name].describe(stored)
    assert words.endswith(".")
    assert len(words) > 40


def test_the_numbers_of_figures_agree_with_each_other(measured: Callable[[str], Arrays], subjects: Subjects) -> None:
    counts, targets = (measured("confusion").arrays[key] for key in ("counts", "targets"))
    assert (counts.sum((2, 3)) == IMAGES).all()
    failures = measured("failures").arrays
    for number, target in enumerate(targets.tolist()):
        last = counts[-1, 1 + number]
        assert failures["failed"][number] == last[:, target].sum() - last[target, target]
        assert failures["others"][number] == IMAGES - last[target].sum()
    assert (measured("prompts").arrays["mean"][0] == 0).all()
    assert (measured("prompts").arrays["mean"][1, :, 2:] > 0).all()


@pytest.mark.parametrize(("count", "named"), [(3, 3), (30, 30), (31, 1)])
def test_a_confusion_names_the_classes_where_they_fit_and_marks_the_target(count: int, named: int) -> None:
    classes = [f"a class with a long name and number {number}" for number in range(count)]  # shortened, they are alike
    facts = {"models": ["suspect", "cleaned"], "looks": ["clean", "badnet"], "classes": classes}
    arrays = {"counts": np.ones((2, 2, count, count), int), "targets": np.array([2])}
    with styled():
        figure = DRAWINGS["confusion"].draw(Stored("confusion", arrays, facts), {})
        last = figure.axes[-1].get_xticklabels()
    assert len(last) == named
    assert [label.get_color() for label in last].count(ATTACKED) == 1
    assert last[min(2, named - 1)].get_color() == ATTACKED


@pytest.mark.parametrize("name", ["confusion", "failures", "tsne"])
def test_some_figures_need_a_trigger(name: str, clip: Clip) -> None:
    alone = Subjects({"clip": clip}, memory_data(4, [0, 1, 0, 1], ("fox", "owl")), {})
    with pytest.raises(RvptError, match="no model has a trigger"):
        FIGURES[name](alone, silent)


def test_probes_need_images_to_train_on(clip: Clip) -> None:
    with pytest.raises(RvptError, match="encoding needs images to train probes on"):
        FIGURES["encoding"](Subjects({"clip": clip}, memory_data(4), {}), silent)


@pytest.mark.parametrize("damage", ["{}", "[]", '{"figure": "tsne"}'])
def test_a_damaged_figure_is_named(damage: str, tmp_path: Path) -> None:
    (tmp_path / "tsne.figure.json").write_text(damage)
    with pytest.raises(RvptError, match="missing or damaged"):
        read_stored(tmp_path / "tsne.figure.json")
