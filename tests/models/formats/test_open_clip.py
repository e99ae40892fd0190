"""open_clip itself, where it is installed: converted models give its outputs, and CLIP's tokenizer gives its tokens.

These are the slow, independent checks; `test_files.py` has the same against formulas that are written out there.
"""

import inspect

import pytest
import torch
from safetensors.torch import save_file

from helpers import random_image
from openai_layout import Geometry, open_clip_config, small_tokenizer, write_tokenizer
from resnet_layout import resnet_config, resnet_weights
from rvpt.data.preprocess import ImageSize, to_pixels
from rvpt.errors import RvptError
from rvpt.files import write_json
from rvpt.models.formats.geometry import HEADS
from rvpt.models.formats.load import load_clip
from rvpt.models.formats.open_clip import from_model
from rvpt.models.formats.preprocessing import from_open_clip
from rvpt.models.formats.tokenizers import clip_tokenizer

pytestmark = pytest.mark.slow
transformers = pytest.importorskip("transformers.models.clip.modeling_clip")  # before open_clip, which imports more
open_clip = pytest.importorskip("open_clip")

CHANGES = {
    "as it is": {},
    "other heads, widths and ratio": {"geometry": Geometry(4, 24, 96, 3, 1, 400, 48, 3, 2, 20)},
    "another eps": {"vision": {"norm_kwargs": {"eps": 1e-3}}},
    "fixed positions, patches dropped in training": {"vision": {"pos_embed_type": "sin_cos_2d", "patch_dropout": 0.5}},
    "a custom text tower": {"custom": True},
}
TEXTS = [
    "a photo of a cat.",
    "It's 3 O'Clock -- naïve CAFÉ 日本語 🙂!!",
    "  many   spaces\n",
    "a_b c/d 12345",
    "x" * 300,
    "",
]


@pytest.mark.parametrize("quick", [True, False], ids=["quick_gelu", "gelu"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("pickled", [True, False])
@torch.no_grad()
def test_a_model_of_open_clip_gives_the_same_outputs(tmp_path, change, quick, pickled):
    options = CHANGES[change]
    config = open_clip_config(options.get("geometry", Geometry()), quick=quick, mean=[0.5] * 3, std=[0.25] * 3)
    config["model_cfg"]["vision_cfg"].update(options.get("vision", {}))
    kind = open_clip.CustomTextCLIP if options.get("custom") else open_clip.CLIP
    torch.manual_seed(0)
    model = kind(**config["model_cfg"]).eval()
    for parameter in model.parameters():
        parameter.add_(0.1 * torch.randn_like(parameter))
    folder = write_tokenizer(tmp_path / "model")
    write_json(folder / "open_clip_config.json", config)
    if pickled:
        torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    else:
        save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    clip = load_clip(folder)
    pixels, texts, length = torch.rand(3, 3, clip.image_size, clip.image_size), ["a cat.", "a seal, a cat"], 20
    ids = small_tokenizer()(texts, padding="max_length", max_length=length, truncation=True, return_tensors="pt")
    tokens = ids["input_ids"] * ids["attention_mask"]  # open_clip pads with zeros
    padded = torch.zeros(2, model.context_length, dtype=torch.long)
    padded[:, :length] = tokens
    ours, theirs = clip.encode_image(pixels), model.encode_image(clip.normalize(pixels), normalize=True)
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.encode_text(texts), model.encode_text(padded, normalize=True), atol=1e-5, rtol=0)
    torch.testing.assert_close(clip.logit_scale, model.logit_scale.exp())


@pytest.mark.parametrize("text", TEXTS)
def test_clips_tokenizer_gives_the_tokens_of_open_clip(text):
    theirs = open_clip.get_tokenizer("ViT-B-32")([text])[0]
    ours = clip_tokenizer("model")(text, truncation=True, max_length=77)["input_ids"]
    end = ours.index(49407)
    assert ours[: end + 1] == theirs[: end + 1].tolist()


def test_every_plain_vit_of_open_clips_list_is_understood():
    found = {}
    for name in open_clip.list_models():
        try:
            found[name] = from_model(open_clip.get_model_config(name), name)
        except RvptError as error:
            found[name] = str(error)
    read = {name for name, facts in found.items() if not isinstance(facts, str)}
    assert {"RN50", "RN50x64", "ViT-B-16-SigLIP", "ViT-SO400M-16-SigLIP2-256"} <= read
    read = {name for name in read if not name.startswith("RN") and "SigLIP" not in name}
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-g-14", "ViT-bigG-14"} <= read
    assert {"coca_ViT-B-32", "EVA02-B-16", "roberta-ViT-B-32", "nllb-clip-base-siglip"}.isdisjoint(read)
    for name in read:  # what is assumed where there is no configuration
        width = open_clip.get_model_config(name)["vision_cfg"]["width"]
        assert found[name].config["vision_config"]["num_attention_heads"] == HEADS.get(width, width // 64), name


@pytest.mark.parametrize("mode", ["shortest", "squash", "longest"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_images_are_preprocessed_as_open_clip_does(mode, interpolation):
    facts = {
        "size": 24, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": interpolation,
        "resize_mode": mode, "fill_color": 7 if mode == "longest" else 0,
    }  # fmt: skip
    transform = open_clip.transform.image_transform_v2(open_clip.transform.PreprocessCfg(**facts), is_train=False)
    found = from_open_clip(facts, "x")
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (found.mean, found.std))
    for width, height in [(24, 24), (50, 70), (71, 50), (7, 5), (90, 31), (31, 97), (200, 9)]:
        image = random_image(width, height)
        ours = (to_pixels(image, ImageSize(24, found.resizing)) - mean) / std
        assert (ours - transform(image)).abs().max() < 1.01 / 255 / 0.2


def test_a_resnet_that_was_saved_is_read_by_open_clip(tmp_path):
    folder, pixels = write_tokenizer(tmp_path / "x"), torch.rand(2, 3, 64, 64)
    save_file(resnet_weights(), folder / "open_clip_model.safetensors")
    write_json(folder / "open_clip_config.json", resnet_config(mean=[0.5] * 3, std=[0.25] * 3))
    clip = load_clip(folder)
    clip.save_pretrained(tmp_path / "saved")
    theirs = open_clip.create_model(f"local-dir:{tmp_path / 'saved'}").eval()
    ids = clip.tokenizer(TEXTS[:1], padding="max_length", max_length=40, return_tensors="pt")
    tokens = ids["input_ids"] * ids["attention_mask"]
    with torch.no_grad():
        image, text = theirs.encode_image(clip.normalize(pixels)), theirs.encode_text(tokens)
        assert (torch.nn.functional.normalize(image, dim=-1) - clip.encode_image(pixels)).abs().max() < 1e-5
        assert (torch.nn.functional.normalize(text, dim=-1) - clip.encode_text(TEXTS[:1])).abs().max() < 1e-5


def test_every_siglip_and_resnet_of_open_clips_list_is_understood():
    timm = pytest.importorskip("timm")
    names = [name for name in open_clip.list_models() if "SigLIP" in name or name.startswith("RN")]
    assert len(names) > 25
    for name in names:
        config = open_clip.get_model_config(name)
        if config["text_cfg"].get("proj_type") == "none":  # a SigLIP of 80 languages, whose text tower has no head
            continue
        found = from_model(config, name).config["vision_config"]
        if kind := config["vision_cfg"].get("timm_model_name"):
            arguments = inspect.getsource(getattr(timm.models.vision_transformer, kind))
            assert found["hidden_act"] == ("gelu_pytorch_tanh" if "gelu_tanh" in arguments else "gelu"), name
