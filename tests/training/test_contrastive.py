"""Contrastive training: the loss of a batch against its slow twin, captions and patches drawn from the generator."""

import pytest
import torch

import reference
from helpers import assert_near, memory_data, random_clip, random_pixels
from rvpt.data.augment import crop_flip
from rvpt.training.contrastive import LARGEST_SCALE, Contrastive, drop_patches

CAPTIONS = [["a red star.", "one star"], ["a red star."], ["a large heart on the left."], ["a umbrella", "an umbrella"]]
DATA = memory_data(4, captions=CAPTIONS)
INDICES = torch.tensor([2, 0, 3, 1])


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def test_every_image_gets_one_of_its_captions(clip):
    seen = [set() for _ in CAPTIONS]
    for seed in range(12):
        pixels, texts = Contrastive(clip, DATA).draw(INDICES, seeded(seed))
        assert torch.equal(pixels, DATA.pixels(INDICES, 48))
        for index, text in zip(INDICES.tolist(), texts, strict=True):
            seen[index].add(text)
    assert seen == [set(captions) for captions in CAPTIONS]


def test_images_are_augmented_with_the_same_generator(clip):
    pixels, _ = Contrastive(clip, DATA, "crop-flip").draw(INDICES, seeded())
    assert torch.equal(pixels, crop_flip(DATA.pixels(INDICES, 48), seeded()))


def test_the_loss_is_info_nce_where_equal_captions_are_one(clip):
    task = Contrastive(clip, DATA)
    loss = task(INDICES, seeded(), 0.0)["loss"]
    pixels, texts = task.draw(INDICES, seeded())
    unique = sorted(set(texts))
    pairs = [[text == other for other in unique] for text in texts]
    image, text = clip.encode_image(pixels), clip.encode_text(unique)
    assert_near(loss.detach(), reference.info_nce(image, text, clip.logit_scale.item(), pairs).detach())


def test_the_temperature_stays_within_its_bounds():
    clip = random_clip()
    with torch.no_grad():
        clip.model.logit_scale.fill_(9.0)
    Contrastive(clip, DATA)(INDICES, seeded(), 0.0)
    assert clip.model.logit_scale.item() == pytest.approx(LARGEST_SCALE)


@pytest.mark.parametrize(("share", "kept"), [(0.25, 7), (0.5, 4), (0.75, 2), (0.99, 1)])
def test_a_share_of_the_patches_is_left_out(share, kept):
    tokens = random_pixels(6, 9).flatten(2).mT[:, :10].contiguous()  # (6, 1 + 9, 3), all different
    out = drop_patches(tokens, share, seeded())
    assert out.shape == (6, 1 + kept, 3)
    assert torch.equal(out[:, 0], tokens[:, 0])
    for few, all_of_them in zip(out[:, 1:].tolist(), tokens[:, 1:].tolist(), strict=True):
        assert all(patch in all_of_them for patch in few)
        assert len({tuple(patch) for patch in few}) == kept
    assert torch.equal(out, drop_patches(tokens, share, seeded()))
    assert not torch.equal(out, drop_patches(tokens, share, seeded(1)))


def test_patches_are_left_out_until_a_share_of_the_steps_is_done(clip):
    whole, part = Contrastive(clip, DATA), Contrastive(clip, DATA, patch_drop=0.5, drop_until=0.75)
    early, late = (part(INDICES, seeded(), done)["loss"] for done in (0.5, 0.75))
    expected = whole(INDICES, seeded(), 0.0)["loss"]
    assert late.item() == expected.item()
    assert early.item() != expected.item()
