"""A cleaned model: features, the transformers model made of it, and its folder, today's and earlier ones."""

import json
import logging
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

import reference
import rvpt
from exported import cards_code
from helpers import contents, memory_data, random_clip, random_pixels
from rvpt import Cleaned, RepulsivePrompts
from rvpt.artifacts import MANIFEST, read_manifest, write_manifest
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.models.card import base_line, called
from rvpt.models.clip import Clip
from rvpt.models.head import Head
from rvpt.tensors import sha256_tensors

CLASSES = ("fox", "owl", "cat")
PIXELS = random_pixels(3, 48)
CONFIG, WEIGHTS = "rvpt_config.json", "adapter_model.safetensors"
SPEC = {"prompt_length": 3, "first_block": 1, "lr": 0.01, "precision": "fp32", "seed": 4}
FACTS = {
    "defense": "rvpt", "spec": SPEC, "images": 6, "classes": list(CLASSES), "seconds": 1.26,
    "data": {"name": "pets", "shots": 2, "num_images": None, "without": ["cat"]}, "trained_parameters": 288,
}  # fmt: skip


def prompts(clip):
    return RepulsivePrompts(range(1, 4), 3, clip.width, std=1.0, seed=4).requires_grad_(False)


def head(clip):
    rows = torch.randn(3, 25, generator=torch.Generator().manual_seed(0))
    return Head(CLASSES, rows)


def facts(clip, **changes):
    made = {**FACTS, "base_model": clip.source, "base_revision": clip.revision, "base_sha256": clip.hash()}
    return {**made, **changes}


@pytest.fixture
def suspect(tmp_path):
    """A model on disk, loaded."""
    random_clip().save_pretrained(tmp_path / "suspect")
    return rvpt.load(tmp_path / "suspect")


@pytest.fixture
def adapter(suspect, tmp_path):
    """The folder of a model that cleans the suspect by prompts."""
    Cleaned(suspect, prompts(suspect), facts=facts(suspect)).save_pretrained(tmp_path / "cleaned")
    return tmp_path / "cleaned"


def edit(path, **changes):
    write_json(path, {**read_json(path), **changes})


def restamp(folder):
    """A manifest that fits the files again."""
    known = {name: fact for name, fact in read_json(folder / MANIFEST).items() if name not in ("parts", "versions")}
    (folder / MANIFEST).unlink()
    write_manifest(folder, **known)


# Features


@torch.no_grad()
def test_features_are_those_of_the_prompted_model(clip):
    model = Cleaned(clip, prompts(clip))
    slow, _ = reference.prompted(clip, range(1, 4), model.prompts.table, PIXELS)
    torch.testing.assert_close(model.encode_image(PIXELS), slow, atol=1e-5, rtol=0)
    values = model.preprocess(PIXELS)
    features = model.get_image_features(values)
    torch.testing.assert_close(
        features / features.norm(dim=1, keepdim=True), model.encode_image((PIXELS * 255).round() / 255)
    )
    assert not torch.allclose(features, clip.get_image_features(values), atol=1e-2)
    assert torch.equal(model.encode_text(CLASSES), clip.encode_text(CLASSES))


@torch.no_grad()
def test_called_as_a_clip_it_compares_prompted_images_with_texts(clip):
    model, ids = Cleaned(clip, prompts(clip)), clip.tokenize(CLASSES)
    output = model(ids, clip.normalize(PIXELS))
    expected = clip.logit_scale * model.encode_image(PIXELS) @ model.encode_text(CLASSES).T
    torch.testing.assert_close(output.logits_per_image, expected)
    torch.testing.assert_close(output.logits_per_text, expected.T)
    assert torch.equal(model.get_text_features(ids), clip.get_text_features(ids))


@torch.no_grad()
@pytest.mark.parametrize("geometry", [{}, {"width": 30, "heads": 3, "text_width": 30, "activation": "quick_gelu"}])
def test_a_transformers_model_with_the_prompts_gives_the_same(geometry):
    clip = random_clip(**geometry)
    model = Cleaned(clip, prompts(clip))
    made, values, ids = model.to_transformers(), clip.normalize(PIXELS), clip.tokenize(CLASSES)
    theirs = made.get_image_features(pixel_values=values).pooler_output
    torch.testing.assert_close(theirs, model.get_image_features(values))
    ours, theirs = model(ids, values), made(input_ids=ids, pixel_values=values)
    torch.testing.assert_close(theirs.logits_per_image, ours.logits_per_image)
    torch.testing.assert_close(clip.get_image_features(values), clip.model.get_image_features(values).pooler_output)


