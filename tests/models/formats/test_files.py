"""Files of weights and open_clip's folders: each gives what OpenAI's formulas give on the same weights."""

import pytest
import torch
from safetensors.torch import save_file

import rvpt
from helpers import random_pixels
from openai_layout import TEXTS, Geometry, Naive, open_clip_config, random_weights, small_tokenizer, write_tokenizer
from rvpt.errors import RvptError
from rvpt.files import write_json
from rvpt.models.formats.load import load_clip, open_model

WEIGHTS = random_weights()
WIDE = Geometry(patch=4, side=24, width=96, heads=3, layers=1, hidden=400, text_width=48, text_heads=3, length=20)


@torch.no_grad()
def same(clip, weights=WEIGHTS, geometry=Geometry(), *, quick=True):
    naive, pixels = Naive(weights, geometry, quick=quick), random_pixels(3, geometry.side)
    texts = [text[: geometry.length - 4] for text in TEXTS]
    pairs = (
        (clip.encode_image(pixels), naive.image(clip.normalize(pixels))),
        (clip.encode_text(texts), naive.text(texts)),
        (clip.logit_scale, weights["logit_scale"].exp()),
    )
    return all(torch.allclose(ours, theirs, atol=1e-5) for ours, theirs in pairs)


def checkpoint(weights, prefix="module."):
    """What training code saves: CleanCLIP, BadCLIP, PAR and open_clip."""
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    named = {prefix + key: value for key, value in weights.items()}
    return {"epoch": 10, "name": "run", "state_dict": named, "optimizer": optimizer.state_dict()}


class Archive(torch.nn.Module):
    """Weights as attributes of nested modules, as OpenAI's TorchScript archives have them."""

    def __init__(self, weights):
        super().__init__()
        for name, value in weights.items():
            *path, last = name.split(".")
            module = self
            for part in path:
                if not hasattr(module, part):
                    module.add_module(part, torch.nn.Module())
                module = getattr(module, part)
            module.register_parameter(last, torch.nn.Parameter(value))
        self.register_buffer("input_resolution", torch.tensor(32))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def torchscript(path, weights=WEIGHTS):
    torch.jit.script(Archive(weights)).save(str(path))


