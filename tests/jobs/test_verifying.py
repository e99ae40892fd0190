"""Verifying: every kind of artifact, and every way in which one can differ."""

import shutil

import pytest
import torch

import rvpt
from exported import prompts_for
from helpers import contents, random_clip
from openai_layout import Geometry, random_weights, write_tokenizer
from rvpt.artifacts import MANIFEST, write_manifest
from rvpt.attacks.trigger import make_trigger, trigger_spec
from rvpt.errors import RvptError
from rvpt.exports.save import REFERENCE, export
from rvpt.files import read_json, write_json
from rvpt.jobs.verifying import CHECKS, verify
from rvpt.models.cleaned import Cleaned
from rvpt.tensors import read_tensors, write_tensors


@pytest.fixture
def cleaned(tmp_path):
    """A cleaned model and its base model, on disk, loaded."""
    random_clip().save_pretrained(tmp_path / "base")
    base = rvpt.load(tmp_path / "base")
    Cleaned(base, prompts_for(base)).save_pretrained(tmp_path / "cleaned")
    return rvpt.load(tmp_path / "cleaned")


def restamp(folder, **changes):
    """A manifest whose hashes fit the files again, with some facts changed."""
    known = {name: fact for name, fact in read_json(folder / MANIFEST).items() if name not in ("parts", "versions")}
    (folder / MANIFEST).unlink()
    write_manifest(folder, **{**known, **changes})


@pytest.mark.parametrize("kind", ["clip", "backdoored", "cleaned"])
def test_models_that_rvpt_wrote_are_verified(kind, tiny):
    folder = getattr(tiny, kind)
    told = verify(folder)
    assert told["kind"] == kind
    assert told["files"] == len(read_json(folder / MANIFEST)["parts"])
    assert told["sha256"] == rvpt.load(folder).hash()
    assert told.get("artifacts in it") == {"backdoored": 2}.get(kind)


def test_triggers_are_verified(tmp_path):
    trigger = make_trigger(trigger_spec("badnet", target="owl"), 48)
    trigger.save(tmp_path / "trigger")
    assert verify(tmp_path / "trigger") == {"kind": "trigger", "files": 1, "sha256": trigger.hash()}


@pytest.mark.parametrize("name", ["hf", "kv"])
def test_exports_are_run(name, cleaned, tmp_path):
    export(cleaned, name, tmp_path / "out")
    before = contents(tmp_path)
    told = verify(tmp_path / "out")
    assert (told["kind"], told["format"]) == ("export", name)
    assert told["outputs"].startswith("as stored, to ")
    assert contents(tmp_path) == before


def test_a_program_is_hashed_and_not_run(cleaned, tmp_path, monkeypatch):
    """Reading a .pt2 can unpickle."""
    export(cleaned, "hf", tmp_path / "out")
    restamp(tmp_path / "out", format="torch")
    monkeypatch.setattr(torch.export, "load", None)
    assert "not compared" in verify(tmp_path / "out")["outputs"]


def test_every_kind_that_is_written_can_be_verified():
    models = {"clip", "backdoored", "fine-tuned", "cleaned"}
    others = {"trigger", "calibration", "check", "checked cleaning", "inspection", "figures", "export", "demo"}
    assert set(CHECKS) == models | others


@pytest.mark.parametrize("part", ["model.safetensors", "poison.jsonl", "triggers/badnet/trigger.safetensors"])
@pytest.mark.parametrize("change", ["changed", "missing"])
def test_a_changed_or_missing_file_is_named(part, change, tiny, tmp_path):
    shutil.copytree(tiny.backdoored, tmp_path / "model")
    path = tmp_path / "model" / part
    if change == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-1] + b"#")
    with pytest.raises(RvptError, match=path.name) as error:
        verify(tmp_path / "model")
    assert "\n" not in str(error.value)


def test_an_added_file_is_named(tiny, tmp_path):
    shutil.copytree(tiny.clip, tmp_path / "model")
    (tmp_path / "model" / "pytorch_model.bin").write_bytes(b"other weights")
    with pytest.raises(RvptError, match=r"also holds pytorch_model.bin, which is not part of it"):
        verify(tmp_path / "model")