@torch.no_grad()
def test_a_transformers_model_with_prompts_is_not_saved(clip, tmp_path):
    model = Cleaned(clip, RepulsivePrompts(range(1, 4), 3, clip.width)).to_transformers()
    with pytest.raises(RvptError, match="save the cleaned model instead"):
        model.save_pretrained(tmp_path / "prompted")
    assert not (tmp_path / "prompted").exists()


def test_without_prompts_a_transformers_model_is_the_fine_tuned_one(clip):
    made = Cleaned(clip, own_weights=True).to_transformers()
    theirs = made.get_image_features(pixel_values=clip.normalize(PIXELS)).pooler_output
    torch.testing.assert_close(theirs, clip.get_image_features(clip.normalize(PIXELS)))


@torch.no_grad()
def test_a_head_takes_the_place_of_texts(clip):
    model = Cleaned(clip, head=head(clip))
    with_one = torch.cat([clip.encode_image(PIXELS), torch.ones(3, 1)], dim=1)
    assert torch.equal(model.encode_image(PIXELS), with_one)
    assert torch.equal(model.class_features(["Owl", "fox"]), model.head.rows[[1, 0]])
    with pytest.raises(RvptError, match="class 'dog': this model has its own classifier, which was not trained on it"):
        model.class_features(["fox", "dog"])


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.encode_text(["a fox"]),
        lambda model: model(torch.zeros(1, 4, dtype=torch.int64), PIXELS),
        lambda model: model.to_transformers(),
    ],
    ids=["encode_text", "forward", "to_transformers"],
)
def test_a_model_with_a_head_cannot_do_what_needs_texts(clip, call):
    with pytest.raises(RvptError, match="has its own classifier and cannot"):
        call(Cleaned(clip, head=head(clip)))


@torch.no_grad()
def test_converted_to_another_dtype_and_back_it_is_the_same_model():
    model = Cleaned(clip := random_clip(), prompts(clip))
    before = model.encode_image(PIXELS)
    assert model.double().encode_image(PIXELS.double()).dtype == torch.float64
    assert all(part.dtype == torch.float64 for pair in model.prefixes.values() for part in pair)
    torch.testing.assert_close(model.float().encode_image(PIXELS), before, atol=1e-6, rtol=0)


# Saved and loaded


def same(one, other):
    with torch.no_grad():
        torch.testing.assert_close(one.encode_image(PIXELS), other.encode_image(PIXELS), atol=1e-6, rtol=0)
    assert one.hash() == other.hash()
    assert one.row_facts() == other.row_facts()


@pytest.mark.parametrize("has", ["prompts", "head", "prompts and head", "own weights", "own weights and head"])
def test_saved_and_loaded_it_is_the_same_model(suspect, tmp_path, has):
    own, told = "own" in has, facts(suspect)
    base = random_clip(seed=1) if own else suspect
    parts = prompts(base) if "prompts" in has else None, head(base) if "head" in has else None
    model = Cleaned(base, *parts, told, own_weights=own)
    model.save_pretrained(tmp_path / "cleaned")
    loaded = rvpt.load(tmp_path / "cleaned")
    assert isinstance(loaded, Cleaned)
    same(loaded, model)
    assert loaded.name == "cleaned"
    loaded.save_pretrained(tmp_path / "copy")
    same(rvpt.load(tmp_path / "copy"), model)
    assert not any(parameter.requires_grad for parameter in loaded.prompts.parameters()) if loaded.prompts else True


def test_rows_tell_how_it_was_made(suspect):
    told = Cleaned(suspect, prompts(suspect), facts=facts(suspect)).row_facts()
    assert told["hashes"]["model"].startswith(f"{suspect.hash()}+")
    assert {**told, "hashes": None} == {
        "defense": "rvpt", "spec": SPEC, "seed": 4, "shots": 2, "num_images": None, "without": ["cat"],
        "cleaned_on": "pets", "trained_parameters": 288, "clean_seconds": 1.3, "hashes": None,
    }  # fmt: skip


def test_the_folder_names_the_base_model_as_other_libraries_do(adapter, suspect):
    assert read_json(adapter / CONFIG) == {
        "base_model_name_or_path": suspect.source, "base_model_revision": None, "base_model_activation": "gelu",
        "base_model_sha256": suspect.hash(),
        "prompted_blocks": [1, 2, 3], "classes": None,
    }  # fmt: skip
    assert contents(adapter).keys() == {CONFIG, WEIGHTS, MANIFEST, "README.md"}
    manifest = read_manifest(adapter, "cleaned")
    assert {name: manifest[name] for name in FACTS} == FACTS
    assert load_file(adapter / WEIGHTS)["prompts"].shape == (3, 3, 32)


