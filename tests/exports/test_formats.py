"""Every format: what it takes, what it writes, and that a wrong file is never kept."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch.nn import functional as F
from transformers import AutoModel, CLIPModel

import reference
import rvpt
from exported import cards_code, prompts_for, sorts_of_models
from helpers import contents, random_clip, random_image, random_pixels
from rvpt.artifacts import read_manifest
from rvpt.errors import RvptError
from rvpt.exports import EXPORTS
from rvpt.exports.base import TOLERANCE, largest_difference, outputs_of, parts_of, reference_inputs
from rvpt.exports.save import export, model_facts, split_reference
from rvpt.models.cleaned import Cleaned, clip_of
from rvpt.tensors import read_tensors, sha256_tensors

TAKEN = {
    "hf": {"plain", "prompted", "tuned", "tuned and prompted"},
    "kv": {"prompted"},
    "onnx": {"plain", "prompted", "tuned", "tuned and prompted", "probed", "tuned with a head"},
    "torch": {"plain", "prompted", "tuned", "tuned and prompted", "probed", "tuned with a head"},
    "distilled": {"prompted", "tuned and prompted"},
    "openclip": set(),  # the random models end texts with a low token, see test_state_dicts.py
    "openai": set(),
}
CASES = [(name, sort) for name in ("hf", "kv") for sort in sorted(TAKEN[name])]  # the others have files of their own


@pytest.fixture
def models(clip):
    return sorts_of_models(clip)


def test_every_format_says_what_it_is():
    assert list(EXPORTS) == list(TAKEN)
    for name, kind in EXPORTS.items():
        assert kind.name == name
        assert kind.summary
        assert kind.takes | kind.advice.keys() == {"prompts", "weights", "head"}


@pytest.mark.parametrize("name", EXPORTS)
def test_a_model_that_a_format_cannot_hold_is_refused_by_name_with_another_format(name, models, tmp_path):
    for sort in models.keys() - TAKEN[name]:
        with pytest.raises(RvptError, match=r"use to=|no prompts") as error:
            export(models[sort], name, tmp_path / "out")
        assert models[sort].name in str(error.value)
        assert not list(tmp_path.iterdir())


def test_an_unknown_format_is_refused_with_those_that_there_are(clip, tmp_path):
    with pytest.raises(RvptError, match="unknown format 'tflite': choose from hf, kv"):
        export(clip, "tflite", tmp_path / "out")


@pytest.mark.parametrize(("name", "sort"), CASES)
def test_what_is_written_gives_the_outputs_of_the_model(name, sort, models, tmp_path):
    model, folder = models[sort], tmp_path / "out"
    before = model.hash()
    told = export(model, name, folder)
    inputs, expected = split_reference(read_tensors(folder / "reference.safetensors"))
    assert largest_difference(outputs_of(model, inputs), expected) < 1e-6
    base = clip_of(model)
    found = EXPORTS[name].run(folder, inputs, base)
    assert largest_difference(found, expected) < TOLERANCE
    assert told["largest_difference"] < TOLERANCE
    more = {"pixel_values": base.normalize(random_pixels(3, 48, seed=9)), "input_ids": base.tokenize(["an owl", "x"])}
    assert largest_difference(EXPORTS[name].run(folder, more, base), outputs_of(model, more)) < TOLERANCE
    manifest = read_manifest(folder, "export")
    assert manifest["model"]["sha256"] == model.hash() == before
    assert manifest["model"]["base_sha256"] == base.hash()
    wanted = sha256_tensors(model.tensors()) if isinstance(model, Cleaned) and model.tensors() else None
    assert manifest["model"]["prompts_sha256"] == wanted
    assert f"`{name}`" in (folder / "README.md").read_text()


def test_the_reference_covers_fine_and_coarse_images(clip):
    inputs = reference_inputs(clip)
    assert inputs["pixel_values"].shape == (4, 3, 48, 48)
    restored = inputs["pixel_values"] * clip.std + clip.mean
    assert 0 <= restored.min() < restored.max() <= 1 + 1e-6
    coarse = restored[-1, :, ::8, ::8].repeat_interleave(8, 1).repeat_interleave(8, 2)
    torch.testing.assert_close(coarse, restored[-1])
    assert not torch.equal(inputs["pixel_values"][0], inputs["pixel_values"][1])


@pytest.mark.parametrize("name", ["hf", "kv"])
def test_files_that_give_other_outputs_are_not_kept(name, models, tmp_path, monkeypatch):
    kind = EXPORTS[name]
    right = kind.run
    wrong = lambda *args: {key: value + 2e-4 for key, value in right(*args).items()}  # noqa: E731
    monkeypatch.setattr(type(kind), "run", lambda self, *args: wrong(*args))
    with pytest.raises(RvptError, match=f"as {name} gives other outputs than the model .by 2.0e-04.: not written"):
        export(models["prompted"], name, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_outputs_of_another_shape_or_without_a_value_differ():
    ones = {"image_embeds": torch.ones(2, 3)}
    assert largest_difference(ones, {"image_embeds": torch.ones(2, 4)}) == float("inf")
    assert largest_difference(ones, {"text_embeds": torch.ones(2, 3)}) == float("inf")
    assert largest_difference(ones, {"image_embeds": torch.full((2, 3), torch.nan)}) > 1e30
    assert largest_difference(ones, {"image_embeds": torch.tensor([[1, 1, 1], [1, 1, 1.5]])}) == 0.5


def test_an_existing_folder_is_kept_unless_told(models, tmp_path):
    export(models["prompted"], "kv", tmp_path / "out")
    before = contents(tmp_path)
    with pytest.raises(RvptError, match="already exists"):
        export(models["prompted"], "hf", tmp_path / "out")
    assert contents(tmp_path) == before
    export(models["prompted"], "hf", tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "config.json").is_file()


def test_parts_of_a_model(models):
    assert {sort: parts_of(model) for sort, model in models.items()} == {
        "plain": ["weights"],
        "prompted": ["prompts"],
        "tuned": ["weights"],
        "tuned and prompted": ["prompts", "weights"],
        "probed": ["head"],
        "tuned with a head": ["head", "weights"],
    }


# Rows


def row(model, **changes):
    counted = {"metric": "CA", "rate": 0.5, "numerator": 1, "n": 2, "low": 0.1, "high": 0.9}
    told = {"model": "m", "data": "pets", "attack": "none", "defense": "rvpt", "seed": 0, "spec": {"lr": 1}}
    return {**told, **counted, "hashes": {"model": model.hash()}, **changes}


def test_rows_of_the_model_are_in_the_manifest_and_on_the_card(models, tmp_path):
    model = models["prompted"]
    rows = [row(model), row(models["plain"], rate=0.9), row(model, attack="badnet", metric="ASR", rate=0.031)]
    export(model, "kv", tmp_path / "out", rows=rows)
    stored = read_manifest(tmp_path / "out")["rows"]
    assert [(each["attack"], each["metric"], each["rate"]) for each in stored] == [
        ("none", "CA", 0.5),
        ("badnet", "ASR", 0.031),
    ]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "| pets | badnet | ASR | 3.1 | 2 |" in card
    assert "90.0" not in card


def test_names_with_the_signs_of_a_table_stay_in_their_cells(models, tmp_path):
    model = models["prompted"]
    export(model, "kv", tmp_path / "out", rows=[row(model, data="cats | dogs", attack="a|b")])
    card = (tmp_path / "out" / "README.md").read_text()
    assert r"| cats \| dogs | a\|b | CA | 50.0 | 2 |" in card.splitlines()


def test_rows_of_other_models_are_refused(models, tmp_path):
    with pytest.raises(RvptError, match=r"none of the 1 rows is of clip\+cleaned"):
        export(models["prompted"], "kv", tmp_path / "out", rows=[row(models["plain"])])
    assert not list(tmp_path.iterdir())


# Prompts: keys and values, a class of transformers, and code that needs neither


def test_keys_and_values_are_those_of_the_slow_twin(models, tmp_path):
    model = models["prompted"]
    export(model, "kv", tmp_path / "out")
    rows = load_file(tmp_path / "out" / "prompts.safetensors")
    facts = json.loads((tmp_path / "out" / "kv.json").read_text())
    assert facts["blocks"] == [1, 2, 3]
    assert (facts["prompts_per_block"], facts["width"], facts["heads"]) == (3, 32, 2)
    assert facts["scale"] == pytest.approx(16**-0.5)
    for place, block in enumerate(facts["blocks"]):
        layer = model.clip.blocks[block]
        normed = F.layer_norm(model.prompts.table[place], (32,), layer.layer_norm1.weight, layer.layer_norm1.bias)
        for part, linear in (("key", layer.self_attn.k_proj), ("value", layer.self_attn.v_proj)):
            wanted = normed @ linear.weight.T + linear.bias
            torch.testing.assert_close(rows[f"blocks.{block}.{part}"], wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", ["hf", "kv"])
def test_the_code_on_the_card_needs_no_rvpt_and_gives_the_prompted_features(name, models, tmp_path):
    model = models["prompted"]
    export(model, name, tmp_path / "out")
    model.clip.save_pretrained(tmp_path / "base")
    code = cards_code((tmp_path / "out" / "README.md").read_text(), folder=tmp_path / "out", base=tmp_path / "base")[-1]
    assert "rvpt" not in code.replace(str(tmp_path), "")
    names = {}
    exec(compile(code, "card", "exec"), names)
    pixels = random_pixels(3, 48)
    found = names["model"].get_image_features(pixel_values=model.clip.normalize(pixels)).pooler_output
    slow, _ = reference.prompted(model.clip, range(1, 4), model.prompts.table, pixels)
    torch.testing.assert_close(F.normalize(found, dim=1), slow, atol=1e-5, rtol=0)


@torch.no_grad()
def test_automodel_loads_a_folder_with_prompts_by_the_class_that_rvpt_registers(models, tmp_path):
    model = models["prompted"]
    export(model, "hf", tmp_path / "out")
    (code, _) = cards_code((tmp_path / "out" / "README.md").read_text(), folder=tmp_path / "out")
    names = {}
    exec(compile(code, "card", "exec"), names)
    values = model.clip.normalize(random_pixels(2, 48))
    loaded, ids = names["model"], model.clip.tokenize(["an owl", "a red fox"])
    assert type(loaded).__name__ == "PromptedCLIPModel"
    expected = model(ids, values)
    torch.testing.assert_close(loaded(input_ids=ids, pixel_values=values).logits_per_image, expected.logits_per_image)
    (answer, _) = names["classify"](random_image(60, 50), candidate_labels=["owl", "fox"])
    assert answer["label"] in ("owl", "fox")
    loaded.save_pretrained(tmp_path / "again")
    again = AutoModel.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(again.state_dict(), loaded.state_dict(), rtol=0, atol=0)


def test_a_clipmodel_never_gets_the_weights_without_the_prompts(models, tmp_path):
    """Loading the folder as a CLIPModel must not give the model as it was before it was cleaned."""
    model = models["prompted"]
    export(model, "hf", tmp_path / "out")
    _, told = CLIPModel.from_pretrained(tmp_path / "out", output_loading_info=True)
    attention = {f"vision_model.encoder.layers.{block}.self_attn.q_proj.weight" for block in (1, 2, 3)}
    assert attention <= set(told["missing_keys"])
    with pytest.raises(RvptError, match="is an export by rvpt for other programs"):
        rvpt.load(tmp_path / "out")


def test_a_folder_without_prompts_is_a_plain_clipmodel(models, tmp_path):
    export(models["tuned"], "hf", tmp_path / "out")
    assert type(AutoModel.from_pretrained(tmp_path / "out")) is CLIPModel
    assert rvpt.load(tmp_path / "out").hash() == models["tuned"].clip.hash()


def test_half_precision_is_exported_in_single_precision(tmp_path):
    clip = random_clip().to(torch.float16)
    model = Cleaned(clip, prompts_for(clip).half())
    export(model, "hf", tmp_path / "out")
    assert AutoModel.from_pretrained(tmp_path / "out").dtype == torch.float32
    assert model.clip.model.dtype == torch.float16


def test_the_base_of_a_tuned_model_is_the_one_that_was_cleaned():
    tuned = Cleaned(random_clip(seed=1), own_weights=True, facts={"base_sha256": "of the suspect"})
    assert model_facts(tuned)["base_sha256"] == "of the suspect"
