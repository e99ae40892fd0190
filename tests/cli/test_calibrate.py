"""rvpt calibrate: clean models in, a calibration that checks of models like them use out."""

import json
import shutil
from contextlib import contextmanager

import pytest
import torch

from commands import has, refused, rvpt, works
from helpers import contents
from rvpt import progress
from rvpt.jobs import calibrating
from rvpt.models.formats.load import load_clip
from tiny import CHECKING

QUICK = ["--data", "scenes:40", *(word for name, value in CHECKING.items() for word in ("--set", f"{name}={value}"))]


@pytest.fixture(scope="module")
def clean(tiny, tmp_path_factory):
    """Four models that differ from a clean one by a little noise."""
    folder = tmp_path_factory.mktemp("clean")
    for seed in range(4):
        clip, generator = load_clip(tiny.clip), torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in clip.vision.parameters():
                weight += 0.01 * weight.std(correction=0) * torch.randn(weight.shape, generator=generator)
        clip.save_pretrained(folder / str(seed))
    return [str(folder / str(seed)) for seed in range(4)]


@contextmanager
def at_the_second_model(title):
    """In the place of `progress.bar`: an interruption when the second model is measured."""

    def report(done, total, values):
        if values["model"] == "1":
            raise KeyboardInterrupt

    yield report


def test_a_check_uses_it(tiny, clean, home):
    made = works("calibrate", *clean, "-o", "mine", *QUICK)
    hint = next(line for line in made.splitlines() if line.startswith("to use it: rvpt check SUSPECT "))
    assert {path.name for path in (home / "mine").iterdir()} == {"calibration.json", "manifest.json"}
    works("verify", "mine")
    shutil.copytree("mine", "changed")
    (home / "changed" / "calibration.json").write_text("[]")
    has(refused("check", tiny.clip, "-o", "found", *QUICK, "--calibration", "changed"), "was changed after it was")
    result = rvpt("check", tiny.backdoored, *hint.split()[6:])
    assert result.exit_code in (0, 3, 4)
    stored = json.loads((home / "found" / "verdict.json").read_text())
    assert stored["calibrated"]
    assert stored["calibration"] == "0, 1, 2, 3"


def test_an_interrupted_run_continues_after_its_last_model(clean, home, monkeypatch):
    whole = works("calibrate", *clean, "-o", "whole", *QUICK, "--json")
    with monkeypatch.context() as patch:
        patch.setattr(progress, "bar", at_the_second_model)
        assert rvpt("calibrate", *clean, "-o", "mine", *QUICK).exit_code == 130
    assert len(list((home / "mine.run").rglob("kept/*.json"))) == 1
    has(refused("calibrate", *clean, "-o", "mine", *QUICK[2:], "--data", "scenes:50", "--resume"), "other settings")
    works("calibrate", *clean, "-o", "mine", *QUICK, "--resume")
    assert json.loads(whole)["models"] == 4
    assert (home / "mine" / "calibration.json").read_bytes() == (home / "whole" / "calibration.json").read_bytes()


def test_after_a_model_that_cannot_be_measured_another_takes_its_place(clean, home, monkeypatch):
    broken, other = load_clip(clean[3]), load_clip(clean[3])
    with torch.no_grad():
        broken.model.logit_scale.fill_(200.0)
        other.model.logit_scale.mul_(1.01)
    broken.save_pretrained("broken")
    other.save_pretrained("other")
    has(refused("calibrate", *clean[:3], "broken", "-o", "mine", *QUICK), "broken: its predictions are not finite")
    measured, whole = [], calibrating.score_and_save
    monkeypatch.setattr(calibrating, "score_and_save", lambda *args: measured.append(args[0].name) or whole(*args))
    works("calibrate", *clean[:3], "other", "-o", "mine", *QUICK, "--resume")
    assert measured == ["other"]
    assert {path.name for path in home.iterdir()} == {"broken", "other", "mine"}


def test_what_is_refused(tiny, clean, home):
    has(refused("calibrate", *clean[:3], "-o", "mine", *QUICK), "3 models: a calibration needs at least 4 clean ones")
    has(refused("calibrate", *clean[:3], clean[0], "-o", "mine", *QUICK), "are the same model")
    has(refused("calibrate", *clean[:3], "scenes-clip", "-o", "mine", *QUICK), "another size than")
    has(
        refused("check", tiny.clip, "-o", "found", *QUICK, "--calibration", tiny.clip),
        "clip holds a model, not a calibration",
    )
    assert not contents(home)