def test_the_revision_of_a_hub_model_is_recorded(clip, tmp_path):
    hub = Clip(clip.model, clip.tokenizer, source="owner/clip", revision="f" * 40)
    Cleaned(hub, prompts(hub)).save_pretrained(tmp_path / "cleaned")
    config = read_json(tmp_path / "cleaned" / CONFIG)
    assert (config["base_model_name_or_path"], config["base_model_revision"]) == ("owner/clip", "f" * 40)


def test_the_card_says_what_it_is_and_how_it_was_made(adapter, suspect, tmp_path):
    card = (adapter / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: rvpt\n")
    for line in (
        f"| base model | {suspect.name} |", "# cleaned", "| defense | rvpt |", "| images | 6 |", "| classes | 3 |",
        "| prompt_length | 3 |", "| trained parameters | 288 |", f"| sha256 of its weights | {suspect.hash()} |",
    ):  # fmt: skip
        assert line in card.splitlines()
    assert "deep visual prompts" in card
    Cleaned(suspect, facts=facts(suspect, defense="par"), own_weights=True).save_pretrained(tmp_path / "tuned")
    assert "fine-tuned from" in (tmp_path / "tuned" / "README.md").read_text()


def test_the_card_of_a_model_with_its_own_classifier_speaks_of_no_prompts_and_runs(suspect, tmp_path):
    probed = Cleaned(suspect, head=head(suspect), facts=facts(suspect, defense="probe"))
    probed.save_pretrained(tmp_path / "probed")
    card = (tmp_path / "probed" / "README.md").read_text()
    assert f"an adapter with its own classifier for `{suspect.name}`" in card
    (code,) = cards_code(card, folder=tmp_path / "probed")
    made = {"images": [Image.new("RGB", (60, 50))]}
    exec(compile(code, "card", "exec"), made)
    assert made["probabilities"].shape == (1, len(probed.head.classes))


def test_a_folder_is_replaced_only_if_asked(adapter, suspect):
    model = Cleaned(suspect, head=head(suspect), facts=facts(suspect, defense="probe"))
    with pytest.raises(RvptError, match="cleaned already exists"):
        model.save_pretrained(adapter)
    model.save_pretrained(str(adapter), overwrite=True)
    assert rvpt.load(adapter).facts["defense"] == "probe"


def test_nothing_is_left_when_saving_fails(suspect, tmp_path, monkeypatch):
    monkeypatch.setattr("rvpt.models.cleaned.write_manifest", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Cleaned(suspect, prompts(suspect)).save_pretrained(tmp_path / "cleaned")
    assert contents(tmp_path).keys() == {"suspect", *(f"suspect/{name}" for name in contents(tmp_path / "suspect"))}


def test_a_home_folder_is_found(adapter, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert isinstance(rvpt.load("~/cleaned"), Cleaned)


@pytest.mark.parametrize("dtype", [torch.bfloat16, "bf16", "float64"])
def test_it_is_loaded_in_any_dtype(adapter, dtype):
    model = rvpt.load(adapter, dtype=dtype)
    with torch.no_grad():
        features = model.encode_image(PIXELS)
        assert features.dtype == model.logit_scale.dtype != torch.float32
        near = 1e-6 if features.dtype == torch.float64 else 0.05
        torch.testing.assert_close(features.float(), rvpt.load(adapter).encode_image(PIXELS), atol=near, rtol=0)


def test_a_model_that_was_cleaned_in_a_lower_precision_is_found_again(suspect, tmp_path):
    model = Cleaned(suspect, prompts(suspect), facts=facts(suspect))
    model.to(torch.bfloat16).save_pretrained(tmp_path / "cleaned")
    loaded = rvpt.load(tmp_path / "cleaned")
    assert loaded.prompts.table.dtype == torch.float32
    assert torch.equal(loaded.prompts.table, model.prompts.table.float())
    Cleaned(model.clip, own_weights=True).save_pretrained(tmp_path / "tuned")
    assert rvpt.load(tmp_path / "tuned").clip.hash() == model.clip.hash()


# The base model


def test_another_base_model_is_refused(adapter, tmp_path):
    random_clip(seed=1).save_pretrained(tmp_path / "other")
    with pytest.raises(
        RvptError, match=r"cleaned was made from another model than other: .* pass the right one as base="
    ):
        rvpt.load(adapter, base=tmp_path / "other")


def test_a_base_model_that_is_gone_is_named_and_base_says_where_it_is_now(adapter, suspect, tmp_path, monkeypatch):
    (tmp_path / "far").mkdir()
    (tmp_path / "suspect").rename(tmp_path / "far" / "after")
    with pytest.raises(RvptError, match=r"it is the base model of .*cleaned: pass its place as base=MODEL") as refusal:
        rvpt.load(adapter)
    assert suspect.source in str(refusal.value)
    here = rvpt.load(adapter, base=tmp_path / "far" / "after")
    here.save_pretrained(tmp_path / "copy")  # knows where the base is now
    assert rvpt.load(tmp_path / "copy").hash() == here.hash()
    assert read_manifest(tmp_path / "copy")["base_model"] == str(tmp_path / "far" / "after")
    monkeypatch.chdir(tmp_path / "far" / "after")  # a base is seen from here, not from the adapter's folder
    assert rvpt.load(adapter, base=".").hash() == here.hash()


def test_a_base_model_that_was_moved_together_with_it_is_found(adapter, tmp_path):
    before = rvpt.load(adapter).hash()
    (tmp_path / "elsewhere").mkdir()
    for name in ("suspect", "cleaned"):
        (tmp_path / name).rename(tmp_path / "elsewhere" / name)
    assert rvpt.load(tmp_path / "elsewhere" / "cleaned").hash() == before


def test_a_base_model_may_be_named_from_the_folder(adapter):
    edit(adapter / CONFIG, base_model_name_or_path="../suspect")
    restamp(adapter)
    assert rvpt.load(adapter).clip.name == "suspect"


def test_own_weights_need_no_base_and_are_checked_with_one(suspect, tmp_path):
    told = facts(suspect, base_model="gone")
    Cleaned(random_clip(seed=1), facts=told, own_weights=True).save_pretrained(tmp_path / "tuned")
    assert rvpt.load(tmp_path / "tuned").facts["base_model"] == "gone"
    assert rvpt.load(tmp_path / "tuned", base=suspect.source).facts["base_model"] == suspect.source
    assert Cleaned.from_pretrained(tmp_path / "tuned", suspect).facts["base_model"] == suspect.source
    with pytest.raises(RvptError, match="tuned was made from another model"):
        rvpt.load(tmp_path / "tuned", base=tmp_path / "tuned")


# Damaged folders


def damaged(change):
    def damage(folder):
        tensors = load_file(folder / WEIGHTS)
        change(tensors)
        save_file(tensors, folder / WEIGHTS)

    return damage


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG, MANIFEST])
def test_a_missing_file_is_noticed(adapter, name):
    (adapter / name).unlink()
    with pytest.raises(RvptError, match="cleaned"):
        rvpt.load(adapter)


@pytest.mark.parametrize("name", [WEIGHTS, CONFIG])
def test_a_changed_file_is_noticed(adapter, name):
    content = bytearray((adapter / name).read_bytes())
    content[-5] ^= 1
    (adapter / name).write_bytes(content)
    with pytest.raises(RvptError, match=f"{name} was changed after it was created"):
        rvpt.load(adapter)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (damaged(lambda t: t.pop("prompts")), f"{WEIGHTS} does not fit {CONFIG} or is not finite"),
        (damaged(lambda t: t.update(prompts=t["prompts"][:2].clone())), "does not fit"),
        (damaged(lambda t: t.update(prompts=t["prompts"][..., :8].clone())), "does not fit"),
        (damaged(lambda t: t.update(prompts=t["prompts"].flatten())), "does not fit"),
        (damaged(lambda t: t["prompts"].fill_(float("nan"))), "is not finite"),
        (lambda folder: edit(folder / CONFIG, prompted_blocks=[0, 1, 2, 3]), "does not fit"),
        (lambda folder: edit(folder / CONFIG, prompted_blocks=[2, 3, 4]), "must be some of 0 to 3, in order"),
        (lambda folder: edit(folder / CONFIG, prompted_blocks=[-1, 0, 1]), "must be some of 0 to 3, in order"),
        (lambda folder: edit(folder / CONFIG, prompted_blocks=[1, 3, 3]), "must be some of 0 to 3, in order"),
        (lambda folder: edit(folder / CONFIG, classes=["a"]), "does not fit"),
        (lambda folder: edit(folder / CONFIG, prompted_blocks="all"), "prompted_blocks: Input should be a valid list"),
        (lambda folder: edit(folder / CONFIG, more=1), "more: unknown setting"),
        (lambda folder: (folder / CONFIG).write_text("[]"), "is not a record of names and values"),
        (lambda folder: (folder / CONFIG).write_text("{"), "cannot be read as JSON"),
    ],
)
def test_a_folder_that_was_edited_is_refused_in_one_line(adapter, damage, words):
    damage(adapter)
    restamp(adapter)
    with pytest.raises(RvptError, match=words) as refusal:
        rvpt.load(adapter)
    assert "\n" not in str(refusal.value)


