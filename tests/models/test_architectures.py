"""ResNet CLIPs and SigLIPs: read, encoded, measured, checked, tuned, saved, and refused where prompts are needed."""

import copy
from functools import cache

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from torch.nn import functional as F
from transformers import PreTrainedTokenizerFast, SiglipConfig, SiglipModel

import rvpt
from helpers import assert_near, contents, memory_data, random_pixels
from openai_layout import TEXTS, Naive, random_weights, small_tokenizer, write_tokenizer
from resnet_layout import NaiveResnet, Resnet, resnet_config, resnet_weights
from rvpt.defenses import DEFENSES
from rvpt.detection.calibration import geometry_of
from rvpt.errors import RvptError
from rvpt.files import read_json, write_json
from rvpt.jobs.converting import convert, inspect
from rvpt.models.architectures import ARCHITECTURES
from rvpt.models.architectures.base import WORKS
from rvpt.models.formats.cleaning import CLEANINGS, cleaned_texts
from rvpt.models.formats.load import load_clip
from rvpt.models.formats.state_dict import from_openai
from rvpt.models.formats.weights import Stored
from rvpt.models.formats.write_open_clip import to_openai
from rvpt.models.prompts import RepulsivePrompts

WEIGHTS, SIDES = resnet_weights(), {"resnet": 64, "siglip": 32}
CLASSES = ("cat", "seal", "dog")


def letters_tokenizer():
    """A tokenizer of letters that ends texts with </s> and pads with it, as SigLIP's."""
    letters = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -5.0)]
    letters += [(letter, -2.0 - place / 100) for place, letter in enumerate("▁abcdefghijklmnopqrstuvwxyzABC_.,!'")]
    tokenizer = Tokenizer(models.Unigram(letters, unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="</s>", eos_token="</s>", unk_token="<unk>", model_max_length=16
    )


@cache
def siglip_model():
    """A random SiglipModel."""
    common = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**common, "vocab_size": len(letters_tokenizer()), "max_position_embeddings": 16}
    vision = {**common, "image_size": 32, "patch_size": 8}
    ids = {"bos_token_id": None, "eos_token_id": 1, "pad_token_id": 1}
    model = SiglipModel(SiglipConfig(text_config={**text, **ids}, vision_config=vision)).eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
        model.logit_scale.fill_(4.7)  # as that of Google's: tau is 110
        model.logit_bias.fill_(-12.0)
    return model


def siglip_folder(folder):
    siglip_model().save_pretrained(folder)
    letters_tokenizer().save_pretrained(folder)
    return folder