WRITERS = {
    "plain.pt": lambda path: torch.save(WEIGHTS, path),
    "plain.safetensors": lambda path: save_file(WEIGHTS, path),
    "before 1.6.pt": lambda path: torch.save(WEIGHTS, path, _use_new_zipfile_serialization=False),
    "protocol 4.pth": lambda path: torch.save(WEIGHTS, path, pickle_protocol=4),
    "cleanclip.pt": lambda path: torch.save(checkpoint(WEIGHTS), path),
    "compiled.bin": lambda path: torch.save(checkpoint(WEIGHTS, "module._orig_mod."), path),
    "model.ckpt": lambda path: torch.save({"model": WEIGHTS}, path),
    "openai.pt": torchscript,
    "custom text.pt": lambda path: torch.save(
        {key if key.startswith(("visual", "logit")) else f"text.{key}": value for key, value in WEIGHTS.items()}, path
    ),
    "scale in a list.pt": lambda path: torch.save({**WEIGHTS, "logit_scale": WEIGHTS["logit_scale"][None]}, path),
    "transposed.pt": lambda path: torch.save({**WEIGHTS, "visual.proj": WEIGHTS["visual.proj"].T.contiguous().T}, path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_of_weights_is_read(tmp_path, name):
    write_tokenizer(tmp_path)
    WRITERS[name](tmp_path / name)
    assert same(load_clip(tmp_path / name))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
def test_the_activation_is_the_one_that_is_asked(tmp_path, activation, caplog):
    torch.save(WEIGHTS, write_tokenizer(tmp_path) / "model.pt")
    clip = rvpt.load(tmp_path / "model.pt", activation=activation)
    assert clip.activation == activation
    assert same(clip, quick=activation == "quick_gelu")
    assert not same(clip, quick=activation != "quick_gelu")
    assert not caplog.records


def test_a_guessed_activation_is_a_warning(tmp_path, caplog):
    torch.save(WEIGHTS, write_tokenizer(tmp_path) / "model.pt")
    assert load_clip(tmp_path / "model.pt").activation == "quick_gelu"
    assert "does not state its activation; quick_gelu" in caplog.text
    assert "load them with activation=gelu, or run rvpt convert --activation gelu first" in caplog.text


def test_openais_own_archives_need_no_guess(tmp_path, caplog):
    torchscript(write_tokenizer(tmp_path) / "model.pt")
    assert same(load_clip(tmp_path / "model.pt"))
    assert not caplog.records


@pytest.mark.parametrize("module", ["__main__", "multimodal.model"])
def test_the_class_of_an_archive_may_have_any_name(tmp_path, module, monkeypatch):
    monkeypatch.setattr(Archive, "__module__", module)
    torchscript(write_tokenizer(tmp_path) / "model.pt")
    assert same(load_clip(tmp_path / "model.pt"))


def test_an_unknown_activation_is_refused(tmp_path):
    torch.save(WEIGHTS, write_tokenizer(tmp_path) / "model.pt")
    with pytest.raises(RvptError, match="activation=relu is unknown: choose from quick_gelu, gelu"):
        rvpt.load(tmp_path / "model.pt", activation="relu")


@pytest.mark.parametrize(("dtype", "error"), [(torch.float16, 2e-2), (torch.bfloat16, 1e-1), (torch.float64, 1e-5)])
def test_weights_of_other_precisions_are_read(tmp_path, dtype, error):
    torch.save({key: value.to(dtype) for key, value in WEIGHTS.items()}, write_tokenizer(tmp_path) / "model.pt")
    clip, pixels = load_clip(tmp_path / "model.pt", activation="quick_gelu"), random_pixels(3, 32)
    rounded = {key: value.to(dtype).float() for key, value in WEIGHTS.items()}
    assert {parameter.dtype for parameter in clip.model.parameters()} == {torch.float32}
    assert same(clip, rounded)
    with torch.no_grad():
        assert torch.allclose(clip.encode_image(pixels), Naive(WEIGHTS).image(clip.normalize(pixels)), atol=error)


def test_a_prefix_is_named(tmp_path, caplog):
    save_file(
        {f"module.{key}": value for key, value in WEIGHTS.items()}, write_tokenizer(tmp_path) / "model.safetensors"
    )
    assert same(load_clip(tmp_path / "model.safetensors", activation="quick_gelu"))
    assert "the prefix module. was removed" in caplog.text


def test_a_cleaned_model_keeps_the_activation_of_its_base(tmp_path):
    torch.save(WEIGHTS, write_tokenizer(tmp_path) / "model.pt")
    base = rvpt.load(tmp_path / "model.pt", activation="gelu")
    rvpt.Cleaned(base, rvpt.RepulsivePrompts.for_model(base, first_block=1, length=2)).save_pretrained(tmp_path / "c")
    assert rvpt.load(tmp_path / "c").clip.activation == "gelu"
    with pytest.raises(RvptError, match="was made from a model with gelu"):
        rvpt.Cleaned.from_pretrained(tmp_path / "c", rvpt.load(tmp_path / "model.pt", activation="quick_gelu"))


# Geometry


@pytest.mark.parametrize(
    ("geometry", "shown"),
    [
        (Geometry(), (8, 32, 1)),
        (Geometry(patch=16, side=64, width=128, heads=2), (16, 64, 2)),
        (Geometry(patch=4, side=24, width=192, heads=3, layers=1), (4, 24, 3)),
    ],
)
def test_geometry_is_read_from_the_weights(tmp_path, geometry, shown):
    weights = random_weights(geometry)
    torch.save(weights, write_tokenizer(tmp_path) / "model.pt")
    clip = load_clip(tmp_path / "model.pt", activation="quick_gelu")
    vision = clip.model.config.vision_config
    assert (vision.patch_size, clip.image_size, vision.num_attention_heads) == shown
    assert same(clip, weights, geometry)


@pytest.mark.parametrize("width", [1280, 1408, 1664])
def test_the_towers_of_open_clip_with_other_heads_are_known(tmp_path, width):
    geometry = Geometry(width=width, heads=16, layers=1, hidden=64, text_layers=1)
    weights = random_weights(geometry)
    torch.save(weights, write_tokenizer(tmp_path) / "model.pt")
    clip = load_clip(tmp_path / "model.pt", activation="quick_gelu")
    assert clip.model.config.vision_config.num_attention_heads == 16
    assert same(clip, weights, geometry)


# open_clip's folders


@pytest.fixture
def folder(tmp_path):
    """folder(geometry, weights, **config): one of open_clip's."""

    def write(geometry=Geometry(), weights=None, change=lambda config: config, **options):
        place = write_tokenizer(tmp_path / "open_clip")
        save_file(random_weights(geometry) if weights is None else weights, place / "open_clip_model.safetensors")
        write_json(place / "open_clip_config.json", change(open_clip_config(geometry, **options)))
        return place

    return write


@pytest.mark.parametrize("quick", [True, False])
@pytest.mark.parametrize("geometry", [Geometry(), WIDE], ids=["small", "other heads, widths and ratio"])
def test_a_folder_of_open_clip_is_read(folder, geometry, quick, caplog):
    place = folder(geometry, quick=quick, mean=[0.5, 0.4, 0.3], std=[0.2, 0.3, 0.4])
    clip = load_clip(place)
    assert same(clip, random_weights(geometry), geometry, quick=quick)
    assert clip.mean.flatten().tolist() == pytest.approx([0.5, 0.4, 0.3])
    assert not caplog.records


def test_pickled_weights_of_open_clip_are_read(folder):
    place = folder()
    (place / "open_clip_model.safetensors").unlink()
    torch.save(WEIGHTS, place / "open_clip_pytorch_model.bin")
    assert same(load_clip(place))


def test_a_configuration_beside_a_file_is_used(folder):
    place = folder(WIDE, quick=False)
    assert same(load_clip(place / "open_clip_model.safetensors"), random_weights(WIDE), WIDE, quick=False)


def in_tower(tower, **settings):
    def change(config):
        config["model_cfg"][tower].update(settings)
        return config

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (in_tower("vision_cfg", timm_model_name="vit_base"), "timm_model_name='vit_base'"),
        (in_tower("vision_cfg", attentional_pool=True), "attentional_pool=True"),
        (in_tower("vision_cfg", no_ln_pre=True), "no_ln_pre=True"),
        (in_tower("vision_cfg", pool_type="avg"), "pool_type='avg'"),
        (in_tower("vision_cfg", something_new=3), "something_new=3"),
        (in_tower("vision_cfg", width="big"), "width='big' is not a size"),
        (in_tower("vision_cfg", width=128, heads=2), "have another shape"),
        (in_tower("vision_cfg", image_size=64), "position_embedding.weight"),
        (in_tower("text_cfg", no_causal_mask=True), "no_causal_mask=True"),
        (in_tower("text_cfg", hf_model_name="roberta-base"), "hf_model_name='roberta-base'"),
        (in_tower("text_cfg", tokenizer_kwargs={"clean": "canonicalize"}), "tokenizer_kwargs"),
        (in_tower("text_cfg", pool_type="last"), "pool_type='last'"),
        (lambda config: {"model_cfg": {**config["model_cfg"], "multimodal_cfg": {"width": 3}}}, "multimodal_cfg"),
        (lambda config: {**config, "model_cfg": 3}, "no model_cfg"),
        (lambda config: {**config, "preprocess_cfg": {"resize_mode": "stretch"}}, "resize_mode is stretch"),
        (lambda config: {**config, "preprocess_cfg": {"interpolation": "random"}}, "interpolation is random"),
        (lambda config: {**config, "preprocess_cfg": {"size": 64}}, "images of side 64, its model has 32"),
        (lambda config: {**config, "preprocess_cfg": {"std": [0, 1, 1]}}, "std must be three numbers"),
    ],
)
def test_a_model_of_open_clip_that_is_not_supported_is_refused_by_its_setting(folder, change, words):
    with pytest.raises(RvptError) as refusal:
        load_clip(folder(change=change))
    assert words in str(refusal.value)


