"""rvpt clean."""

import errno
import json
from shutil import copytree

import pytest
import torch
from safetensors import SafetensorError

from commands import CLEAN, failed, has, refused, rvpt, works
from helpers import contents, image_folder
from rvpt.artifacts import alone, read_manifest
from rvpt.attacks.inverted import Inverted
from rvpt.detection.calibration import Calibration
from rvpt.detection.verdict import Verdict
from rvpt.files import sha256_file

PROMPTS = "adapter_model.safetensors"


def spec_of(folder):
    return read_manifest(folder, "cleaned")["spec"]


def test_two_commands_that_write_one_folder(tiny, home):
    with alone(home / "out"):
        has(
            refused("clean", tiny.backdoored, "-o", "out", *CLEAN), "another command is writing out: wait until it ends"
        )
    assert list(home.iterdir()) == []


def test_it_writes_the_cleaned_model_and_says_what_was_done(tiny, home):
    facts = json.loads(works("clean", tiny.backdoored, "-o", "out", *CLEAN, "--json"))
    shown = {"cleaned": "out", "preset": "small", "defense": "rvpt", "images": 24, "trained parameters": 128}
    assert shown.items() <= facts.items()
    assert sha256_file(home / "out" / PROMPTS) == sha256_file(tiny.cleaned / PROMPTS)


def test_without_json_it_prints_a_fact_per_line(tiny):
    lines = works("clean", tiny.backdoored, "-o", "out", *CLEAN, "--epochs", 1).splitlines()
    assert [line.split() for line in lines[:4]] == [
        ["cleaned", "out"], ["preset", "small"], ["defense", "rvpt"], ["images", "24"]
    ]  # fmt: skip


def test_it_says_how_to_measure_the_result(tiny, home):
    *_, line = works("clean", tiny.backdoored, "-o", "out", *CLEAN, "--epochs", 1).splitlines()
    assert line == f"to measure it: rvpt evaluate {tiny.backdoored} out --data scenes:500"
    works(*line.removeprefix("to measure it: rvpt ").split())
    words = ["--data", "scenes:500", "--num-pairs", 20, "--epochs", 1, "--defense", "contrastive"]
    has(works("clean", tiny.backdoored, "-o", "other", *words), "other --data LABELED_IMAGES")
    image_folder(home / "images", "train", n=16)
    words = ["--data", "images", "--epochs", 1, "--shift", "blur"]  # which has no images to measure it on
    has(works("clean", tiny.backdoored, "-o", "third", *words), "third --data LABELED_IMAGES --shift blur")


def test_settings_come_from_the_preset_then_from_options_and_set(tiny):
    words = ["--data", "scenes:500", "--shots", 1, "--epochs", 1, "--prompt-length", 2, "--seed", 3]
    words += ["--set", "margin=0.5", "--set", "template=a {}", "--set", "depth=2"]
    works("clean", tiny.backdoored, "-o", "out", *words, "--preset", "paper")
    spec = spec_of("out")
    expected = {"lr": 0.002, "optimizer": "sgd", "epochs": 1, "prompt_length": 2, "seed": 3}
    assert (expected | {"margin": 0.5, "template": "a {}", "depth": 2}).items() <= spec.items()


def test_the_prompts_depend_on_the_seed(tiny, home):
    works("clean", tiny.backdoored, "-o", "out", *CLEAN, "--seed", 1)
    assert sha256_file(home / "out" / PROMPTS) != sha256_file(tiny.cleaned / PROMPTS)


def test_a_precision_that_needs_a_gpu_is_refused_at_once(tiny, home):
    words = ["clean", tiny.backdoored, "-o", "out", *CLEAN, "--precision", "fp16", "--device", "cpu"]
    has(refused(*words, "--defense", "unlearn-prompts"), "precision fp16 needs a GPU")
    assert contents(home) == {}


def test_classes_may_be_left_out_and_rows_say_which(tiny):
    words = ["--exclude-class", "star", "--exclude-class", "Heart", "--epochs", 1]
    works("clean", tiny.backdoored, "-o", "out", *CLEAN, *words)
    manifest = read_manifest("out", "cleaned")
    assert (manifest["images"], len(manifest["classes"])) == (22, 24)
    rows = json.loads(works("evaluate", "out", "--data", "scenes:48", "--include-class", "heart", "--json"))
    assert all(row["without"] == ["star", "Heart"] for row in rows)