def resnet_folder(folder, weights=WEIGHTS, **options):
    write_tokenizer(folder)
    save_file({key: value.clone() for key, value in weights.items()}, folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", resnet_config(**options))
    return folder


MAKE = {"resnet": resnet_folder, "siglip": siglip_folder}


@pytest.fixture(scope="module", params=list(MAKE))
def model(request, tmp_path_factory):
    """A ResNet CLIP, then a SigLIP."""
    clip = load_clip(MAKE[request.param](tmp_path_factory.mktemp(request.param) / "model"))
    clip.kind = request.param
    return clip


def images(clip, n=3):
    return random_pixels(n, clip.image_size)


# A ResNet CLIP is what OpenAI's formulas say


@pytest.mark.parametrize("sizes", [Resnet(), Resnet((2, 1, 1, 2), 16, 96)], ids=["small", "wide"])
@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
def test_a_resnet_gives_what_openais_formulas_give(tmp_path, sizes, quick):
    weights = resnet_weights(sizes)
    place = resnet_folder(tmp_path / "x", weights, sizes=sizes, quick=quick, mean=[0.5] * 3, std=[0.25] * 3)
    clip, pixels = load_clip(place), random_pixels(2, sizes.side)
    text = random_weights() | {key: value for key, value in weights.items() if "visual" not in key}
    assert_near(clip.encode_text(TEXTS), Naive(text, quick=quick).text(TEXTS))
    naive = NaiveResnet(weights, sizes)
    assert_near(clip.encode_image(pixels), naive.image((pixels - 0.5) / 0.25))
    assert (clip.image_size, clip.width, clip.depth, clip.projection_dim) == (
        sizes.side,
        32 * sizes.width,
        4,
        sizes.features,
    )
    for row, maps in zip(clip.cls_rows(pixels).unbind(1), naive.stages((pixels - 0.5) / 0.25), strict=True):
        mean = maps.mean((2, 3))
        assert_near(row[:, : mean.shape[1]], mean)
        assert not row[:, mean.shape[1] :].any()


def with_prefix(weights):
    return {"state_dict": {f"module.{key}": value for key, value in weights.items()}, "epoch": 3}


@pytest.mark.parametrize(
    "change", [dict, with_prefix, lambda w: {key: value.half() for key, value in w.items()}], ids=["pt", "ckpt", "half"]
)
def test_a_file_of_a_resnets_weights_is_read(tmp_path, change):
    torch.save(change(WEIGHTS), write_tokenizer(tmp_path) / "RN50.pt")
    clip, pixels = load_clip(tmp_path / "RN50.pt", activation="quick_gelu"), random_pixels(2, 64)
    exact = clip.hash() == load_clip(resnet_folder(tmp_path / "y")).hash()
    assert exact == (change in (dict, with_prefix))
    naive = NaiveResnet(WEIGHTS).image(clip.normalize(pixels))
    assert_near(clip.encode_image(pixels), naive, 1e-5 if exact else 2e-2)


def test_a_torchscript_archive_of_a_resnet_is_read_as_openais(tmp_path, caplog):
    module = torch.nn.Module()
    for key, value in WEIGHTS.items():
        part, *names = module, *key.split(".")
        for name in names[:-1]:
            if not hasattr(part, name):
                part.add_module(name, torch.nn.Module())
            part = getattr(part, name)
        if value.is_floating_point():
            part.register_parameter(names[-1], torch.nn.Parameter(value))
        else:
            part.register_buffer(names[-1], value)
    torch.jit.script(module).save(str(write_tokenizer(tmp_path) / "RN50.pt"))
    clip = load_clip(tmp_path / "RN50.pt")
    assert clip.activation == "quick_gelu"
    assert not caplog.records
    assert clip.hash() == load_clip(resnet_folder(tmp_path / "y")).hash()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"visual.layer4.0.conv1.weight": None}, "are not those of a ResNet CLIP"),
        ({"visual.layer2.1.bn2.running_var": None}, "1 weights are missing, such as visual.layer2.1.bn2.running_var"),
        ({"visual.attnpool.positional_embedding": torch.ones(6, 256)}, "6 positions"),
        ({"visual.layer3.0.conv2.weight": torch.ones(2, 2)}, "layer3.0.conv2.weight (2, 2), not (32, 32, 3, 3)"),
        ({"visual.extra": torch.ones(2)}, "do not belong to a ResNet CLIP, such as visual.extra"),
        ({"visual.bn1.bias": torch.full((4,), torch.nan)}, "visual.bn1.bias holds values that are not finite"),
    ],
    ids=str,
)
def test_a_damaged_resnet_is_refused(tmp_path, change, words):
    weights = {key: value for key, value in {**WEIGHTS, **change}.items() if value is not None}
    with pytest.raises(RvptError) as refusal:
        load_clip(resnet_folder(tmp_path / "x", weights))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_names_go_to_transformers_and_back():
    weights = random_weights()
    stored = {key: Stored("F32", tuple(value.shape), value.clone) for key, value in weights.items()}
    back = to_openai({key: value.read() for key, value in from_openai(stored).items()})
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[key], weights[key]) for key in weights)


# A SigLIP is what transformers computes


def test_a_siglip_gives_what_transformers_gives(tmp_path):
    clip, texts = load_clip(siglip_folder(tmp_path / "x")), ["a cat", "a photo of a seal, in the middle", ""]
    pixels, ids = images(clip), clip.tokenize(texts)
    assert ids.shape == (3, 16)  # padded, because features are read at the last place
    with torch.no_grad():
        theirs = siglip_model()(input_ids=ids, pixel_values=clip.normalize(pixels))
        ours = clip(ids, clip.normalize(pixels))
    assert_near(clip.encode_image(pixels), theirs.image_embeds)
    assert_near(clip.encode_text(texts), theirs.text_embeds)
    assert_near(ours.logits_per_image, theirs.logits_per_image)
    assert_near(ours.logits_per_text, theirs.logits_per_text)
    assert (clip.image_size.resizing.mode, clip.mean.flatten().tolist()) == ("squash", [0.5] * 3)