def test_an_edited_model_card_is_no_difference(tiny, tmp_path):
    shutil.copytree(tiny.clip, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("mine")
    verify(tmp_path / "model")


def test_weights_that_are_not_those_stated_are_found(tiny, tmp_path):
    shutil.copytree(tiny.clip, tmp_path / "model")
    weights = read_tensors(tmp_path / "model" / "model.safetensors")
    weights["logit_scale"] += 1e-3
    write_tensors(tmp_path / "model" / "model.safetensors", weights, {"format": "pt"})
    restamp(tmp_path / "model")
    with pytest.raises(RvptError, match="its weights have sha256"):
        verify(tmp_path / "model")


def test_outputs_that_are_not_those_stored_are_found(cleaned, tmp_path):
    export(cleaned, "hf", tmp_path / "out")
    stored = read_tensors(tmp_path / "out" / REFERENCE)
    stored["expected.text_embeds"][0, 0] += 2e-4
    write_tensors(tmp_path / "out" / REFERENCE, stored)
    restamp(tmp_path / "out")
    with pytest.raises(RvptError, match=r"its outputs differ by 2.0e-04 from those stored with it"):
        verify(tmp_path / "out")


def test_another_base_model_is_refused_and_a_missing_one_is_asked_for(cleaned, tmp_path):
    export(cleaned, "kv", tmp_path / "out")
    random_clip(seed=1).save_pretrained(tmp_path / "other")
    for folder in ("out", "cleaned"):
        with pytest.raises(RvptError, match=r"pass (its place|the right one)? ?(as )?base=MODEL"):
            verify(tmp_path / folder, base=str(tmp_path / "other"))
    (tmp_path / "base").rename(tmp_path / "moved")
    for folder in ("out", "cleaned"):
        with pytest.raises(RvptError, match="pass its place as base=MODEL"):
            verify(tmp_path / folder)
        assert verify(tmp_path / folder, base=str(tmp_path / "moved"))


def test_prompts_on_a_file_that_does_not_state_its_activation_are_verified(tmp_path):
    geometry = Geometry(layers=4)
    torch.save(random_weights(geometry), write_tokenizer(tmp_path) / "model.pt")
    base = rvpt.load(tmp_path / "model.pt", activation="gelu")
    export(Cleaned(base, prompts_for(base)), "kv", tmp_path / "out")
    assert verify(tmp_path / "out")["format"] == "kv"


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        (None, "is not an rvpt artifact"),
        ({"kind": "clip"}, "is not a complete manifest"),
        ({"kind": "spell", "parts": {}}, "holds a spell, which this version of rvpt does not know"),
        ({"kind": ["clip"], "parts": {}}, "which this version of rvpt does not know"),
        ({"kind": "export", "format": "tflite", "parts": {}}, "unknown format 'tflite'"),
        ({"kind": "export", "format": "hf", "parts": {}}, "is missing"),
        ({"kind": "export", "format": "hf", "parts": {"../../x": "0"}}, "outside of the folder"),
    ],
)
def test_what_is_no_artifact_is_refused(manifest, message, tmp_path):
    (tmp_path / "folder").mkdir()
    if manifest:
        write_json(tmp_path / "folder" / MANIFEST, manifest)
    with pytest.raises(RvptError, match=message):
        verify(tmp_path / "folder")


@pytest.mark.parametrize(("name", "base_needed"), [("hf", False), ("kv", True)])
def test_an_export_is_verified_without_the_facts_that_are_not_needed(name, base_needed, cleaned, tmp_path):
    export(cleaned, name, tmp_path / "out")
    facts = read_json(tmp_path / "out" / MANIFEST)
    write_json(tmp_path / "out" / MANIFEST, {key: facts[key] for key in ("kind", "format", "parts", "versions")})
    if base_needed:
        with pytest.raises(RvptError, match="does not say which base model"):
            verify(tmp_path / "out")
    else:
        assert verify(tmp_path / "out")


def test_a_folder_that_wants_its_own_code_run_is_refused(cleaned, tmp_path):
    export(cleaned, "hf", tmp_path / "out")
    config = read_json(tmp_path / "out" / "config.json")
    own = {"model_type": "other", "auto_map": {"AutoConfig": "evil.Config", "AutoModel": "evil.Model"}}
    write_json(tmp_path / "out" / "config.json", {**config, **own})
    (tmp_path / "out" / "evil.py").write_text("raise SystemExit(3)")
    restamp(tmp_path / "out")
    with pytest.raises(RvptError, match="its files cannot be run"):
        verify(tmp_path / "out")


def test_the_base_of_a_model_in_a_folder_with_other_artifacts_may_be_given(tiny, tmp_path):
    folder, base = tmp_path / "both", shutil.copytree(tiny.backdoored, tmp_path / "moved")
    shutil.copytree(tiny.check, folder / "check-before")
    shutil.copytree(tiny.cleaned, folder / "cleaned")
    write_manifest(folder, "checked cleaning")
    assert verify(folder, base=str(base))["artifacts in it"] == 3
