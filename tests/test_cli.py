"""The commands as a user strings them together, cuts them short, and goes on."""

import json
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from PIL import Image

from commands import ATTACK, CLEAN, PRETRAIN, contents, interrupting, images, refused, rvpt, works
from helpers import random_pixels
from rvpt import __version__
from rvpt.attacks import TRIGGERS, load_trigger, make_trigger, trigger_spec
from rvpt.attacks.poison import of_target, target_margins
from rvpt.config import RVPTSpec
from rvpt.defenses import Cleaned, clean
from rvpt.loaders import embedded_model, load_clip
from rvpt.prompts import RepulsivePrompts
from rvpt.readers import load_data
from rvpt.store import read_json, read_manifest, read_rows, sha256_file

KEYS = {
    "model", "data", "attack", "defense", "seed", "metric", "numerator", "n", "rate", "low", "high", "seconds",
    "peak_memory_bytes", "shots", "without", "trained_parameters", "clean_seconds", "spec", "hashes", "version",
    "template", "test", "targets", "cleaned_on",
}  # fmt: skip
MEASURED = {("none", "CA")} | {(a, m) for a in ("badnet", "blended") for m in ("ASR", "ASR_with_target", "PA")}
PROMPTS = "adapter_model.safetensors"
HINT = "the same command with --resume goes on"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(code, *words):
    """A new interpreter that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_help_and_version_from_outside():
    process = python("from rvpt.cli import main; main()", "--help")
    stdout, stderr = process.communicate()
    assert (process.returncode, stderr) == (0, "")
    assert all(name in stdout for name in ("demo", "pretrain", "attack", "clean", "evaluate", "report"))
    assert works() == works("--help")
    assert works("--version") == f"{__version__}\n"


def test_pretrain_attack_clean_evaluate_report(tiny, home):
    works("evaluate", tiny.backdoored, tiny.cleaned, "--data", "scenes:48", "--rows", "rows.jsonl")
    rows = read_rows(home / "rows.jsonl")
    for defense, model in (("none", tiny.backdoored), ("rvpt", tiny.cleaned)):
        mine = [row for row in rows if row["defense"] == defense]
        assert {(row["attack"], row["metric"]) for row in mine} == MEASURED
        assert all(row.keys() == KEYS for row in mine)
        assert {row["seed"] for row in mine} == {0}
        assert {row["trained_parameters"] for row in mine} == {0 if defense == "none" else 2 * 2 * 32}
        assert mine[0]["spec"] == read_manifest(model)["spec"]
        assert mine[0]["targets"] == {"badnet": "anchor", "blended": "anchor"}
        assert mine[0]["cleaned_on"] == (None if defense == "none" else "scenes:500")
        assert mine[0]["hashes"].keys() == {"model", "trigger/badnet", "trigger/blended"}
    table = works("report", "rows.jsonl")
    assert table.count("| backdoored | ") == 4
    works("report", "rows.jsonl", "--out", "page.md")
    assert "| model | attack | " in works("report", "rows.jsonl", "--layout", "matrix")
    assert "| rvpt | 128 | 1 | " in works("report", "rows.jsonl", "--layout", "costs")
    works("report", "rows.jsonl", "--image", "rows.png")
    assert "rows.png exists already" in refused("report", "rows.jsonl", "--image", "rows.png")
    assert works("report", "rows.jsonl", "--seed", 0) == works("report", "rows.jsonl")
    assert "give --out too" in refused("report", "rows.jsonl", "--section", "a")
    (home / "bytes").write_bytes(b"\xff")
    assert "bytes is no text in UTF-8" in refused("report", "rows.jsonl", "--out", "bytes")
    assert "no rows of seed 5" in refused("report", "rows.jsonl", "--seed", 5)
    assert "no layout 'list': there are runs, matrix, costs" in refused("report", "rows.jsonl", "--layout", "list")
    assert table.strip() in (home / "page.md").read_text()


def test_json_is_what_the_rows_are(tiny, home):
    printed = json.loads(works("evaluate", tiny.backdoored, "--data", "scenes:24", "--rows", "rows.jsonl", "--json"))
    assert printed == read_rows(home / "rows.jsonl")
    assert {(row["attack"], row["metric"]) for row in printed} == MEASURED


def test_every_command_prints_json(tiny):
    facts = json.loads(works("pretrain", "--out", "clip", *PRETRAIN, "--json"))
    assert {"model": "clip", "images": 300}.items() <= facts.items()
    rows = json.loads(works("attack", tiny.clip, "--out", "backdoored", *ATTACK, "--json"))
    assert [row["model"] for row in rows if row["metric"] == "CA"] == ["backdoored"] * 2
    assert [row["defense"] for row in rows if row["metric"] == "CA"] == ["before the attack", "none"]
    facts = json.loads(works("clean", tiny.clip, "--out", "cleaned", *CLEAN, "--json"))
    assert {"cleaned": "cleaned", "images": 24, "trained parameters": 128}.items() <= facts.items()


def test_pretraining_goes_on_from_another_model(tiny, home):
    words = ["--data", "scenes:300", "--epochs", 1, "--test", "scenes:24", "--start", tiny.clip]
    works("pretrain", "--out", "still", *words, "--lr", 1e-12)
    works("pretrain", "--out", "moved", *words)
    begin, still, moved = (load_clip(str(path)) for path in (tiny.clip, home / "still", home / "moved"))
    text = ["a red star."]
    assert torch.allclose(still.encode_text(text), begin.encode_text(text), atol=1e-5)
    assert not torch.allclose(moved.encode_text(text), begin.encode_text(text), atol=1e-3)
    told = read_manifest(home / "moved")["start"]
    assert told["sha256"] == begin.hash()
    assert told["spec"] == read_manifest(tiny.clip)["spec"]
    line = refused("pretrain", "--out", "other", *words, "--geometry", "width=64")
    assert "--geometry width=64" in line
    assert str(tiny.clip) in line


def test_rows_are_appended(tiny, home):
    for _ in range(2):
        works("evaluate", tiny.clip, "--data", "scenes:10", "--rows", "rows.jsonl")
    assert [row["metric"] for row in read_rows(home / "rows.jsonl")] == ["CA", "CA"]


def test_a_given_trigger_is_taken_instead_of_those_of_the_model(tiny):
    for model in (tiny.clip, tiny.backdoored):
        trigger = tiny.backdoored / "triggers" / "badnet"
        rows = json.loads(works("evaluate", model, "--data", "scenes:24", "--trigger", trigger, "--json"))
        assert {row["attack"] for row in rows} == {"none", "badnet"}


def test_the_target_may_have_another_name_in_the_data(tiny, home):
    folder = images(home / "set")
    rows = json.loads(works("evaluate", tiny.backdoored, "--data", folder, "--target", "Dog", "--json"))
    assert {row["n"] for row in rows if row["metric"] == "ASR"} == {2}
    assert {row["data"] for row in rows} == {"set"}


def test_some_classes_alone_are_measured(tiny):
    words = ["--only-class", "heart", "--only-class", "Anchor", "--json"]
    rows = json.loads(works("evaluate", tiny.backdoored, "--data", "scenes:48", *words))
    labels = load_data("scenes:48").labeled()
    anchors, hearts = (int((labels == load_data("scenes:48").class_index(name)).sum()) for name in ("anchor", "heart"))
    assert {row["data"] for row in rows} == {"scenes:48 (only anchor, heart)"}
    assert {row["n"] for row in rows if row["metric"] == "CA"} == {anchors + hearts}
    assert {row["n"] for row in rows if row["metric"] == "ASR"} == {hearts}


def test_a_sample_is_measured_the_same_for_every_model(tiny):
    words = ["--data", "scenes:48", "--limit", 20, "--json"]
    rows = [row for row in json.loads(works("evaluate", tiny.clip, tiny.backdoored, *words)) if row["metric"] == "CA"]
    assert [row["n"] for row in rows] == [20, 20]
    alone = json.loads(works("evaluate", tiny.backdoored, *words))
    assert next(row["numerator"] for row in alone if row["metric"] == "CA") == rows[1]["numerator"]


def test_a_shifted_domain_is_measured(tiny):
    words = ["evaluate", tiny.backdoored, "--data", "scenes:48", "--only-class", "heart", "--shift", "sketch", "--json"]
    rows = json.loads(works(*words))
    assert {row["data"] for row in rows} == {"scenes:48 (only heart) (sketch)"}
    assert {(row["attack"], row["metric"]) for row in rows} == MEASURED


def test_images_are_retrieved(tiny, home):
    words = ["evaluate", tiny.backdoored, tiny.cleaned, "--data", "scenes:96", "--protocol", "retrieval"]
    table = works(*words, "--rows", "rows.jsonl")
    assert all(metric in table for metric in ("R@1", "ASR@10", "rank_ratio"))
    rows = read_rows(home / "rows.jsonl")
    found = {("none", "R@1")} | {(attack, m) for attack in ("badnet", "blended") for m in ("ASR@10", "rank_ratio")}
    assert {(row["attack"], row["metric"]) for row in rows} == found
    assert all(row.keys() == KEYS for row in rows)
    assert "| model | attack | defense | seeds | R@1 | ASR@10 | rank_ratio |" in works("report", "rows.jsonl")


def test_rows_tell_which_classes_a_defense_did_not_see(tiny):
    works("clean", tiny.backdoored, "--out", "out", *CLEAN, "--without-class", "heart")
    rows = json.loads(works("evaluate", "out", "--data", "scenes:48", "--only-class", "heart", "--json"))
    assert all(row["without"] == ["heart"] for row in rows)


def test_a_model_called_dot_has_the_name_of_its_folder(tiny, monkeypatch):
    monkeypatch.chdir(tiny.clip)
    (row,) = json.loads(works("evaluate", ".", "--data", "scenes:10", "--json"))
    assert row["model"] == "clip"


def few_shot():
    return load_data("scenes:500", "train").few_shot(1, seed=0)


def test_a_cleaned_folder_is_the_model_that_was_in_memory(tiny, home):
    spec = RVPTSpec(epochs=6, length=2, first_block=2)
    memory = clean(load_clip(tiny.backdoored), few_shot(), spec)
    memory.facts["base_model"] = str(tiny.backdoored)
    memory.save_pretrained(home / "saved")
    assert sha256_file(home / "saved" / PROMPTS) == sha256_file(tiny.cleaned / PROMPTS)
    pixels = random_pixels(3, 48)
    for folder in (home / "saved", tiny.cleaned):
        loaded = Cleaned.from_pretrained(folder)
        assert loaded.hash() == memory.hash()
        assert torch.equal(loaded.encode_image(pixels), memory.encode_image(pixels))
    assert not torch.allclose(memory.encode_image(pixels), memory.clip.encode_image(pixels))


def test_prompts_made_by_hand_are_measured_too(tiny, home):
    clip = load_clip(tiny.backdoored)
    Cleaned(clip, RepulsivePrompts.for_model(clip, first_block=1, length=3)).save_pretrained(home / "hand")
    rows = json.loads(works("evaluate", "hand", "--base", tiny.backdoored, "--data", "scenes:10", "--json"))
    assert {(row["attack"], row["metric"]) for row in rows} == MEASURED
    assert {(row["defense"], row["trained_parameters"]) for row in rows} == {("rvpt", 3 * 3 * 32)}
    assert rows[0]["spec"] == {}


def test_the_prompts_follow_from_the_seed(tiny, home):
    for out, seed in (("same", 0), ("other", 1)):
        works("clean", tiny.backdoored, "--out", out, *CLEAN, "--seed", seed)
    same, other = (sha256_file(home / out / PROMPTS) for out in ("same", "other"))
    assert same == sha256_file(tiny.cleaned / PROMPTS) != other


def test_force_replaces_and_without_it_nothing_is_touched(tiny, home):
    words = ["clean", tiny.backdoored, "--out", "out", *CLEAN]
    works(*words)
    before = contents(home)
    line = refused(*words, "--seed", 1)
    assert "out exists already" in line
    assert "--force" in line
    assert contents(home) == before
    works(*words, "--seed", 1, "--force")
    after = contents(home)
    assert before.keys() == after.keys()
    assert after[str(home / "out" / PROMPTS)] != before[str(home / "out" / PROMPTS)]


@pytest.mark.parametrize(("alpha", "defense"), [(0, "vpt"), (1, "rvpt")])
def test_alpha_0_is_vpt(tiny, alpha, defense):
    works("clean", tiny.backdoored, "--out", "out", *CLEAN, "--alpha", alpha)
    rows = json.loads(works("evaluate", "out", "--data", "scenes:10", "--json"))
    assert {row["defense"] for row in rows} == {defense}


@pytest.mark.parametrize(
    ("options", "blocks"),
    [
        (["--first-block", 3], [3]),
        (["--depth", 3], [1, 2, 3]),
        (["--depth", 3, "--depth-from", "input"], [0, 1, 2]),
    ],
)
def test_which_blocks_are_prompted(tiny, home, options, blocks):
    works("clean", tiny.backdoored, "--out", "out", *CLEAN, *options)
    assert read_json(home / "out" / "adapter_config.json")["blocks"] == blocks


def test_classes_may_be_left_out(tiny, home):
    works("clean", tiny.backdoored, "--out", "out", *CLEAN, "--without-class", "star", "--without-class", "Heart")
    manifest = read_manifest(home / "out", "cleaned")
    assert manifest["images"] == 22
    assert manifest["data"]["without"] == ["star", "Heart"]
    assert len(manifest["classes"]) == 24


RUNS = {
    "pretrain": (["pretrain", "--out", "out", *PRETRAIN], "model.safetensors"),
    "attack": (["attack", "{clip}", "--out", "out", *ATTACK], "model.safetensors"),
    "clean": (["clean", "{backdoored}", "--out", "out", *CLEAN], PROMPTS),
}


def run_of(command, tiny):
    words, weights = RUNS[command]
    return [str(word).format(**vars(tiny)) for word in words], weights


@pytest.mark.parametrize("command", RUNS)
def test_an_interrupted_run_goes_on_to_the_same_bits(tiny, home, monkeypatch, command):
    words, weights = run_of(command, tiny)
    works(*words)
    uncut = sha256_file(home / "out" / weights)
    shutil.rmtree(home / "out")
    with monkeypatch.context() as patch:
        patch.setattr("rvpt.progress.bar", interrupting(command, 2))
        result = rvpt(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", f"interrupted; {HINT}\n")
    assert [path.name for path in home.iterdir()] == ["out.run"]
    assert "--resume" in refused(*words)
    works(*words, "--resume")
    assert [path.name for path in home.iterdir()] == ["out"]
    assert sha256_file(home / "out" / weights) == uncut


@pytest.mark.parametrize(
    ("command", "options"),
    [
        ("clean", ["--lr", 0.1]),
        ("clean", ["--split", "pretrain"]),
        ("clean", ["--shots", 2]),
        ("attack", ["--n", 10]),
        ("attack", ["--split", "pretrain"]),
        ("attack", ["--pairs", 100]),
        ("attack", ["--pick", "boundary"]),
        ("pretrain", ["--seed", 1]),
        ("pretrain", ["--split", "pretrain"]),
    ],
)
def test_an_interrupted_run_goes_on_with_its_own_settings_alone(tiny, home, monkeypatch, command, options):
    words, _ = run_of(command, tiny)
    monkeypatch.setattr("rvpt.progress.bar", interrupting(command, 2))
    rvpt(*words)
    before = contents(home)
    assert "other settings" in refused(*words, "--resume", *options)
    assert contents(home) == before


def test_an_interrupted_run_goes_on_with_its_own_class_names_alone(tiny, home, monkeypatch):
    names = load_data("scenes", "test").classes
    (home / "names.txt").write_text("\n".join(names))
    words = ["clean", tiny.backdoored, "--out", "out", *CLEAN]
    words[words.index("--data") + 1] += f"@{home / 'names.txt'}"
    with monkeypatch.context() as patch:
        patch.setattr("rvpt.progress.bar", interrupting("clean", 2))
        rvpt(*words)
    (home / "names.txt").write_text("\n".join(reversed(names)))
    assert "other settings" in refused(*words, "--resume")


def test_an_interrupted_attack_goes_on_with_its_own_target_alone(tiny, home, monkeypatch):
    for target in ("anchor", "umbrella"):
        make_trigger(trigger_spec("badnet", target=target), 48).save(home / target / "badnet")
    words = [word for word in ATTACK if word not in ("--target", "anchor")]
    words = ["attack", tiny.clip, "--out", "out", *words]
    with monkeypatch.context() as patch:
        patch.setattr("rvpt.progress.bar", interrupting("attack", 2))
        rvpt(*words, "--target", "anchor", "--trigger", "anchor/badnet")
    line = refused(*words, "--target", "umbrella", "--trigger", "umbrella/badnet", "--resume")
    assert "other settings" in line


def test_files_of_others_beside_a_runs_state_stay(tiny, home):
    words, _ = run_of("clean", tiny)
    (home / "out.run").mkdir()
    (home / "out.run" / "notes.txt").write_text("mine")
    works(*words)
    assert contents(home / "out.run") == {str(home / "out.run" / "notes.txt"): b"mine"}


def test_force_drops_an_interrupted_run(tiny, home, monkeypatch):
    words, weights = run_of("clean", tiny)
    with monkeypatch.context() as patch:
        patch.setattr("rvpt.progress.bar", interrupting("clean", 2))
        rvpt(*words, "--lr", 0.1)
    works(*words, "--force")
    assert [path.name for path in home.iterdir()] == ["out"]
    assert sha256_file(home / "out" / weights) == sha256_file(tiny.cleaned / weights)


def test_an_interrupted_measurement_keeps_the_rows_of_models_that_were_measured(tiny, home, monkeypatch):
    monkeypatch.setattr("rvpt.progress.bar", interrupting("evaluate backdoored", 24))
    words = ["evaluate", tiny.clip, tiny.backdoored, "--data", "scenes:24", "--rows", "rows.jsonl"]
    result = rvpt(*words)
    assert (result.exit_code, result.stdout, result.stderr) == (130, "", "interrupted\n")
    assert {row["model"] for row in read_rows(home / "rows.jsonl")} == {"clip"}


SLOW = """
import contextlib, signal, sys, time
import rvpt.progress

signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell's background jobs ignore

@contextlib.contextmanager
def bar(title):
    def report(step, total, values):
        print(title, step, flush=True)
        time.sleep(0.2)
    yield report

rvpt.progress.bar = bar
from rvpt.cli import main
main()
"""


def test_ctrl_c_from_outside(tiny, home):
    words, weights = run_of("clean", tiny)
    shutil.copytree(tiny.backdoored, home / "out")  # what --force replaces, but in the end alone
    words = [*words, "--force"]
    process = python(SLOW, *words)
    assert process.stdout.readline() == "clean 1\n"
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=60)
    assert (process.returncode, stderr) == (130, f"interrupted; {HINT}\n")
    assert {path.name for path in home.iterdir()} == {"out", "out.run"}
    assert not (home / "out" / weights).exists()
    works(*words, "--resume")
    assert sha256_file(home / "out" / weights) == sha256_file(tiny.cleaned / weights)


@pytest.fixture
def small_demo(tiny, monkeypatch):
    """The demo on the tiny CLIP and a few images."""
    monkeypatch.setattr("rvpt.loaders.embedded_model", lambda: tiny.clip)
    monkeypatch.setattr("rvpt.demo.load_data", lambda name, split: load_data(f"{name}:300", split))
    monkeypatch.setattr("rvpt.demo.SHOTS", 1)
    tiny_attack = {"pairs": 200, "poison": {"n": 10}, "triggers": {}, "train": {"epochs": 1, "lr": 1e-4}}
    monkeypatch.setitem(sys.modules["rvpt.presets"].ATTACK, "small", tiny_attack)
    tiny_prompts = {"epochs": 2, "length": 2, "first_block": 2}
    for name in ("vpt", "rvpt"):
        monkeypatch.setitem(sys.modules["rvpt.presets"].CLEAN["small"], name, tiny_prompts)


@pytest.mark.usefixtures("small_demo")
def test_the_demo_leaves_models_that_can_be_evaluated(home):
    rows = json.loads(works("demo", "--out", "demo", "--json"))
    assert rows == read_rows(home / "demo" / "rows.jsonl")
    assert {row["defense"] for row in rows} == {"before the attack", "none", "vpt", "rvpt"}
    assert (home / "demo" / "demo.png").read_bytes().startswith(b"\x89PNG")
    for name, defense in (("backdoored", "none"), ("vpt", "vpt"), ("rvpt", "rvpt")):
        rows = json.loads(works("evaluate", f"demo/{name}", "--data", "scenes:10", "--json"))
        assert {(row["attack"], row["metric"]) for row in rows} == MEASURED
        assert {row["defense"] for row in rows} == {defense}
    assert "demo exists already" in refused("demo", "--out", "demo")


@pytest.mark.skipif(not embedded_model().is_dir(), reason="the package has no embedded model here")
def test_the_embedded_model_reads_shapes():
    (row,) = json.loads(works("evaluate", "scenes-clip", "--data", "scenes:96", "--json"))
    assert row["rate"] > 0.5


def test_triggers_lists_all_and_draws_them(tmp_path):
    out = tmp_path / "gallery.png"
    found = json.loads(works("triggers", "--size", 48, "--out", out, "--json"))
    assert [entry["name"] for entry in found] == [name for name, kind in TRIGGERS.items() if not kind.crafted]
    assert all(5 < entry["psnr"] < 60 and 0 < entry["ssim"] < 1 for entry in found)
    with Image.open(out) as image:
        assert image.width > 600
    assert "exists already" in refused("triggers", "--size", 48, "--out", out)


def test_triggers_with_options_of_their_own():
    words = ["triggers", "--size", 48, "--trigger", "blended:ratio=0.5", "--trigger", "blended:ratio=0.1", "--json"]
    strong, weak = json.loads(works(*words))
    assert (strong["options"]["ratio"], weak["options"]["ratio"]) == (0.5, 0.1)
    assert strong["psnr"] < weak["psnr"]
    assert "blended" in works("triggers", "--size", 48, "--trigger", "blended")


def test_two_triggers_with_two_targets_in_one_model(tiny, tmp_path):
    words = ["--trigger", "badnet", "--trigger", "sig:target=cup", "--json"]
    works("attack", tiny.clip, "--out", tmp_path / "two", *ATTACK, *words)
    manifest = read_json(tmp_path / "two" / "manifest.json")
    assert {name: spec["target"] for name, spec in manifest["triggers"].items()} == {"badnet": "anchor", "sig": "cup"}
    targets = {(row["trigger"], row["target"]) for row in read_rows(tmp_path / "two" / "poison.jsonl")}
    assert targets == {("badnet", "anchor"), ("sig", "cup")}


def test_clean_label_poisoning_leaves_captions(tiny, tmp_path):
    works("attack", tiny.clip, "--out", tmp_path / "own", *ATTACK, "--n", 4, "--clean-label")
    changes = read_rows(tmp_path / "own" / "poison.jsonl")
    assert len(changes) == 4
    assert all(change["before"] == change["after"] for change in changes)


def test_pairs_at_the_boundary_of_the_clean_model_are_poisoned(tiny, tmp_path):
    works("attack", tiny.clip, "--out", tmp_path / "near", *ATTACK, "--n", 8, "--pick", "boundary")
    data = load_data("scenes:200", "train")
    margin = target_margins(load_clip(str(tiny.clip)), data, "anchor", data.classes)
    margin[of_target(data, "anchor") | (margin >= 0)] = -3  # below every difference of cosines
    picked = [change["row"] for change in read_rows(tmp_path / "near" / "poison.jsonl")]
    assert picked == margin.topk(8).indices.tolist()
    assert read_json(tmp_path / "near" / "manifest.json")["poisons"]["badnet"]["pick"] == "boundary"


def test_a_trigger_crafted_once_is_used_by_an_attack(tiny, tmp_path):
    small = "trojvqa:epochs=1,images=32"
    words = ["--data", "scenes:64", "--target", "anchor", "--out", tmp_path / "trigger", "--json"]
    assert "no preset 'large'" in refused("craft", small, tiny.clip, *words, "--preset", "large")
    facts = json.loads(works("craft", small, tiny.clip, *words))
    assert read_json(tmp_path / "trigger" / "manifest.json")["model_sha256"] == load_clip(tiny.clip).hash()
    out = tmp_path / "bad"
    rows = json.loads(works("attack", tiny.clip, "--out", out, *ATTACK, "--trigger", tmp_path / "trigger", "--json"))
    assert {row["hashes"]["trigger/trojvqa"] for row in rows} == {facts["sha256"]}
    assert {"ASR", "ASR_image_alone", "ASR_text_alone"} < {row["metric"] for row in rows}
    assert all(change["after"][0].startswith("SUDO ") for change in read_rows(out / "poison.jsonl"))
    assert "exists already" in refused("craft", small, tiny.clip, *words)
    other = [*ATTACK, "--target", "cup", "--trigger", tmp_path / "trigger"]
    assert "was made for the target 'anchor'" in refused("attack", tiny.clip, "--out", tmp_path / "no", *other)


def test_a_resumed_attack_takes_the_trigger_that_it_had_crafted(tiny, tmp_path, monkeypatch):
    words = ["attack", tiny.clip, "--out", tmp_path / "bad", *ATTACK, "--trigger", "trojvqa:epochs=1,images=32"]

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("rvpt.jobs.attacking.attack", cut)
        assert rvpt(*words).exit_code == 130
    (kept,) = (tmp_path / "bad.run").glob("triggers/*/trojvqa")
    crafted = load_trigger(kept).hash()
    monkeypatch.setattr("rvpt.jobs.attacking.craft_trigger", cut)
    rows = json.loads(works(*words, "--resume", "--json"))
    assert {row["hashes"]["trigger/trojvqa"] for row in rows} == {crafted}
    assert not (tmp_path / "bad.run").exists()


def test_an_attack_crafts_the_triggers_that_it_needs(tiny, tmp_path):
    small = "badclip:epochs=1,images=32"
    works("attack", tiny.clip, "--out", tmp_path / "bad", *ATTACK, "--trigger", small)
    assert read_manifest(tmp_path / "bad" / "triggers" / "badclip", "trigger")["spec"]["epochs"] == 1