def test_the_bias_of_a_siglip_changes_no_prediction(tmp_path):
    clip = load_clip(siglip_folder(tmp_path / "x"))
    pixels = images(clip, 8)
    plain = clip.logit_scale * clip.encode_image(pixels) @ clip.class_features(CLASSES, "{}").T
    whole = clip(clip.tokenize(CLASSES), clip.normalize(pixels)).logits_per_image
    assert_near(whole, plain - 12)
    classifier = rvpt.Classifier(clip, CLASSES, template="{}")
    assert torch.equal(classifier.probabilities(pixels).argmax(1), whole.sigmoid().argmax(1))


def test_rows_of_a_siglip_are_means_over_patches(tmp_path):
    clip = load_clip(siglip_folder(tmp_path / "x"))
    pixels = images(clip)
    with torch.no_grad():
        theirs = siglip_model().vision_model(clip.normalize(pixels), output_hidden_states=True)
    assert_near(clip.cls_rows(pixels)[:, 0], theirs.hidden_states[1].mean(1))
    assert clip.cls_rows(pixels).shape == (3, clip.depth, clip.width)


def config_of(folder, **changes):
    write_json(folder / "config.json", {**read_json(folder / "config.json"), **changes})


def damaged(folder, name):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def tokenizer_of(folder, **changes):
    write_json(folder / "tokenizer_config.json", {**read_json(folder / "tokenizer_config.json"), **changes})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda folder: damaged(folder, "vision_model.head.mlp.fc1.bias"), "vision_model.head.mlp.fc1.bias"),
        (lambda folder: damaged(folder, "vision_model.head.probe"), "no weights of a CLIP"),
        (lambda folder: config_of(folder, model_type="clip"), "of a 'clip' model, its weights are of a SigLIP"),
        (lambda folder: config_of(folder, vision_config={"vision_use_head": False}), "has no head"),
        (lambda folder: config_of(folder, text_config={"projection_size": 24}), "32 numbers and its text features 24"),
        (lambda folder: tokenizer_of(folder, padding_side="left"), "does not pad them at their end"),
    ],
)
def test_a_siglip_that_does_not_fit_is_refused(tmp_path, damage, words):
    folder = siglip_folder(tmp_path / "x")
    damage(folder)
    with pytest.raises(RvptError) as refusal:
        load_clip(folder)
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


# open_clip's SigLIPs, which have the names of timm