# Folders of earlier versions


def earlier(folder, name="adapter_config.json"):
    """The folder as versions before 0.1.0 wrote it."""
    config = read_json(folder / CONFIG)
    (folder / CONFIG).unlink()
    (folder / "README.md").unlink()
    old = {
        "base_model": config["base_model_name_or_path"], "base_sha256": config["base_model_sha256"],
        "blocks": config["prompted_blocks"], "classes": config["classes"],
    }  # fmt: skip
    write_json(folder / name, old)
    manifest = read_json(folder / MANIFEST)
    spec = {**manifest["spec"], "precision": "no"}
    spec["length"] = spec.pop("prompt_length")
    manifest |= {"defence": manifest.pop("defense"), "pictures": manifest.pop("images"), "spec": spec}
    write_json(folder / MANIFEST, manifest)
    restamp(folder)


@pytest.mark.parametrize("name", ["adapter_config.json", "cleaned_config.json"])
def test_a_folder_of_an_earlier_version_is_read_with_a_warning(adapter, caplog, name):
    new = rvpt.load(adapter)
    earlier(adapter, name)
    with caplog.at_level(logging.WARNING, "rvpt"):
        old = rvpt.load(adapter)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("rvpt", "WARNING")
    assert "has the layout of an earlier version: save the model again to update it" in record.message
    same(old, new)
    assert old.facts["defense"] == "rvpt"
    assert old.facts["images"] == 6
    assert old.facts["spec"] == SPEC


