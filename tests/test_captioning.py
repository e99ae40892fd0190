"""Captioning: what a LLaVA says through a measured tower, against transformers' own way, and how it is counted."""

import json

import pytest
import torch
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from commands import refused, works
from conftest import CAPTIONS
from helpers import memory_data, random_pixels
from rvpt.attacks import make_trigger, trigger_spec
from rvpt.captioning import NEW_TOKENS, Captioner, describe, load_captioner
from rvpt.defenses import Cleaned
from rvpt.errors import RvptError
from rvpt.metrics import Rate
from rvpt.pretrain import train_tokenizer
from rvpt.prompts import RepulsivePrompts

PROMPT = "umbrella <image> a photo"
LABELS = [0, 1, 2, 0, 1, 0]
CLASSES = ("fox", "owl", "cat")


def llava(clip, layer=-2, strategy="default"):
    """A random LLaVA whose own tower is a copy of the clip's, and a tokenizer with a token for images."""
    tokenizer = train_tokenizer(CAPTIONS, 300)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    text = LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
        vocab_size=len(tokenizer), pad_token_id=0, bos_token_id=2, eos_token_id=1,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=clip.model.config.vision_config, text_config=text, vision_feature_layer=layer,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"), vision_feature_select_strategy=strategy,
    )  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # fresh ones are so small that all images look alike
            parameter.mul_(8)
    model.model.vision_tower.load_state_dict(
        {name.removeprefix("vision_model."): value for name, value in clip.model.state_dict().items()
         if name.startswith("vision_model.")}, strict=False,
    )  # fmt: skip
    return model, tokenizer


@torch.no_grad()
@pytest.mark.parametrize(("layer", "strategy"), [(-2, "default"), (-1, "full"), ([-2, 1], "default"), (1, "full")])
def test_it_says_what_transformers_says_with_the_tower_inside(clip, layer, strategy):
    model, tokenizer = llava(clip, layer, strategy)
    pixels = random_pixels(3, 48)
    ids = tokenizer(PROMPT, return_tensors="pt")["input_ids"][0]
    place = (ids == model.config.image_token_id).nonzero().item()
    tokens = (48 // 16) ** 2 + (strategy == "full")
    ids = torch.cat([ids[:place], ids[place].expand(tokens), ids[place + 1 :]]).expand(3, -1)
    said = model.generate(
        input_ids=ids, pixel_values=(pixels - clip.mean) / clip.std, attention_mask=torch.ones_like(ids),
        max_new_tokens=NEW_TOKENS, do_sample=False, pad_token_id=0,
    )[:, ids.shape[1] :]  # fmt: skip
    expected = tokenizer.batch_decode(said, skip_special_tokens=True)
    assert Captioner(model, tokenizer, PROMPT).captions(clip, pixels) == expected
    assert len(set(expected)) > 1


@torch.no_grad()
def test_prompts_are_heard(clip):
    captioner = Captioner(*llava(clip), PROMPT)
    pixels = random_pixels(4, 48)
    prompts = RepulsivePrompts(range(1, 4), 5, clip.width, std=3.0)
    assert captioner.captions(Cleaned(clip, prompts), pixels) != captioner.captions(clip, pixels)
    early = RepulsivePrompts([3], 5, clip.width, std=3.0)  # the LLaVA listens before the last block
    assert captioner.captions(Cleaned(clip, early), pixels) == captioner.captions(clip, pixels)


class Parrot(Captioner):
    """Says what it is told of each image, in turn."""

    def __init__(self, texts):
        self.texts = iter(texts)

    def check(self, tower):
        pass

    def captions(self, tower, pixels):
        return [next(self.texts) for _ in pixels]


TRIGGERS = {"badnet": make_trigger(trigger_spec("badnet", target="owl"), 48)}
CLEAN_SAID = ["a fox", "two owls", "a dog", "an outfox", "an owl", "Fox!"]
SAID = ["an owl", "an owl", "owls and a cat", "a fox", "a cat", "howling"]


def test_captions_that_name_a_class_are_counted(clip):
    counts = describe(clip, memory_data(6, LABELS, CLASSES), Parrot(CLEAN_SAID + SAID), TRIGGERS, batch_size=6)
    assert counts == {
        ("none", "caption_CA"): Rate(4, 6),
        ("badnet", "caption_ASR"): Rate(2, 4),
        ("badnet", "caption_PA"): Rate(3, 6),
    }


def test_captions_without_labels_are_enough(clip):
    data = memory_data(6, captions=[["a fox"], ["an owl"], ["a cat"], ["a fox"], ["owls"], ["a fox"]])
    assert describe(clip, data, Parrot(SAID), TRIGGERS, batch_size=6) == {("badnet", "caption_ASR"): Rate(2, 4)}


def test_what_it_cannot_do_is_said(clip, make_clip):
    model, tokenizer = llava(clip)
    with pytest.raises(RvptError, match="it must hold <image> once"):
        Captioner(model, tokenizer, "a photo")
    with pytest.raises(RvptError, match=r"projector takes tokens of width 32, .* gives 64"):
        describe(make_clip(width=64), memory_data(6, LABELS, CLASSES), Captioner(model, tokenizer, PROMPT))


def test_the_command(tiny, tmp_path):
    import rvpt

    model, tokenizer = llava(rvpt.load(tiny.clip))
    model.save_pretrained(tmp_path / "llava")
    tokenizer.save_pretrained(tmp_path / "llava")
    words = ["--data", "scenes:48", "--limit", 4, "--protocol", "captioning", "--prompt", PROMPT]
    rows = json.loads(
        works("evaluate", tiny.backdoored, tiny.cleaned, *words, "--captioner", tmp_path / "llava", "--json")
    )
    assert [row["metric"] for row in rows] == ["caption_CA", *["caption_ASR", "caption_PA"] * 2] * 2
    assert {row["n"] for row in rows if row["metric"] == "caption_CA"} == {4}
    assert "needs a captioner" in refused("evaluate", tiny.clip, *words)
    assert "no LLaVA" in refused("evaluate", tiny.clip, *words, "--captioner", tiny.clip)
    assert load_captioner(str(tmp_path / "llava"), PROMPT).layers == [-2]