def timm_names(weights):
    """The weights of a SiglipModel by the names of open_clip's, whose image tower is one of timm's."""
    found, vision = {}, "vision_model."
    for key, value in weights.items():
        name = key.removeprefix(vision)
        for new, old in (
            ("patch_embed.proj", "embeddings.patch_embedding"), ("norm.", "post_layernorm."),
            ("attn_pool.proj", "head.attention.out_proj"), ("attn_pool.norm", "head.layernorm"),
            ("attn_pool.latent", "head.probe"), ("attn_pool.mlp", "head.mlp"), ("blocks", "encoder.layers"),
            ("norm1", "layer_norm1"), ("norm2", "layer_norm2"), ("attn.proj", "self_attn.out_proj"),
        ):  # fmt: skip
            name = name.replace(old, new)
        if not key.startswith(vision):
            continue
        if "position_embedding" in name:
            found["visual.trunk.pos_embed"] = value[None]
        elif "in_proj" in name:
            kind = name.rpartition("_")[2]
            found[f"visual.trunk.attn_pool.q.{kind}"], found[f"visual.trunk.attn_pool.kv.{kind}"] = value.split(
                (32, 64)
            )
        elif "self_attn.q_proj" in name:
            parts = [weights[key.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            found[f"visual.trunk.{name.replace('self_attn.q_proj', 'attn.qkv')}"] = torch.cat(parts)
        elif "self_attn" not in name:
            found[f"visual.trunk.{name}"] = value
    text = to_openai({key: value for key, value in weights.items() if key.startswith("text_model")})
    found |= {f"text.{key.replace('text_model.head', 'text_projection')}": value for key, value in text.items()}
    return {**found, "logit_scale": weights["logit_scale"][0], "logit_bias": weights["logit_bias"][0]}


def open_clip_siglip(folder, **changes):
    text = {
        "context_length": 16, "vocab_size": len(letters_tokenizer()), "width": 32, "heads": 2, "layers": 2,
        "hf_tokenizer_name": "timm/ViT-B-16-SigLIP", "tokenizer_kwargs": {"clean": "canonicalize"},
        "no_causal_mask": True, "proj_bias": True, "pool_type": "last", "norm_kwargs": {"eps": 1e-6},
        "act_kwargs": {"approximate": "tanh"}, **changes.pop("text", {}),
    }  # fmt: skip
    vision = {
        "image_size": 32, "timm_model_name": "vit_so400m_patch16_siglip_256", "timm_pool": "map", "timm_proj": "none",
        **changes,
    }  # fmt: skip
    config = {"embed_dim": 32, "init_logit_bias": -10, "custom_text": True, "vision_cfg": vision, "text_cfg": text}
    letters_tokenizer().save_pretrained(folder)
    save_file(
        {key: value.contiguous().clone() for key, value in timm_names(siglip_model().state_dict()).items()},
        folder / "open_clip_model.safetensors",
    )
    write_json(folder / "open_clip_config.json", {"model_cfg": config, "preprocess_cfg": {}})
    return folder


@pytest.fixture
def two_heads(monkeypatch):
    """The small SigLIP has two heads, where a tower of its width would have one."""
    monkeypatch.setitem(__import__("rvpt.models.formats.geometry", fromlist=["HEADS"]).HEADS, 32, 2)


def test_a_siglip_of_open_clip_is_the_same_as_that_of_transformers(tmp_path, two_heads):
    theirs = load_clip(siglip_folder(tmp_path / "x"))
    ours = load_clip(open_clip_siglip(tmp_path / "y"))
    assert ours.hash() == theirs.hash()
    assert_near(ours.encode_image(images(ours)), theirs.encode_image(images(ours)))
    assert_near(ours.encode_text(["a cat", "b"]), theirs.encode_text(["a cat", "b"]))
    assert torch.equal(ours.tokenize(["  A_cat!\n"]), theirs.tokenize(["a cat"]))  # cleaned, as open_clip does
    assert (ours.preprocessing.mean, ours.image_size.resizing.mode) == ((0.5,) * 3, "squash")
    ours.save_pretrained(tmp_path / "z")
    again = load_clip(tmp_path / "z")
    assert torch.equal(again.tokenize(["  A_cat!\n"]), theirs.tokenize(["a cat"]))
    assert again.hash() == ours.hash()
    assert SiglipModel.from_pretrained(tmp_path / "z").config.vision_config.hidden_size == 32


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"timm_pool": "avg"}, "timm_pool='avg'"),
        ({"timm_pool": None}, "timm_pool=None"),
        ({"timm_model_name": "vit_base_patch16_clip_224"}, "timm_"),
        ({"text": {"no_causal_mask": False}}, "no_causal_mask=False"),
        ({"text": {"pool_type": "argmax"}}, "pool_type='argmax'"),
        ({"text": {"act_kwargs": {"approximate": "other"}}}, "act_kwargs="),
        ({"text": {"tokenizer_kwargs": {"strip_sep_token": True}}}, "tokenizer_kwargs="),
        ({"text": {"tokenizer_kwargs": {"clean": "all"}}}, "clean='all'"),
        ({"text": {"hf_model_name": "nllb"}}, "hf_model_name='nllb'"),
        ({"image_size": 64}, "position_embedding.weight (16, 32), not"),
    ],
    ids=str,
)
def test_another_tower_of_timm_is_refused_by_its_setting(tmp_path, changes, words):
    with pytest.raises(RvptError) as refusal:
        load_clip(open_clip_siglip(tmp_path / "x", **changes))
    assert words in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_tokenizer_that_is_only_named_is_looked_for_on_the_hub(tmp_path):
    folder = open_clip_siglip(tmp_path / "x")
    for file in folder.glob("*token*"):
        file.unlink()
    with pytest.raises(RvptError, match="could not load its tokenizer, timm/ViT-B-16-SigLIP on the hub"):
        load_clip(folder)