def test_saved_again_it_has_the_layout_of_today(adapter, tmp_path, caplog):
    earlier(adapter)
    rvpt.load(adapter).save_pretrained(tmp_path / "again")
    caplog.clear()
    assert rvpt.load(tmp_path / "again").facts["spec"] == SPEC
    assert not caplog.records


def test_an_adapter_of_peft_is_not_taken_for_one_of_ours(adapter, suspect, tmp_path):
    peft = {"peft_type": "LORA", "base_model_name_or_path": suspect.source, "r": 8}
    (tmp_path / "peft").mkdir()
    write_json(tmp_path / "peft" / "adapter_config.json", peft)
    shutil.copy(adapter / WEIGHTS, tmp_path / "peft" / WEIGHTS)
    with pytest.raises(RvptError, match="peft is an adapter of PEFT, not a whole model"):
        rvpt.load(tmp_path / "peft")


def test_a_model_beside_an_adapter_of_peft_is_a_model(suspect, tmp_path):
    (tmp_path / "both").mkdir()
    for file in (tmp_path / "suspect").iterdir():
        if file.name != MANIFEST:
            shutil.copy(file, tmp_path / "both" / file.name)
    (tmp_path / "both" / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert type(rvpt.load(tmp_path / "both")) is Clip


def test_the_hash_sees_prompts_head_and_base(clip):
    models = [
        Cleaned(clip), Cleaned(clip, prompts(clip)), Cleaned(clip, head=head(clip)),
        Cleaned(clip, prompts(clip), head(clip)), Cleaned(random_clip(seed=1), prompts(clip)),
    ]  # fmt: skip
    assert len({model.hash() for model in models}) == len(models)
    assert models[1].hash() == f"{clip.hash()}+{sha256_tensors(models[1].tensors())}"


def test_its_repr_is_one_short_line(clip):
    cleaned = Cleaned(clip, facts={"name": "mine", "defense": "rvpt", "trained_parameters": 1234})
    assert repr(cleaned) == f"Cleaned('mine', rvpt, 1,234 trained parameters, of {clip!r})"


def test_the_card_names_a_base_model_of_the_hub_and_no_path():
    assert base_line("openai/clip-vit-base-patch32") == "base_model: openai/clip-vit-base-patch32\n"
    assert base_line("/home/me/clip") == base_line("scenes-clip") == base_line(None) == ""
    assert (called("/home/me/clip"), called("openai/clip")) == ("clip", "openai/clip")


@pytest.mark.parametrize("call", [
    lambda data: rvpt.check("clip", data), lambda data: rvpt.evaluate("clip", data),
    lambda data: rvpt.Classifier("clip", ["cat", "dog"]), lambda data: rvpt.export("clip", "hf", "out"),
    lambda data: rvpt.Monitor("clip", "cleaned", ["cat", "dog"]),
])  # fmt: skip
def test_a_name_in_the_place_of_a_model_is_refused(call):
    with pytest.raises(RvptError, match="'clip' is a name and not a model: pass what"):
        call(memory_data(4))
