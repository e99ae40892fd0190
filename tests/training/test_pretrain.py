"""Pretraining: the tokenizer, the text feature of the whole text, and a small CLIP trained from scratch."""

import pytest
import torch

from helpers import memory_data
from rvpt import Clip, load_data, pretrain
from rvpt.errors import RvptError
from rvpt.training.pretrain import PRESETS, PretrainSpec, VisionSpec, new_clip, train_tokenizer

TEXT = "a photo of a red star at the top left"
SMALL = {"width": 16, "blocks": 2, "heads": 2, "text_width": 16, "text_blocks": 1, "projection": 8, "patch_size": 16}


def test_the_text_feature_is_read_at_the_end(clip):
    """Each text is fed to the tower by hand, and its last token's output projected."""
    for text in (TEXT, "umbrella", "a"):
        ids = clip.tokenize([text])
        assert ids[0, -1] == clip.tokenizer.eos_token_id != 2
        with torch.no_grad():
            last = clip.model.text_model(input_ids=ids).last_hidden_state[0, -1]
            expected = torch.nn.functional.normalize(clip.model.text_projection(last), dim=-1)
            torch.testing.assert_close(clip.encode_text([text])[0], expected)


@pytest.mark.parametrize("place", range(9))
def test_every_word_of_a_text_counts(clip, place):
    words = TEXT.split()
    other = [*words[:place], "snowman", *words[place + 1 :]]
    with torch.no_grad():
        one, two = clip.encode_text([TEXT, " ".join(other)])
    assert float(one @ two) < 0.9999


def test_a_tokenizer_keeps_texts_and_marks_their_ends():
    scenes = load_data("scenes:100", "train")
    tokenizer = train_tokenizer([text for i in range(100) for text in scenes.captions(i)], 400)
    assert 300 < len(tokenizer) <= 400
    for text in scenes.captions(3):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text


def test_a_new_clip_has_the_geometry_that_was_asked_for(clip):
    made = new_clip(VisionSpec(**SMALL), clip.tokenizer, seed=0)
    assert (made.width, len(made.blocks), made.image_size) == (16, 2, 48)
    assert made.encode_text(["a"]).shape == (1, 8)
    again, other = (new_clip(VisionSpec(**SMALL), clip.tokenizer, seed) for seed in (0, 1))
    assert made.hash() == again.hash() != other.hash()


@pytest.mark.parametrize(
    "values", [{"image_size": 50}, {"patch_size": 7}, {"heads": 3}, {"text_width": 33}, {"width": 36, "heads": 8}]
)
def test_a_geometry_that_does_not_fit_is_refused(values):
    with pytest.raises(RvptError, match="patch_size must divide image_size, and heads must divide both widths"):
        VisionSpec(**values)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_geometry_and_a_schedule(name):
    preset = PRESETS[name]
    assert VisionSpec(**preset["vision"]).model_dump().items() >= preset["vision"].items()
    assert PretrainSpec(**preset["train"]).model_dump().items() >= preset["train"].items()


def test_a_small_clip_is_pretrained():
    data, told = load_data("scenes:64", "train"), []
    report = lambda step, total, values: told.append((step, total, values["loss"]))  # noqa: E731
    model = pretrain(data, geometry=SMALL, epochs=4, batch_size=32, lr=5e-3, report=report)
    assert type(model) is Clip
    assert [(step, total) for step, total, _ in told] == [(step, 8) for step in range(1, 9)]
    assert told[-1][2] < told[0][2]
    assert not model.model.training
    again = pretrain(data, geometry=SMALL, epochs=4, batch_size=32, lr=5e-3)
    assert again.hash() == model.hash()


def test_settings_that_do_not_exist_are_refused():
    data = memory_data(4, captions=[["a"]] * 4)
    with pytest.raises(RvptError, match="unknown preset 'huge': choose from scenes, photos"):
        pretrain(data, preset="huge")
    with pytest.raises(RvptError, match="rate: unknown setting: choose from "):
        pretrain(data, rate=1)
    with pytest.raises(RvptError, match="depth: unknown setting: choose from "):
        pretrain(data, geometry={"depth": 1})
    with pytest.raises(RvptError, match="memory has no captions"):
        pretrain(memory_data(4, [0, 1, 0, 1], ("a", "b")), geometry=SMALL)