def test_a_folder_of_open_clip_without_weights_is_refused(folder):
    place = folder()
    (place / "open_clip_model.safetensors").unlink()
    with pytest.raises(RvptError, match=r"has no weights: open_clip_model.safetensors or open_clip_pytorch_model.bin"):
        load_clip(place)


# What is not a CLIP


def without(*names):
    return {key: value for key, value in WEIGHTS.items() if key not in names}


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (without("visual.ln_pre.bias"), "1 weights are missing, such as vision_model.pre_layrnorm.bias"),
        (without("visual.proj"), "visual_projection.weight is missing"),
        (
            {**WEIGHTS, "visual.head.weight": torch.ones(2)},
            "do not belong to a ViT CLIP, such as visual.head",
        ),
        ({**WEIGHTS, "visual.ln_pre.bias": torch.ones(3)}, "vision_model.pre_layrnorm.bias (3,), not (64,)"),
        ({**WEIGHTS, "visual.ln_pre.bias": torch.ones(64, dtype=torch.int8)}, "not floating-point"),
        (
            {**WEIGHTS, "visual.positional_embedding": torch.ones(15, 64)},
            "15 positions of image patches",
        ),
        ({**WEIGHTS, "visual.class_embedding": torch.full((64,), torch.nan)}, "values that are not finite"),
        ({**WEIGHTS, "logit_scale": torch.tensor(torch.inf)}, "logit_scale holds values that are not finite"),
        ({**WEIGHTS, "logit_bias": torch.tensor(-10.0)}, "logit_bias"),
        (
            {"visual.layer1.0.conv1.weight": torch.ones(2), "visual.attnpool.positional_embedding": torch.ones(2)},
            "visual.attnpool.positional_embedding has the shape (2,): not a CLIP",
        ),
        ({"visual.trunk.cls_token": torch.ones(2)}, "one of timm's"),
        ({"base_model.model.x.lora_A.weight": torch.ones(2)}, "an adapter of PEFT"),
        ({**WEIGHTS, "transformer.resblocks.0.mlp.c_fc.lora_A.default.weight": torch.ones(2)}, "not merged"),
        ({**WEIGHTS, "positional_embedding_res": WEIGHTS["positional_embedding"]}, "is a LongCLIP"),
        ({"vision_model.head.probe": torch.ones(2)}, "text_model.embeddings.token_embedding.weight is missing"),
        ({"fc.weight": torch.ones(2)}, "no weights of a CLIP (it has fc.weight)"),
        ({}, "no weights of a CLIP (it has none)"),
        (
            {**{f"ema.{k}": v for k, v in WEIGHTS.items()}, **{f"net.{k}": v for k, v in WEIGHTS.items()}},
            "holds 2 CLIPs",
        ),
    ],
)
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_weights_that_are_not_a_clip_are_refused_by_name(tmp_path, weights, words, suffix):
    path = write_tokenizer(tmp_path) / f"model.{suffix}"
    if suffix == "pt":
        torch.save(weights, path)
    else:
        save_file({key: value.clone() for key, value in weights.items()}, path)
    with pytest.raises(RvptError) as refusal:
        load_clip(path, activation="quick_gelu")
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