def test_images_without_labels_and_a_file_of_classes(tiny, home):
    image_folder(home / "set", "train")
    (home / "flat").mkdir()
    for number, path in enumerate(sorted((home / "set").rglob("*.png"))):
        path.rename(home / "flat" / f"{number}.png")
    (home / "names.txt").write_text("cat\ndog\nowl\n")
    words = ["--data", "flat", "--classes", "names.txt", "--epochs", 1, "--set", "forms=additive"]
    facts = json.loads(works("clean", tiny.backdoored, "-o", "out", *words, "--defense", "unlearn", "--json"))
    assert facts["classes"] == "3, labels predicted by the suspect"
    assert "KL" in facts
    assert read_manifest("out", "cleaned")["classes"] == ["cat", "dog", "owl"]
    line = refused("clean", tiny.backdoored, "-o", "other", *words[:4])
    has(line, "rvpt learns from labels and takes no list of classes", "choose from unlearn-prompts, unlearn")
    line = refused("clean", tiny.backdoored, "-o", "other", "--data", "flat", "--defense", "probe")
    has(line, "flat has no class labels", "with the class names as --classes FILE")
    assert not (home / "other").exists()


def test_a_folder_is_replaced_only_if_asked(tiny, home):
    words = ["clean", tiny.backdoored, "-o", "out", *CLEAN, "--epochs", 1]
    works(*words)
    before = contents(home)
    has(refused(*words, "--seed", 1), "out already exists", "pass --overwrite")
    assert contents(home) == before
    works(*words, "--seed", 1, "--overwrite")
    after = contents(home)
    assert before.keys() == after.keys()
    assert before[f"out/{PROMPTS}"] != after[f"out/{PROMPTS}"]


def test_what_is_read_is_never_replaced(tiny):
    line = refused("clean", tiny.backdoored, *CLEAN, "-o", tiny.backdoored, "--overwrite")
    has(line, str(tiny.backdoored), "which this command reads")


