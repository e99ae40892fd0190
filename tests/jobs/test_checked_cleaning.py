"""Check, clean, check again: what is done after which verdict, and what an interrupted run repeats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from helpers import contents, image_folder
from rvpt.artifacts import read_manifest
from rvpt.attacks.inverted import Inverted
from rvpt.data.load import load_data
from rvpt.defenses import DEFENSES
from rvpt.defenses.rvpt import RVPT, RVPTSpec
from rvpt.detection.calibration import Calibration, geometry_of
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import Verdict, Word
from rvpt.errors import RvptError
from rvpt.evaluation.evaluate import evaluate
from rvpt.files import sha256_file
from rvpt.jobs.checked_cleaning import check_clean_check
from rvpt.jobs.cleaning import clean_and_save, plan
from rvpt.jobs.kept_accuracy import kept_accuracy
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.head import Head
from rvpt.models.load import load
from rvpt.progress import Report, silent
from tiny import CLEANING, Tiny

TARGETS = ("moon", "sun", "star", "cup")


def verdict(model: Any, word: Word) -> Verdict:
    targets = [{"class": name, "form": "additive", "rise": 0.1, "margin": 0.1, "share": 0.5} for name in TARGETS]
    facts = {"model": model.name, "model_sha256": model.hash(), "calibrated": True}
    return Verdict(word, 0.01, targets, [], {}, [], facts, Inverted.of(torch.zeros(3, 48, 48), TARGETS[0]))


@pytest.fixture
def words(monkeypatch: pytest.MonkeyPatch) -> list[Word]:
    """The verdicts of the next checks; a check takes one of them."""
    coming: list[Word] = ["backdoored", "clean"]

    def check(model: Any, *_: Any, **__: Any) -> Verdict:
        return verdict(model, coming.pop(0))

    monkeypatch.setattr("rvpt.jobs.checking.check", check)
    return coming


@pytest.fixture(scope="module")
def suspect(tiny: Tiny) -> Clip:
    return load_clip(tiny.backdoored)


class Bars:
    """Progress reports; the step called `stop` is interrupted after its first report."""

    def __init__(self, stop: str = "") -> None:
        self.titles, self.stop = list[str](), stop

    @contextmanager
    def __call__(self, title: str) -> Iterator[Report]:
        def interrupt(*_: Any) -> None:
            raise KeyboardInterrupt

        self.titles.append(title)
        yield interrupt if title == self.stop else silent


def run(
    suspect: Clip, target: Path, bars: Bars, defense: str = "rvpt", settings: Any = CLEANING, **options: Any
) -> dict[str, Any]:
    drawing = {"split": "train", "shots": 1}
    return check_clean_check(suspect, "scenes:500", target, defense, settings, bars, **drawing, **options)


def test_a_backdoored_model_is_cleaned_and_checked_again(
    suspect: Clip, tiny: Tiny, words: Sequence[Word], tmp_path: Path
) -> None:
    bars, out = Bars(), tmp_path / "out"
    found = run(suspect, out, bars)
    assert bars.titles == ["1/3 check", "2/3 clean", "3/3 check again"]
    assert (found["before"]["verdict"], found["after"]["verdict"]) == ("backdoored", "clean")
    assert found["cleaned"]["images"] == 24
    assert found["accuracy"] == json.loads((out / "accuracy.json").read_text())
    assert read_manifest(out, "checked cleaning")["model_sha256"] == suspect.hash()
    for part in ("check-before", "check-after"):
        assert read_manifest(out / part, "check")
    weights = "adapter_model.safetensors"
    assert sha256_file(out / "cleaned" / weights) == sha256_file(tiny.cleaned / weights)
    assert read_manifest(out / "check-after", "check")["model_sha256"] == load(out / "cleaned").hash()
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_both_checks_compare_with_the_reference(
    suspect: Clip, tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Any] = []
    trusted = load_clip(tiny.clip)

    def check(model: Any, *_: Any, **options: Any) -> Verdict:
        given.append(options["reference"])
        return verdict(model, "suspicious")

    monkeypatch.setattr("rvpt.jobs.checking.check", check)
    with pytest.raises(KeyboardInterrupt):
        run(suspect, tmp_path / "out", Bars("2/3 clean"), reference=trusted)
    with pytest.raises(RvptError, match="reference"):
        run(suspect, tmp_path / "out", Bars(), resume=True)
    run(suspect, tmp_path / "out", Bars(), reference=trusted, resume=True)
    assert given == [trusted, trusted]


def test_both_checks_have_the_settings_of_the_calibration(
    suspect: Clip, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[Any] = []

    def check(model: Any, data: Any, names: Any, *, calibration: Any, **options: Any) -> Verdict:
        given.append((options["budget"], calibration.settings["budget"]))
        return verdict(model, "suspicious")

    monkeypatch.setattr("rvpt.jobs.checking.check", check)
    names = load_data("scenes:500", "train").classes
    rises = {run: dict.fromkeys(names, 0.1) for run in ("short", "long")}
    spec = CheckSpec(budget=2.0, forms=("patch",))
    known = Calibration("", spec.model_dump(mode="json"), ["patch"], [], geometry_of(suspect), {"patch": [rises] * 4})
    known.write(tmp_path / "mine.json")
    run(suspect, tmp_path / "out", Bars(), calibration=tmp_path / "mine.json")
    assert given == [(2.0, 2.0)] * 2


def test_a_model_that_looks_clean_is_not_cleaned(suspect: Clip, words: list[Word], tmp_path: Path) -> None:
    words[:] = ["clean"]
    found = run(suspect, tmp_path / "out", bars := Bars())
    assert bars.titles == ["1/3 check"]
    assert (found["cleaned"], found["after"]) == (None, None)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"check-before", "manifest.json"}


@pytest.mark.parametrize(
    ("stop", "left"), [("2/3 clean", ["2/3 clean", "3/3 check again"]), ("", [])], ids=["cleaning", "nothing"]
)
def test_an_interrupted_run_continues_after_its_last_part(
    suspect: Clip, words: Sequence[Word], tmp_path: Path, stop: str, left: list[str]
) -> None:
    if stop:
        with pytest.raises(KeyboardInterrupt):
            run(suspect, tmp_path / "out", Bars(stop))
        assert [path.name for path in tmp_path.iterdir()] == ["out.run"]
        before = contents(tmp_path)
        with pytest.raises(RvptError, match=r"out\.run holds an interrupted run: pass resume=True"):
            run(suspect, tmp_path / "out", Bars())
        with pytest.raises(RvptError, match=r"other settings \(defense='vpt' now, rvpt before\)"):
            run(suspect, tmp_path / "out", Bars(), "vpt", resume=True)
        assert contents(tmp_path) == before
        found = run(suspect, tmp_path / "out", bars := Bars(), resume=True)
        assert bars.titles == left
        assert found["after"]["verdict"] == "clean"
    else:
        run(suspect, tmp_path / "out", Bars())
        with pytest.raises(RvptError, match="out already exists"):
            run(suspect, tmp_path / "out", Bars())


def test_a_cleaning_that_failed_is_repeated_with_other_settings_after_the_same_check(
    suspect: Clip, words: list[Word], tmp_path: Path
) -> None:
    with pytest.raises(RvptError, match="lower the learning rate"):
        run(suspect, tmp_path / "out", Bars(), settings={**CLEANING, "lr": 1e30})
    run(suspect, tmp_path / "out", bars := Bars(), resume=True)
    assert bars.titles == ["2/3 clean", "3/3 check again"]


def test_a_model_that_was_cleaned_with_other_settings_is_not_taken_for_the_result(
    suspect: Clip, words: list[Word], tmp_path: Path
) -> None:
    words.pop()
    with pytest.raises(IndexError):  # there is no verdict for the second check
        run(suspect, tmp_path / "out", Bars())
    with pytest.raises(RvptError, match=r"other settings \(lr=0.5 now, not given before\)"):
        run(suspect, tmp_path / "out", Bars(), settings={**CLEANING, "lr": 0.5}, resume=True)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"classes": ["sun", "moon", "star"]}, "rvpt learns from labels and takes no list of classes"),
        ({"num_pairs": 10}, "remove num_pairs=10"),
        ({"defense": "unlearn", "classes": ["sun", "moon"]}, "2 classes: a check compares at least three"),
    ],
)
def test_what_the_checks_or_cleaning_would_refuse_is_refused_at_once(
    suspect: Clip, tmp_path: Path, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RvptError, match=message):
        run(suspect, tmp_path / "out", bars := Bars(), settings={}, **options)
    assert bars.titles in ([], ["1/3 check"])
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    ("defense", "settings", "message"),
    [
        ("rvpt", {"first_block": 9}, "first_block=9 does not exist"),
        ("unlearn", {"first_block": 9}, "first_block=9 does not exist"),
        ("unlearn-prompts", {"depth": 9}, "depth=9 is too deep"),
        ("unlearn", {"targets": ("zebra",)}, "targets: 'zebra' is not a class"),
        ("finetune", {"alpha": 1.0, "first_block": 9}, "first_block=9 does not exist"),
    ],
)
def test_settings_that_fit_no_training_are_refused_before_the_first_check(
    suspect: Clip, tmp_path: Path, defense: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(RvptError, match=message):
        run(suspect, tmp_path / "out", bars := Bars(), defense, settings)
    assert (bars.titles, contents(tmp_path)) == ([], {})


class Targeted(RVPTSpec):
    """RVPT with settings that it ignores."""

    targets: tuple[str, ...] = ()
    suspects: int | None = None


class TargetedRVPT(RVPT):
    """RVPT that is told what a check suspects."""

    name = "targeted"
    Spec = Targeted


@pytest.fixture
def targeted() -> Iterator[str]:
    DEFENSES.register("targeted", TargetedRVPT)
    yield "targeted"
    DEFENSES.unregister("targeted")


def test_a_defense_that_uses_targets_gets_those_of_the_check(
    suspect: Clip, words: Sequence[Word], targeted: str, tmp_path: Path
) -> None:
    run(suspect, tmp_path / "out", Bars(), targeted)
    spec = read_manifest(tmp_path / "out" / "cleaned", "cleaned")["spec"]
    assert spec["targets"] == list(TARGETS[:3])


def test_given_targets_come_before_those_of_the_check(
    suspect: Clip, words: Sequence[Word], targeted: str, tmp_path: Path
) -> None:
    run(suspect, tmp_path / "out", Bars(), targeted, settings={**CLEANING, "targets": ("apple",)})
    assert read_manifest(tmp_path / "out" / "cleaned", "cleaned")["spec"]["targets"] == ["apple"]


@pytest.mark.parametrize(("suspects", "count"), [(None, 3), (2, 2), (4, 4)])
def test_targets_of_a_stored_check(
    suspects: int | None, count: int, suspect: Clip, tiny: Tiny, targeted: str, tmp_path: Path
) -> None:
    settings = {**CLEANING, "suspects": suspects, "epochs": 1}
    clean_and_save(suspect, "scenes:500", tmp_path / "out", targeted, settings, shots=1, check=tiny.check)
    found = json.loads((tiny.check / "verdict.json").read_text())["targets"]
    spec = read_manifest(tmp_path / "out", "cleaned")["spec"]
    assert spec["targets"] == [row["class"] for row in found][:count]


def test_what_cannot_use_a_check(suspect: Clip, tiny: Tiny, targeted: str, tmp_path: Path) -> None:
    out, clean = tmp_path / "out", {"shots": 1, "check": tiny.check}
    with pytest.raises(RvptError, match=r"rvpt does not use what a check found: .* choose from .*targeted"):
        clean_and_save(suspect, "scenes:500", out, "rvpt", CLEANING, **clean)
    with pytest.raises(RvptError, match="targets are given, and so is check="):
        clean_and_save(suspect, "scenes:500", out, targeted, {"targets": ("sun",)}, **clean)
    with pytest.raises(RvptError, match="is a check of another model than"):
        clean_and_save(load_clip(tiny.clip), "scenes:500", out, targeted, CLEANING, **clean)
    suspected = json.loads((tiny.check / "verdict.json").read_text())["targets"][0]["class"]
    with pytest.raises(RvptError, match=f"suspects {suspected}, whose images are left out: remove without="):
        clean_and_save(suspect, "scenes:500", out, targeted, CLEANING, without=[suspected], **clean)
    with pytest.raises(RvptError, match="is not an rvpt artifact"):
        clean_and_save(suspect, "scenes:500", out, targeted, CLEANING, shots=1, check=tmp_path)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(("every", "n"), [(False, 276), (True, 300)], ids=["some", "all"])
def test_what_cleaning_cost_is_measured_on_images_that_are_left(suspect: Clip, every: bool, n: int) -> None:
    shots = int(load_data("scenes:300", "train").labeled().bincount().max()) if every else 1
    todo = plan(suspect, "scenes:300", "rvpt", CLEANING, shots=shots)
    found = kept_accuracy(suspect, Cleaned(suspect), todo)
    assert (found["measure"], found["held_out"], found["n"]) == ("accuracy", not every, n)
    assert found["before"] == found["after"]
    measured = todo.drawn if every else todo.left
    row = next(row for row in evaluate(suspect, measured) if row["metric"] == "CA")
    assert found["before"] == row["rate"]


def test_without_labels_the_cost_is_the_agreement_with_the_suspect(suspect: Clip) -> None:
    todo = plan(suspect, "scenes:300", "unlearn", {}, shots=1, classes=["anchor", "star", "moon"])
    found = kept_accuracy(suspect, Cleaned(suspect), todo)
    assert found == {"measure": "agreement", "before": 1.0, "after": 1.0, "n": 297, "held_out": True}


def test_a_model_that_answers_one_class_has_the_accuracy_of_that(suspect: Clip) -> None:
    todo = plan(suspect, "scenes:300", "finetune", {}, shots=1)
    names = todo.drawn.present()[0]
    rows = torch.zeros(len(names), suspect.projection_dim + 1)
    rows[5, -1] = 1.0  # its bias
    found = kept_accuracy(suspect, Cleaned(suspect, head=Head(names, rows)), todo)
    share = (todo.left.labeled() == todo.left.class_index(names[5])).float().mean().item()
    assert found["after"] == pytest.approx(share)


def test_an_image_that_cannot_be_read_does_not_fail_a_model_that_is_cleaned(suspect: Clip, tmp_path: Path) -> None:
    todo = plan(suspect, str(image_folder(tmp_path / "set", "train", n=3)), "rvpt", CLEANING, shots=1)
    (tmp_path / "set" / "train" / str(todo.left.place(1))).write_bytes(b"<html>404</html>")
    assert kept_accuracy(suspect, Cleaned(suspect), todo)["n"] == 3


def test_after_training_on_pairs_all_classes_are_measured(suspect: Clip) -> None:
    todo = plan(suspect, "scenes:300", "contrastive", {}, num_pairs=1)
    found = kept_accuracy(suspect, Cleaned(suspect), todo)
    assert (found["measure"], found["n"]) == ("accuracy", 299)