CLEANED = {
    "whitespace": ["a B_c! d", "A"],
    "lower": ["a b_c! d", "a"],
    "canonicalize": ["a b c d", "a"],
}


@pytest.mark.parametrize("cleaning", CLEANINGS)
def test_texts_are_cleaned_as_open_clip_does(cleaning):
    plain, cleaned = letters_tokenizer(), cleaned_texts(letters_tokenizer(), cleaning, "x")
    for text, expected in zip(["  a \t B_c!\n\nd ", "A"], CLEANED[cleaning], strict=True):
        assert cleaned(text)["input_ids"] == plain(expected)["input_ids"]
    assert cleaned.pad_token_id == plain.pad_token_id


def test_what_a_tokenizer_does_itself_stays(tmp_path):
    own = letters_tokenizer()
    own.backend_tokenizer.normalizer = normalizers.Replace("b", "c")
    assert cleaned_texts(own, "lower", "x")("B")["input_ids"] == letters_tokenizer()("c")["input_ids"]
    assert cleaned_texts(own, None, "x") is own


# What works on both


def test_every_architecture_of_the_registry_has_words():
    assert {kind.summary for kind in ARCHITECTURES.values()} == {"a ViT CLIP", "a ResNet CLIP", "a SigLIP"}


def test_a_saved_model_is_the_same(model, tmp_path):
    model.save_pretrained(tmp_path / "saved")
    again = rvpt.load(tmp_path / "saved")
    assert again.hash() == model.hash()
    assert_near(again.encode_image(images(model)), model.encode_image(images(model)))
    assert torch.equal(again.encode_text(CLASSES), model.encode_text(CLASSES))
    assert again.preprocessing == model.preprocessing
    assert again.activation == model.activation


def test_a_model_of_half_precision_computes(model):
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half.encode_image(images(model)).dtype == torch.bfloat16
    assert F.cosine_similarity(half.encode_image(images(model)).float(), model.encode_image(images(model))).min() > 0.98


def test_converted_it_is_the_same_and_info_says_what_it_is(model, tmp_path):
    facts = convert(model.source, tmp_path / "out")
    assert facts["sha256"] == model.hash()
    assert rvpt.load(tmp_path / "out").hash() == model.hash()
    told = inspect(str(tmp_path / "out"))["model"]
    assert told["architecture"] == {"resnet": "a ResNet CLIP", "siglip": "a SigLIP"}[model.kind]
    names = {"resnet": "ResNet, blocks 1, 2, 1, 1, width 8, image 64", "siglip": "SigLIP, patch 8, image 32"}
    assert told["name"] == names[model.kind]
    kept = {"resnet": "open_clip_model.safetensors", "siglip": "model.safetensors"}[model.kind]
    assert (tmp_path / "out" / kept).is_file()


def test_as_a_model_of_transformers_it_is_a_copy_or_refused(model):
    if model.kind == "siglip":
        assert isinstance(model.to_transformers(), SiglipModel)
    else:
        with pytest.raises(RvptError, match="transformers has no ResNet CLIP"):
            model.to_transformers()


def pairs(n=6):
    labels = [place % 3 for place in range(n)]
    return memory_data(n, labels, CLASSES, [[f"a {CLASSES[label]}"] for label in labels])


def test_it_is_measured(model):
    rows = rvpt.evaluate(model, pairs())
    assert {row["metric"] for row in rows} == {"CA"}
    trigger = rvpt.make_trigger(rvpt.trigger_spec("badnet", target="cat"), model.image_size)
    rows = rvpt.evaluate(model, pairs(), {"badnet": trigger}, protocol="resistivity")
    assert {row["metric"] for row in rows} == {f"PR_{place}" for place in range(1, model.depth + 1)}


