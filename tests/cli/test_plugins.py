"""What is registered from outside the package works in every command, without a change of rvpt."""

import json

import pytest
import torch

from commands import ATTACK, CLEAN, has, works
from rvpt.attacks import TRIGGERS
from rvpt.attacks.trigger import Trigger, TriggerSpec
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.defenses.base import Defense
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.base import Counts, Protocol
from rvpt.evaluation.metrics import CLASSIFICATION, Metric, Rate
from rvpt.models.cleaned import Cleaned
from rvpt.models.prompts import RepulsivePrompts
from rvpt.spec import Spec, TrainSpec


class UntrainedSpec(TrainSpec):
    length: int = 2


class Untrained(Defense):
    """Prompts that were never trained."""

    name = "untrained"
    summary = "prompts that were never trained"
    Spec = UntrainedSpec
    small = {"length": 3}

    @classmethod
    def run(cls, clip, data, spec, run):
        prompts = RepulsivePrompts.for_model(clip, first_block=1, length=spec.length)
        facts = {"history": [{"loss": 0.0}], "trained_parameters": prompts.parameter_count()}
        return Cleaned(clip, prompts, facts=facts)


class InvertSpec(TriggerSpec):
    share: float = 1.0


class Invert(Trigger):
    """Inverted colors."""

    name = "invert"
    summary = "inverted colors"
    Spec = InvertSpec

    @classmethod
    def make(cls, spec, image_size):
        return cls(spec, image_size, {"none": torch.zeros(1)})

    def apply(self, pixels, rows):
        return pixels + self.spec.share * (1 - 2 * pixels)


class BrightnessSettings(Spec):
    above: float = 0.5


class Brightness(Protocol):
    """The share of bright images, whatever the model."""

    name = "brightness"
    summary = "the share of bright images"
    needs = "images"
    Settings = BrightnessSettings

    def measure(self, model, data, triggers, *, batch_size, report):
        counts = Counts()
        for _, pixels in data.batches(batch_size, model.image_size):
            bright = int((pixels.mean((1, 2, 3)) > self.settings.above).sum())
            counts.count("none", "bright", Rate(bright, len(pixels)))
        return counts


def error_rate(predictions, labels, target):
    return Rate(int((predictions != labels).sum()), len(labels))


@pytest.fixture
def plugged():
    """All of them, registered."""
    added = (
        (DEFENSES, "untrained", Untrained),
        (TRIGGERS, "invert", Invert),
        (PROTOCOLS, "brightness", Brightness),
        (CLASSIFICATION, "wrong", Metric(error_rate, "clean")),
        (SHIFTS, "mirror", lambda pixels, rows: pixels.flip(-1)),
    )
    for registry, name, entry in added:
        registry.register(name, entry)
    yield
    for registry, name, _ in added:
        registry.unregister(name)


def words_of(text):
    """A text without frames and line breaks."""
    return " ".join(text.replace("│", " ").split())


@pytest.mark.usefixtures("plugged")
def test_a_defense(tiny, home):
    facts = json.loads(works("clean", tiny.backdoored, "-o", "out", *CLEAN[:4], "--defense", "untrained", "--json"))
    assert {"defense": "untrained", "trained parameters": 3 * 3 * 32}.items() <= facts.items()
    works("clean", tiny.backdoored, "-o", "two", *CLEAN[:4], "--defense", "untrained", "--set", "length=5")
    works("evaluate", "out", "two", "--data", "scenes:48", "--rows", "rows.jsonl")
    has(works("report", "rows.jsonl"), "| untrained, length=3 |", "| untrained, length=5 |")
    has(works("defenses", "untrained"), "prompts that were never trained", "2 (paper), 3 (small)")


@pytest.mark.usefixtures("plugged")
def test_a_trigger(tiny, home):
    words = ["--trigger", "invert:share=0.5", "--epochs", 1, "--rows", "rows.jsonl"]
    has(works("attack", tiny.clip, "-o", "bad", *ATTACK, *words), "invert: ASR ")
    has(works("report", "rows.jsonl"), "| bad | invert | none |")
    (entry,) = json.loads(works("triggers", "invert", "--size", 48, "--json"))
    assert (entry["summary"], entry["settings"][-1]["name"]) == ("inverted colors", "share")


@pytest.mark.usefixtures("plugged")
def test_a_protocol_and_a_shift(tiny, home):
    words = ["--data", "scenes:48", "--rows", "rows.jsonl", "--protocol", "brightness", "--set", "above=0"]
    has(works("evaluate", tiny.clip, *words, "--shift", "mirror"), "bright", "100.0")
    has(works("report", "rows.jsonl"), "| bright |", "(mirror)")
    has(works("protocols", "brightness"), "the share of bright images", "above")


@pytest.mark.usefixtures("plugged")
def test_a_metric(tiny, home):
    works("evaluate", tiny.clip, "--data", "scenes:48", "--rows", "rows.jsonl")
    has(works("report", "rows.jsonl"), "| CA | wrong |")


@pytest.mark.usefixtures("plugged")
@pytest.mark.parametrize(
    ("command", "options", "name"),
    [
        ("clean", ["--defense"], "untrained"),
        ("attack", ["--trigger"], "invert"),
        ("evaluate", ["--protocol"], "brightness"),
        ("evaluate", ["--shift"], "mirror"),
    ],
)
def test_all_are_completed_and_shown_in_help(monkeypatch, command, options, name):
    if command != "attack":  # whose help refers to `rvpt triggers`
        has(words_of(works(command, "--help")), f", {name}]")
    monkeypatch.setenv("_RVPT_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", " ".join(["rvpt", command, *options, name[:3]]))
    monkeypatch.setenv("COMP_CWORD", "3")
    assert name in works().split()