# The tokenizer


def test_a_model_with_other_tokens_needs_its_tokenizer(tmp_path):
    torch.save(WEIGHTS, tmp_path / "model.pt")
    with pytest.raises(RvptError, match=rf"its model has {len(small_tokenizer())} tokens and CLIP's tokenizer 49408"):
        load_clip(tmp_path / "model.pt", activation="quick_gelu")


def test_a_tokenizer_whose_end_is_not_its_highest_token_is_refused(tmp_path):
    tokenizer = small_tokenizer()
    tokenizer.add_tokens(["more"])
    tokenizer.save_pretrained(tmp_path)
    torch.save(random_weights(vocabulary=80), tmp_path / "model.pt")
    with pytest.raises(RvptError, match="text features are read at the highest token"):
        load_clip(tmp_path / "model.pt", activation="quick_gelu")


def test_without_clips_tokenizer_it_is_said_what_to_install(tmp_path, monkeypatch):
    weights = random_weights(vocabulary=49408)
    torch.save(weights, tmp_path / "model.pt")
    monkeypatch.setattr("rvpt.models.formats.tokenizers.find_spec", lambda name: None)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(RvptError, match=r"pip install 'rvpt\[open-clip\]'"):
        load_clip(tmp_path / "model.pt", activation="quick_gelu")


# Names of open_clip


def test_names_of_open_clip_need_open_clip(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "open_clip", None)
    with pytest.raises(RvptError, match=r"need open_clip: pip install 'rvpt\[open-clip\]'"):
        load_clip("open_clip:ViT-B-32:openai")


class Library:
    """The part of open_clip that finds and downloads models."""

    def __init__(self, file):
        self.file = file

    def get_model_config(self, model):
        return open_clip_config(quick=False)["model_cfg"] if model == "ViT" else None

    def get_pretrained_cfg(self, model, tag):
        return {"quick_gelu": True, "mean": [0.5] * 3, "std": [0.25] * 3} if tag == "known" else {}

    def list_pretrained_tags_by_model(self, model):
        return ["known"] if model == "ViT" else []

    def download_pretrained(self, found):
        return str(self.file)


def test_a_name_and_tag_of_open_clip_follow_the_tag(tmp_path, monkeypatch):
    torch.save(WEIGHTS, write_tokenizer(tmp_path) / "weights.pt")
    monkeypatch.setitem(__import__("sys").modules, "open_clip", Library(tmp_path / "weights.pt"))
    monkeypatch.setattr("rvpt.models.formats.tokenizers.clip_tokenizer", lambda name: small_tokenizer())
    monkeypatch.setattr("rvpt.models.formats.tokenizers.WORDS", len(small_tokenizer()))
    clip = load_clip("open_clip:ViT:known")
    assert same(clip)
    assert clip.std.flatten().tolist() == [0.25] * 3
    assert (clip.source, clip.name) == ("open_clip:ViT:known", "open_clip:ViT:known")
    with pytest.raises(RvptError, match="no such model and tag; tags of ViT: known"):
        load_clip("open_clip:ViT:other")
    with pytest.raises(RvptError, match="write open_clip:NAME:TAG"):
        load_clip("open_clip:other")


def test_values_are_read_only_when_they_are_needed(tmp_path):
    torch.save(checkpoint(WEIGHTS), write_tokenizer(tmp_path) / "model.pt")
    parts = open_model(tmp_path / "model.pt").parts
    assert parts.pickled
    assert parts.weights["state_dict.module.visual.proj"].shape == (64, 16)
    assert [key for key in parts.weights if key.startswith("optimizer")]