def test_it_is_checked(model):
    short = {"steps": 1, "final_steps": 1, "collapse_steps": 1, "num_images": 32, "finalists": 1, "images": 4}
    verdict = rvpt.check(model, memory_data(32, None, CLASSES), CLASSES, **short)
    assert not verdict.facts["calibrated"]
    assert len(verdict.resistivity) == model.depth == geometry_of(model)["blocks"]


SHORT = {"epochs": 1, "batch_size": 3, "lr": 1e-2}


@pytest.mark.parametrize("defense", list(DEFENSES))
def test_every_defense_works_or_is_refused_by_name(model, defense, tmp_path):
    kind, before = DEFENSES[defense], model.hash()
    if defense not in WORKS:
        with pytest.raises(RvptError, match=f"this model is {model.architecture.summary}, .* ViT CLIP: {WORKS}$"):
            rvpt.clean(model, pairs(), defense)
        return
    cleaned = rvpt.clean(model, pairs(), defense, **({} if defense == "probe" else SHORT))
    assert model.hash() == before
    assert cleaned.own_weights == (defense != "probe")
    assert (cleaned.clip.hash() == before) == (defense == "probe")
    assert defense == "probe" or not any(parameter.requires_grad for parameter in cleaned.clip.parameters())
    cleaned.save_pretrained(tmp_path / "saved")
    again = rvpt.load(tmp_path / "saved")
    assert again.hash() == cleaned.hash()
    assert_near(again.encode_image(images(model)), cleaned.encode_image(images(model)))
    assert {row["metric"] for row in rvpt.evaluate(again, pairs())} == {"CA"}
    assert kind.learns_from in ("labels", "captions")


@pytest.mark.parametrize("defense", ["finetune", "contrastive"])
def test_the_repelling_loss_is_refused(model, defense):
    with pytest.raises(RvptError, match=f"this model is {model.architecture.summary}, and prompts"):
        rvpt.clean(model, pairs(), defense, alpha=1.0)


def test_a_job_that_is_refused_leaves_nothing(model, tmp_path):
    from rvpt.jobs.cleaning import clean_and_save

    with pytest.raises(RvptError, match=f"this model is {model.architecture.summary}"):
        clean_and_save(model, "scenes:100", tmp_path / "cleaned", shots=1)
    assert not contents(tmp_path)


def test_prompts_and_states_of_tokens_are_refused(model):
    for ask in (
        lambda: RepulsivePrompts.for_model(model),
        lambda: model.embed(images(model)),
        lambda: model.run_blocks(images(model)),
        lambda: model.project(images(model)),
        lambda: model.hidden_states(images(model), [-1]),
    ):
        with pytest.raises(RvptError, match=f"this model is {model.architecture.summary}"):
            ask()


def test_tuning_leaves_the_statistics_of_a_resnet(tmp_path):
    clip = load_clip(resnet_folder(tmp_path / "x"))
    cleaned = rvpt.clean(clip, pairs(), "cleanclip", **SHORT).clip
    before, after = clip.model.state_dict(), cleaned.model.state_dict()
    for key in before:
        if "running" in key:
            assert torch.equal(before[key], after[key])
    assert not torch.equal(before["visual.bn1.weight"], after["visual.bn1.weight"])


def test_an_attacker_who_knows_rvpt_needs_blocks(model):
    with pytest.raises(RvptError, match="needs a ViT CLIP: use the evasion changes"):
        rvpt.evasion("prompts").refuse(model, ["fox", "owl"], ["owl"])


def test_the_temperature_of_a_siglip_is_not_cut_to_that_of_clips(tmp_path):
    clip = load_clip(siglip_folder(tmp_path / "x"))
    cleaned = rvpt.clean(clip, pairs(), "par", **SHORT).clip
    assert cleaned.logit_scale.item() == pytest.approx(clip.logit_scale.item())
    assert clip.logit_scale.item() > 100


def test_the_tokenizer_of_the_small_resnet_is_its_own(tmp_path):
    assert len(load_clip(resnet_folder(tmp_path / "x")).tokenizer) == len(small_tokenizer())