def test_a_full_disk_is_a_failure_of_the_machine(tiny, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("rvpt.artifacts.os.rename", full)
    has(failed("clean", tiny.backdoored, "-o", "out", *CLEAN, "--epochs", 1), "no space left to write out")
    assert contents(home) == {}


def test_weights_that_fill_the_disk_are_a_failure_of_the_machine(tiny, home, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    words = ["--data", "scenes:500", "--shots", 1, "--defense", "finetune", "--epochs", 1]
    has(failed("clean", tiny.backdoored, "-o", "out", *words), "error: could not write out: ", "No space left")
    assert contents(home) == {}


@pytest.fixture
def verdicts(monkeypatch):
    """The verdicts of the next checks."""
    coming = ["backdoored", "clean"]

    def check(model, *_, **__):
        targets = [{"class": "moon", "form": "additive", "rise": 0.1, "margin": 0.1, "share": 0.98}]
        facts = {"model": model.name, "model_sha256": model.hash(), "calibrated": True}
        return Verdict(coming.pop(0), 0.012, targets, [], {}, [], facts, Inverted.of(torch.zeros(3, 48, 48), "moon"))

    monkeypatch.setattr("rvpt.jobs.checking.check", check)
    return coming


def test_with_auto_a_backdoored_model_is_checked_cleaned_and_checked(tiny, home, verdicts):
    shown = works("clean", tiny.backdoored, "-o", "out", *CLEAN, "--auto")
    has(shown, "before cleaning", "after cleaning", "backdoored", "moon (98% of images flipped)", "out/cleaned")
    has(shown, "accuracy on 476 images not used for cleaning: ")
    assert {path.name for path in (home / "out").iterdir()} >= {"check-before", "cleaned", "check-after"}
    works("evaluate", "out/cleaned", "--data", "scenes:10")


@pytest.mark.parametrize(
    ("coming", "code"), [(["clean"], 0), (["suspicious"] * 2, 3), (["suspicious", "backdoored"], 4)]
)
def test_the_exit_code_of_auto_is_that_of_the_last_check(tiny, verdicts, coming, code):
    verdicts[:] = coming
    result = rvpt("clean", tiny.backdoored, "-o", "out", *CLEAN, "--auto", "--json")
    found = json.loads(result.stdout)
    assert result.exit_code == code
    assert (found["after"] or found["before"])["verdict"] == coming[-1]


def test_a_model_that_looks_clean_is_left_alone(tiny, home, verdicts):
    verdicts[:] = ["clean"]
    has(works("clean", tiny.backdoored, "-o", "out", *CLEAN, "--auto"), "was not cleaned", "without --auto")
    assert not (home / "out" / "cleaned").exists()


def test_a_check_is_for_defenses_that_use_it(tiny):
    words = ["clean", tiny.backdoored, "-o", "out", *CLEAN, "--check", tiny.check]
    has(refused(*words), "rvpt does not use what a check found: remove --check", "choose from")
    has(refused(*words, "--auto"), "--auto makes a check of its own", "remove --check")
    for option in ("--reference", "--calibration"):
        has(
            refused("clean", tiny.clip, "-o", "out", *CLEAN, option, tiny.clip),
            f"{option}",
            "is for the checks of --auto",
        )


def test_the_checks_of_auto_use_a_calibration_that_fits(tiny, home):
    Calibration.read().write(home / "mine.json")
    words = ["clean", tiny.backdoored, "-o", "out", *CLEAN, "--auto", "--calibration", "mine.json"]
    has(refused(*words), "mine.json was made with", "rvpt calibrate")
    assert [path.name for path in home.iterdir()] == ["mine.json"]


def test_what_its_checks_read_is_not_replaced(tiny, home):
    copytree(tiny.check, home / "found")
    words = ["clean", tiny.backdoored, "-o", "found", "--overwrite", *CLEAN]
    has(refused(*words, "--check", "found"), "found holds found, which this command reads")
    has(refused(*words, "--auto", "--reference", "found"), "found holds found, which this command reads")


def test_a_cleaned_model_is_refused_with_the_model_that_it_was_made_from(tiny):
    has(refused("clean", tiny.cleaned, "-o", "out", *CLEAN), "is a cleaned model", str(tiny.backdoored))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--defense", "par", "--shots", 4], ["par learns from captions", "remove --shots 4"]),
        (["--defense", "par", "--exclude-class", "sun"], ["learns from captions", "remove --exclude-class sun"]),
        (["--num-pairs", 100], ["rvpt learns from labels", "remove --num-pairs 100"]),
        (["--defense", "probe", "--caption-column", "text"], ["remove --caption-column text"]),
        (["--defense", "nope"], ["'nope'", "probe, ", "rvpt clean --help"]),
        (["--preset", "nope"], ["'nope'", "'paper'", "rvpt clean --help"]),
        (["--precision", "no"], ["'no'", "'fp32', 'bf16', 'fp16'"]),
        (["--shots", 0], ["'--shots'", "rvpt clean --help"]),
        (["--lr", "fast"], ["'--lr'", "valid number"]),
        (["--lr", -1], ["lr: ", "greater than 0"]),
        (["--set", "size=3"], ["size: unknown setting", "prompt_length"]),
        (["--set", "alpha=1", "--alpha", 1], ["alpha is given twice"]),
        (["--set", "margin"], ["--set margin: write KEY=VALUE, as in --set weight_decay=0.1"]),
        (["--set", "first_block=9"], ["--set first_block=9 does not exist", "0 to 3"]),
        (["--set", "margin=2"], ["margin: ", "less than or equal to 1"]),
        (["--exclude-class", "dog"], ["'dog'", "umbrella"]),
        (["--split", "nope"], ["'nope'", "pretrain, train, test"]),
        (["--shots", 900], ["pass --shots ", "or fewer"]),
        (["--device", "nowhere"], ["--device nowhere is not available"]),
    ],
)
def test_bad_input_is_refused_in_one_line_that_names_it(tiny, home, words, said):
    bare = ["--data", "scenes:500"] + ([] if "--num-pairs" in words or "--defense" in words else ["--shots", 1])
    has(refused("clean", tiny.backdoored, *bare, "-o", "out", *words), *said)
    assert list(home.iterdir()) == []


def test_classes_with_too_few_images_are_named(tiny, home):
    image_folder(home / "set", "train", n=3)
    words = ["clean", tiny.clip, "--data", "set", "-o", "out", "--shots"]
    has(refused(*words, 4), "no class has 4 images, the largest has 3", "--shots 3")
    has(refused(*words, 1, "--exclude-class", "cat"), "at least two")
    has(refused(*words, 1, "--exclude-class", "owl"), "'owl'", "cat, dog")
