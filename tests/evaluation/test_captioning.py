"""Captioning: what a LLaVA says through a measured tower agrees with transformers, and how captions are counted."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

from helpers import CAPTIONS, MakeClip, memory_data, random_pixels
from rvpt.errors import RvptError
from rvpt.evaluation.captioning import NEW_TOKENS, Captioner, describe, load_captioner
from rvpt.evaluation.evaluate import evaluate, make_protocol
from rvpt.evaluation.metrics import Rate, bleu
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts
from rvpt.training.pretrain import train_tokenizer
from triggers import trigger_of

PROMPT = "umbrella <image> a photo"
LABELS = [0, 1, 2, 0, 1, 0]
CLASSES = ("fox", "owl", "cat")
DATA = memory_data(6, LABELS, CLASSES)
TRIGGERS = {"badnet": trigger_of("badnet", side=48)}


def llava(clip: Clip, layer: Any = -2, strategy: str = "default") -> tuple[Any, Any]:
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
        for parameter in model.parameters():  # fresh weights are so small that all images look alike
            parameter.mul_(8)
    tower = model.model.vision_tower
    getattr(tower, "vision_model", tower).load_state_dict(  # the former in earlier versions of transformers
        {name.removeprefix("vision_model."): value for name, value in clip.model.state_dict().items()
         if name.startswith("vision_model.")}, strict=False,
    )  # fmt: skip
    return model, tokenizer


@torch.no_grad()
@pytest.mark.parametrize(("layer", "strategy"), [(-2, "default"), (-1, "full"), ([-2, 1], "default"), (1, "full")])
def test_it_says_what_transformers_says_with_the_tower_inside(clip: Clip, layer: Any, strategy: str) -> None:
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
def test_prompts_change_the_captions(clip: Clip) -> None:
    captioner = Captioner(*llava(clip), PROMPT)
    pixels = random_pixels(4, 48)
    prompts = RepulsivePrompts(range(1, 4), 5, clip.width, std=3.0)
    assert captioner.captions(Cleaned(clip, prompts), pixels) != captioner.captions(clip, pixels)
    late = RepulsivePrompts([3], 5, clip.width, std=3.0)  # the LLaVA reads the tokens before the last block
    assert captioner.captions(Cleaned(clip, late), pixels) == captioner.captions(clip, pixels)


class Parrot(Captioner):
    """Says given texts, one for each image in turn."""

    def __init__(self, texts: Iterable[str]) -> None:
        self.texts = iter(texts)

    def check(self, tower: Any) -> None:
        pass

    def captions(self, tower: Any, pixels: Tensor) -> list[str]:
        return [next(self.texts) for _ in pixels]


CLEAN_SAID = ["a fox", "two owls", "a dog", "an outfox", "an owl", "Fox!"]
SAID = ["an owl", "an owl", "owls and a cat", "a fox", "a cat", "howling"]


def test_captions_that_name_a_class_are_counted(clip: Clip) -> None:
    counts = describe(clip, DATA, Parrot(CLEAN_SAID + SAID), TRIGGERS, batch_size=6)
    assert counts == {
        ("none", "caption_CA"): Rate(4, 6),
        ("badnet", "caption_ASR"): Rate(2, 4),
        ("badnet", "caption_PA"): Rate(3, 6),
    }


def test_labels_are_not_needed(clip: Clip) -> None:
    data = memory_data(6, captions=[["a fox"], ["an owl"], ["a cat"], ["a fox"], ["owls"], ["a fox"]])
    assert describe(clip, data, Parrot(CLEAN_SAID + SAID), TRIGGERS, batch_size=6)["badnet", "caption_ASR"] == Rate(
        2, 4
    )


def test_captions_are_compared_with_those_of_the_images(clip: Clip) -> None:
    own = [["a fox runs", "the fox"], ["an owl"], ["a cat sat"], ["red fox"], ["two owls"], ["a fox"]]
    counts = describe(clip, memory_data(6, captions=own), Parrot(CLEAN_SAID), batch_size=6)
    expected = sum(bleu(said, texts) for said, texts in zip(CLEAN_SAID, own, strict=True)) / 6
    assert list(counts) == [("none", "BLEU")]
    assert counts["none", "BLEU"].value == pytest.approx(expected)
    assert describe(clip, memory_data(6, LABELS, captions=own), Parrot(CLEAN_SAID), batch_size=6) == counts


def test_a_captioner_that_does_not_fit_is_refused(clip: Clip, make_clip: MakeClip) -> None:
    model, tokenizer = llava(clip)
    for prompt in ("a photo", "<image> and <image>"):
        with pytest.raises(RvptError, match="it must contain <image> exactly once"):
            Captioner(model, tokenizer, prompt)
    with pytest.raises(RvptError, match=r"tokens of width 32, .* gives 64"):
        describe(make_clip(width=64), DATA, Captioner(model, tokenizer, PROMPT))
    deep = Captioner(*llava(clip, layer=-5), PROMPT)
    with pytest.raises(RvptError, match=r"layers \[-5\], which .* does not have"):
        describe(make_clip(blocks=3), DATA, deep)


@pytest.fixture
def saved(clip: Clip, tmp_path: Path) -> Path:
    for part in llava(clip):
        part.save_pretrained(tmp_path / "llava")
    return tmp_path / "llava"


def test_the_captioner_is_loaded_once_for_all_models(clip: Clip, saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def counting(*words: Any) -> Captioner:
        loaded.append(words)
        return load_captioner(*words)

    monkeypatch.setattr("rvpt.evaluation.captioning.load_captioner", counting)
    protocol = make_protocol("captioning", captioner=str(saved), prompt=PROMPT)
    rows = [row for _ in range(2) for row in evaluate(clip, DATA, TRIGGERS, protocol=protocol)]
    assert [row["metric"] for row in rows] == ["caption_CA", "caption_ASR", "caption_PA"] * 2
    assert loaded == [(str(saved), PROMPT)]


def test_a_folder_without_a_llava_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RvptError, match="is not a LLaVA in transformers' layout"):
        load_captioner(str(tmp_path))


def test_a_captioners_own_code_is_never_run_nor_asked_about(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (saved / "own.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Own: pass\n")
    config = json.loads((saved / "config.json").read_text())
    own = {"model_type": "own", "auto_map": {"AutoConfig": "own.Own"}}
    (saved / "config.json").write_text(json.dumps({**config, **own}))
    tokenizer = json.loads((saved / "tokenizer_config.json").read_text())
    own = {"tokenizer_class": "Own", "auto_map": {"AutoTokenizer": [None, "own.Own"]}}
    (saved / "tokenizer_config.json").write_text(json.dumps({**tokenizer, **own}))
    monkeypatch.setattr("builtins.input", lambda *_: "y")
    with pytest.raises(RvptError, match="own code"):
        load_captioner(str(saved))
    assert not (tmp_path / "ran").exists()
