"""Towers trained from scratch: the text feature is that of the whole text."""

import pytest
import torch

from rvpt.pretrain import train_tokenizer
from rvpt.readers import load_data

TEXT = "a photo of a red star at the top left"


def test_the_text_feature_is_read_off_the_end(clip):
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


def test_a_tokenizer_keeps_texts_and_puts_their_ends():
    scenes = load_data("scenes:100", "train")
    tokenizer = train_tokenizer([text for i in range(100) for text in scenes.captions(i)], 400)
    for text in scenes.captions(3):
        ids = tokenizer(text)["input_ids"]
        assert (ids[0], ids[-1]) == (tokenizer.bos_token_id, tokenizer.eos_token_id)
        assert tokenizer.decode(ids, skip_special_tokens=True).strip() == text
