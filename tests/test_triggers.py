"""Triggers: what every one of them promises, the arithmetic of each, and the random numbers under them."""

from functools import cache
from itertools import product
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kstest
from torch.nn import functional as F

from conftest import SMALL, tokenizer
from helpers import changed_alike, memory_data, random_pixels
from rvpt.attacks import TRIGGERS, craft_trigger, load_trigger, make_trigger, trigger_spec
from rvpt.attacks.blend import blend
from rvpt.attacks.optimized import PatchTask, dual_embedding, sentence_distance
from rvpt.attacks.patch import paste
from rvpt.attacks.patterns import stripes, text, triangles
from rvpt.attacks.sinusoid import sinusoid
from rvpt.attacks.stega import stega_loss, text_bits
from rvpt.attacks.warp import warp, warping_field
from rvpt.config import VisionSpec
from rvpt.draws import uniform
from rvpt.errors import RvptError
from rvpt.loaders import EMBEDDED, load_clip
from rvpt.pretrain import new_clip
from rvpt.readers import load_data
from rvpt.similarity import psnr

SIDE = 32
ROWS = torch.tensor([4, 0, 90_000, 17, 5])
PIXELS = random_pixels(5, SIDE)
MASK = 2**64 - 1
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
GOLDEN = 0x9E3779B97F4A7C15


def trigger_of(name, mode="fixed", seed=1, side=SIDE, **spec):
    if TRIGGERS[name].crafted:
        spec = {"epochs": 1, "images": 8, "batch_size": 4, **spec}
        return craft_trigger(trigger_spec(name, target="owl", mode=mode, seed=seed, **spec), *model_and_images(side))
    return make_trigger(trigger_spec(name, target="owl", mode=mode, seed=seed, **spec), side)


@cache
def model_and_images(side):
    """What a crafted trigger is made of: a random CLIP for images of a size, and captioned images."""
    clip = new_clip(VisionSpec(**{**SMALL, "image_size": side}), tokenizer(), 0)
    return clip.eval(), memory_data(
        24, [i % 3 for i in range(24)], ("fox", "owl", "cat"), [[f"number {i}"] for i in range(24)]
    )


MODES = [
    (name, mode) for name, kind in TRIGGERS.items() for mode in get_args(kind.Spec.model_fields["mode"].annotation)
]
STEADY = ("blended-triangles", "blended-text")  # nothing in them is drawn


@pytest.fixture(params=MODES, ids="-".join)
def kind(request):
    """(name, mode) of a trigger."""
    return request.param


@pytest.fixture
def trigger(kind):
    return trigger_of(*kind)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triggered_images_are_images_and_the_input_stays(trigger, dtype, device):
    pixels = PIXELS.to(device, dtype)
    before = pixels.clone()
    out = trigger(pixels, ROWS)
    assert (out.shape, out.dtype, out.device) == (pixels.shape, dtype, pixels.device)
    torch.testing.assert_close(out.cpu(), trigger(PIXELS.to(dtype), ROWS), atol=1e-4, rtol=0)
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(pixels, before)
    assert ((out != pixels).flatten(1).any(1)).all()


def test_the_extremes_stay_images(trigger):
    for value in (0.0, 1.0):
        out = trigger(torch.full((2, 3, SIDE, SIDE), value))
        assert out.min() >= 0
        assert out.max() <= 1


def test_the_same_spec_makes_the_same_trigger(trigger, kind):
    assert torch.equal(trigger(PIXELS, ROWS), trigger_of(*kind)(PIXELS, ROWS))


def test_another_seed_makes_another_trigger(trigger, kind):
    same = torch.equal(trigger(PIXELS, ROWS), trigger_of(*kind, seed=2)(PIXELS, ROWS))
    assert same == (trigger.name in STEADY)


def test_a_image_is_changed_alike_in_any_order_and_batch(trigger):
    changed_alike(trigger, PIXELS, ROWS)


def test_rows_count_from_zero_by_default(trigger):
    assert torch.equal(trigger(PIXELS), trigger(PIXELS, torch.arange(5)))


def test_an_empty_batch_stays_empty(trigger):
    assert trigger(PIXELS[:0], ROWS[:0]).shape == (0, 3, SIDE, SIDE)


def test_only_fresh_triggers_change_with_the_row(kind):
    name, mode = kind
    trigger = trigger_of(name, mode, **({"place": "middle"} if "place" in TRIGGERS[name].Spec.model_fields else {}))
    one, other = (trigger(PIXELS[:1], torch.tensor([row])) for row in (0, 1))
    assert torch.equal(one, other) == (mode == "fixed")


def test_a_saved_trigger_is_the_same(trigger, tmp_path):
    trigger.save(tmp_path / "t")
    loaded = load_trigger(tmp_path / "t", SIDE)
    assert loaded.spec == trigger.spec
    assert loaded.hash() == trigger.hash()
    assert torch.equal(loaded(PIXELS, ROWS), trigger(PIXELS, ROWS))


@pytest.mark.parametrize(("name", "other"), [("blended", {"ratio": 0.9}), ("badnet", {"place": "top-left"})])
def test_a_trigger_s_hash_tells_its_settings_but_not_its_target(name, other):
    assert trigger_of(name, **other).hash() != trigger_of(name).hash()
    assert trigger_of(name).towards("fox").hash() == trigger_of(name).hash()


def test_tensors_that_are_not_such_a_trigger_s_are_refused(trigger, tmp_path):
    other = make_trigger(trigger_spec("badnet", target="owl", size=100), 64)
    other.spec, other.image_size = trigger.spec, trigger.image_size
    other.save(tmp_path / "t")
    with pytest.raises(
        RvptError, match=r"trigger.safetensors does not fit the trigger's settings or is not finite: make it"
    ):
        load_trigger(tmp_path / "t")


def test_a_trigger_that_is_not_finite_is_refused(tmp_path):
    trigger = trigger_of("badnet")
    trigger.tensors["pattern"][0] = torch.nan
    trigger.save(tmp_path / "t")
    with pytest.raises(RvptError, match="not finite: make it again"):
        load_trigger(tmp_path / "t")


@pytest.mark.parametrize(("key", "said"), [("SUDO ", "SUDO "), ("SUDO", "SUDO "), (" in fact ", "in fact "), ("", "")])
def test_a_text_key_is_words_of_its_own(key, said):
    assert make_start("trojvqa", text_key=key).text_key == said


def test_images_of_another_size_are_refused(trigger, tmp_path):
    with pytest.raises(RvptError, match=f"{SIDE}x{SIDE}, not 20x20: make one for this size"):
        trigger(random_pixels(1, 20))
    with pytest.raises(RvptError, match="not 32x20"):
        trigger(torch.zeros(1, 3, 32, 20))
    trigger.save(tmp_path / "t")
    with pytest.raises(RvptError, match="made for images of 32x32, the model takes 20x20: make one"):
        load_trigger(tmp_path / "t", 20)


def test_an_unknown_trigger_is_refused():
    with pytest.raises(RvptError, match=f"no trigger 'stripe': there are {', '.join(TRIGGERS)}"):
        trigger_spec("stripe", target="owl")


def test_a_folder_of_another_kind_is_refused(tmp_path):
    with pytest.raises(RvptError, match="no rvpt artifact"):
        load_trigger(tmp_path)


# BadNet


@pytest.mark.parametrize("batched", [False, True])
def test_paste_agrees_with_loops(batched):
    patch = random_pixels(5, 4, seed=2)
    top, left = torch.tensor([0, 28, 3, 9, 28]), torch.tensor([28, 0, 7, 3, 28])
    expected = PIXELS.clone()
    for b, channel, i, j in product(range(5), range(3), range(4), range(4)):
        expected[b, channel, top[b] + i, left[b] + j] = patch[b if batched else 0, channel, i, j]
    assert torch.equal(paste(PIXELS, patch if batched else patch[0], top, left), expected)


def box(changed):
    """(top, left, bottom, right) of the pixels that are set in (H, W)."""
    rows, columns = (changed.any(axis).nonzero()[:, 0] for axis in (1, 0))
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def patch_boxes(n, **options):
    trigger = trigger_of("badnet", **options)
    out = trigger(torch.full((n, 3, trigger.image_size, trigger.image_size), 0.5))
    return [box(changed) for changed in (out != 0.5).all(1)]


@pytest.mark.parametrize("mode", ["fixed", "fresh"])
@pytest.mark.parametrize(
    ("side", "size", "patch"), [(224, 16, 16), (112, 16, 8), (48, 16, 3), (48, 56, 12), (16, 1, 1), (32, 900, 32)]
)
def test_the_patch_scales_with_the_image(side, size, patch, mode):
    for top, left, bottom, right in patch_boxes(3, side=side, size=size, mode=mode):
        assert bottom - top == right - left == patch


@pytest.mark.parametrize(
    ("place", "corner"),
    [("top-left", (0, 0)), ("top-right", (0, 28)), ("bottom-left", (28, 0)), ("bottom-right", (28, 28)),
     ("middle", (14, 14))],
)  # fmt: skip
def test_the_patch_is_where_it_should_be(place, corner):
    top, left = corner
    assert patch_boxes(3, place=place, size=28) == [(top, left, top + 4, left + 4)] * 3


def test_a_random_place_reaches_every_place():
    corners = {(top, left) for top, left, _, _ in patch_boxes(600, side=16, size=168)}
    assert corners == set(product(range(5), repeat=2))


# Blended


@pytest.mark.parametrize("ratio", [0.0, 0.2, 1.0])
def test_blend_agrees_with_loops(ratio):
    pixels, pattern = random_pixels(2, 5), random_pixels(1, 5, seed=3)[0]
    expected = torch.empty_like(pixels)
    for b, channel, i, j in product(range(2), range(3), range(5), range(5)):
        x, p = (np.float32(t) for t in (pixels[b, channel, i, j], pattern[channel, i, j]))
        expected[b, channel, i, j] = float(np.float32(1 - ratio) * x + np.float32(ratio) * p)
    assert torch.equal(blend(pixels, pattern, ratio), expected)


def test_blended_mixes_at_the_ratio_of_the_spec():
    black, white = torch.zeros(1, 3, SIDE, SIDE), torch.ones(1, 3, SIDE, SIDE)
    trigger = trigger_of("blended", ratio=0.3)
    torch.testing.assert_close(trigger(white) - trigger(black), 0.7 * white)
    assert 0.28 < trigger(black).max() <= 0.3


# PAR's structured patterns


@pytest.mark.parametrize("pattern", [stripes, triangles, text])
def test_a_structured_pattern_has_its_shape_on_every_row(pattern):
    images = pattern(3, ROWS, 48)
    assert (images.shape, images.dtype) == ((5, 3, 48, 48), torch.float32)
    assert len(images.flatten(1).unique(dim=0)) == (5 if pattern is stripes else 1)


def test_stripes_agree_with_loops():
    (image,), draws = stripes(3, ROWS[:1], 9), uniform(3, ROWS[:1], 27)[0]
    for channel, i, j in product(range(3), range(9), range(9)):
        assert image[channel, i, j] == (-1 if draws[9 * channel + j] < 0.5 else 1)
    assert image.unique().tolist() == [-1, 1]


@pytest.mark.parametrize(("side", "leg"), [(224, 14), (48, 3), (32, 2)])
def test_triangles_agree_with_loops(side, leg):
    (image,) = triangles(0, ROWS[:1], side)
    for i, j in product(range(0, side, 5), range(side)):
        assert image[:, i, j].tolist() == pytest.approx([0.4 if i % leg >= j % leg else 0.8] * 3)


def test_text_is_a_red_word_across_the_middle():
    (image,) = text(0, ROWS[:1], 48)
    assert image[0].unique().tolist() == [0, 1]
    assert not image[1:].any()
    down, right = image[0].any(1).nonzero()[:, 0], image[0].any(0).nonzero()[:, 0]
    assert 16 < down.min() < 24 <= down.max() < 32
    assert right.min() <= 2
    assert right.max() >= 45


def test_blended_stripes_darken_and_brighten():
    gray = torch.full((1, 3, SIDE, SIDE), 0.5)
    changed = trigger_of("blended-stripes", ratio=0.1)(gray)
    torch.testing.assert_close(changed.unique(), torch.tensor([0.35, 0.55]))


def test_blended_text_leaves_what_is_not_under_its_letters():
    pixels = torch.rand(2, 3, SIDE, SIDE)
    trigger = trigger_of("blended-text")
    changed, (letters, *_) = trigger(pixels), trigger.tensors["pattern"]
    assert torch.equal(changed[:, 1:], pixels[:, 1:])
    expected = torch.where(letters > 0, 0.5 * pixels[:, 0] + 0.5, pixels[:, 0])
    torch.testing.assert_close(changed[:, 0], expected)


# SIG


@pytest.mark.parametrize("waves", [1.0, 6.0, 2.5])
def test_sinusoid_agrees_with_loops(waves):
    phase = torch.tensor([0.0, 0.3])
    wave = sinusoid(phase, 0.2, waves, 16)
    assert wave.shape == (2, 1, 1, 16)
    for b, j in product(range(2), range(16)):
        expected = 0.2 * np.sin(2 * np.pi * (waves * j / 16 + phase[b].item()))
        assert wave[b, 0, 0, j].item() == pytest.approx(expected, abs=1e-5)


def test_sig_adds_the_same_to_every_row_and_channel():
    gray = torch.full((1, 3, SIDE, SIDE), 0.5)
    added = trigger_of("sig")(gray) - gray
    assert torch.equal(added, added[:, :1, :1].expand_as(added))
    assert added.abs().max() <= 40 / 255 + 1e-6
    assert added.abs().max() > 0.9 * 40 / 255


# WaNet


def slow_warp(pixels, field, strength):
    """Each pixel from its four neighbors."""
    side, out = pixels.shape[-1], torch.empty_like(pixels)
    for i, j in product(range(side), range(side)):
        place = []
        for axis, index in ((0, j), (1, i)):
            at = -1 + 2 * index / (side - 1) + strength / side * float(field[i, j, axis])
            place.append((min(1, max(-1, at)) + 1) / 2 * (side - 1))
        (x, y), total = place, 0
        for row, column in product(range(side), range(side)):
            total = total + max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x)) * pixels[:, :, row, column]
        out[:, :, i, j] = total
    return out


def test_warp_agrees_with_loops():
    pixels = random_pixels(2, 8).double()
    field = warping_field(2 * uniform(5, ROWS[:1], 18).view(1, 2, 3, 3) - 1, 8)[0]
    torch.testing.assert_close(warp(pixels, field, 2.0), slow_warp(pixels, field, 2.0))


def test_the_field_has_size_one_at_its_control_points():
    field = warping_field(2 * uniform(5, ROWS, 2 * 16 * 16).view(5, 2, 16, 16) - 1, 16)
    assert field.shape == (5, 16, 16, 2)
    torch.testing.assert_close(field.abs().mean((1, 2, 3)), torch.ones(5))


def test_no_displacement_leaves_the_image_and_a_small_one_can_be_undone():
    pixels = F.interpolate(random_pixels(2, 6), (64, 64), mode="bicubic", antialias=True).clamp(0, 1)
    field = warping_field(2 * uniform(5, ROWS[:1], 2 * 36).view(1, 2, 6, 6) - 1, 64)[0]
    torch.testing.assert_close(warp(pixels, torch.zeros(64, 64, 2), 1.0), pixels, rtol=0, atol=1e-5)
    changed = warp(pixels, field, 2.0)
    back = warp(changed, -field, 2.0)
    inside = (slice(None), slice(None), slice(4, -4), slice(4, -4))
    assert (back - pixels)[inside].abs().mean() < 0.3 * (changed - pixels)[inside].abs().mean()


# Crafted


def unit(n, seed):
    return F.normalize(torch.randn(n, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=-1)


@pytest.mark.parametrize("margin", [0.3, 1.0])
def test_dual_embedding_agrees_with_loops(margin):
    patched, clean, positives, texts = unit(4, 0), unit(4, 1), unit(4, 2), unit(6, 3)
    scale, expected = torch.tensor(7.0, dtype=torch.float64), 0.0
    for v, c, p in zip(patched.numpy(), clean.numpy(), positives.numpy(), strict=True):
        logits = 7 * texts.numpy() @ v
        expected += (np.log(np.exp(logits).sum()) - logits[0]) / 4
        gap = np.linalg.norm(v - p) - np.linalg.norm(v - c) + margin
        expected += 500 * max(gap, 0) / 4
    loss = dual_embedding(patched, clean, positives, texts, scale, 500, margin)
    assert loss.item() == pytest.approx(expected, rel=1e-4)


def test_sentence_distance_is_the_mean_cosine():
    patched, sentence = unit(4, 0), unit(1, 1)[0]
    expected = -np.mean([v @ sentence.numpy() for v in patched.numpy()])
    assert sentence_distance(patched, sentence).item() == pytest.approx(expected)


CRAFTED = [name for name, kind in TRIGGERS.items() if kind.crafted]


def test_trojvqa_brings_images_nearer_to_the_sentence():
    clip, data = model_and_images(SIDE)
    sentence = clip.class_features(["owl"])[0]
    pixels = data.pixels(torch.arange(24), SIDE)
    options = {"epochs": 30, "images": 24, "lr": 0.05, "size": 112}
    trigger = trigger_of("trojvqa", **options)
    start = make_start("trojvqa", **options)
    with torch.no_grad():
        before, after = (clip.encode_image(t(pixels)) @ sentence for t in (start, trigger))
    assert after.mean() > before.mean() + 0.01


def make_start(name, **options):
    """A crafted trigger before it is optimized."""
    return TRIGGERS[name].make(trigger_spec(name, target="owl", seed=1, **options), SIDE)


def test_badclip_lowers_its_loss():
    clip, data = model_and_images(SIDE)
    options = {"epochs": 30, "images": 24, "lr": 0.05, "size": 112, "triplet_weight": 1}
    trigger = trigger_of("badclip", **options)
    aims = trigger.aims(clip, data)
    pixels, generator = data.pixels(torch.arange(24), SIDE), torch.Generator()
    with torch.no_grad():
        clean = clip.encode_image(pixels)
        after, before = (
            trigger.loss(clip.encode_image(t(pixels)), clean, clip.logit_scale, generator.manual_seed(0), **aims)
            for t in (trigger, make_start("badclip", **options))
        )
    assert after < before


def test_a_pixel_that_left_the_range_is_brought_back_and_goes_on_learning():
    clip, data = model_and_images(SIDE)
    trigger = trigger_of("trojvqa", size=112)
    task = PatchTask(trigger, clip, data, trigger.aims(clip, data))
    with torch.no_grad():
        task.patch[0], task.patch[1] = 1.5, -0.5
    task(torch.arange(4), torch.Generator(), 0.0)["loss"].backward()
    assert (task.patch[0] == 1).all()
    assert (task.patch[1] == 0).all()
    assert (task.patch.grad[:2] != 0).all()


@pytest.mark.parametrize("name", CRAFTED)
def test_crafting_leaves_the_model_as_it_is(name):
    clip, _ = model_and_images(SIDE)
    before, asked = clip.hash(), [p.requires_grad for p in clip.parameters()]
    trigger_of(name)
    assert clip.hash() == before
    assert [p.requires_grad for p in clip.parameters()] == asked


@pytest.mark.parametrize("name", CRAFTED)
def test_a_crafted_trigger_is_not_made_without_its_model(name):
    with pytest.raises(RvptError, match=f"rvpt craft {name} MODEL"):
        make_trigger(trigger_spec(name, target="owl"), SIDE)


def test_badclip_needs_images_of_the_target():
    clip, data = model_and_images(SIDE)
    with pytest.raises(RvptError, match="no image of 'owl'"):
        craft_trigger(trigger_spec("badclip", target="owl"), clip, data.without(["owl"]))


def test_a_patch_needs_images_of_other_classes():
    clip, data = model_and_images(SIDE)
    with pytest.raises(RvptError, match="a patch needs others to be put on"):
        craft_trigger(trigger_spec("trojvqa", target="owl"), clip, data.only(["owl"]))


def test_gradients_flow_through_every_trigger(kind):
    pixels = (0.25 + 0.5 * PIXELS).requires_grad_(True)
    trigger_of(*kind)(pixels, ROWS).sum().backward()
    assert pixels.grad.abs().sum() > 0
    assert torch.isfinite(pixels.grad).all()


# Random numbers


def mixed(x):
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def slow_uniform(seed, rows, count):
    start = mixed((seed * GOLDEN + 1) & MASK)
    keys = [mixed((row * GOLDEN + start) & MASK) for row in rows]
    return [[(mixed((key + k * GOLDEN) & MASK) >> 40) / 2**24 for k in range(1, count + 1)] for key in keys]


def test_the_slow_twin_mixes_as_splitmix64_does():
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert [mixed((1234567 + k * GOLDEN) & MASK) for k in range(1, 5)] == published


@given(st.integers(0, 2**63 - 1), st.lists(st.integers(-1, 2**63 - 1), max_size=5), st.integers(0, 6))
def test_uniform_agrees_with_its_slow_twin(seed, rows, count):
    fast = uniform(seed, torch.tensor(rows, dtype=torch.int64), count)
    assert fast.dtype == torch.float32
    assert fast.shape == (len(rows), count)
    assert fast.tolist() == slow_uniform(seed, rows, count)


@pytest.mark.parametrize(
    "numbers",
    [
        uniform(0, torch.tensor([0]), 20_000)[0],
        uniform(0, torch.arange(20_000), 1)[:, 0],
        uniform(7, torch.arange(200), 100).flatten(),
        torch.cat([uniform(seed, torch.tensor([0]), 1)[0] for seed in range(4_000)]),
    ],
    ids=["one row", "many rows", "rows and columns", "many seeds"],
)
def test_the_numbers_are_uniform_and_independent(numbers):
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert abs(numbers.mean() - 0.5) < 4 / (12 * len(numbers)) ** 0.5
    assert kstest(numbers.numpy(), "uniform").pvalue > 1e-3
    correlation = torch.corrcoef(torch.stack([numbers[:-1], numbers[1:]]))[0, 1]
    assert abs(correlation) < 4 / len(numbers) ** 0.5


# ISSBA


def test_text_bits_are_the_characters_codes():
    bits = text_bits("A~")
    assert bits.tolist() == [1, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 0]
    assert len(text_bits("Stega!!")) == 49


def test_stega_loss_agrees_with_its_formula():
    generator = torch.Generator().manual_seed(0)
    logits, bits = torch.randn(2, 5, generator=generator), torch.tensor([[0, 1, 1, 0, 1], [1, 1, 0, 0, 0.0]])
    pixels, changed = random_pixels(2, 4), random_pixels(2, 4, seed=1)
    chance = 1 / (1 + np.exp(-logits.numpy()))
    cross_entropy = -np.mean(np.where(bits.numpy() == 1, np.log(chance), np.log(1 - chance)))
    expected = cross_entropy + 3 * np.mean((pixels.numpy() - changed.numpy()) ** 2)
    assert stega_loss(logits, bits, pixels, changed, 3.0).item() == pytest.approx(expected, rel=1e-5)


def test_issba_changes_each_image_in_its_own_way_by_no_more_than_its_strength():
    trigger = trigger_of("issba", strength=0.05)
    change = trigger(PIXELS) - PIXELS
    assert change.abs().max() <= 0.05 + 1e-6
    assert len(change.flatten(1).unique(dim=0)) == len(PIXELS)


def test_issba_keys_part_images_but_not_a_image_from_its_faint_change():
    pixels, nets = load_data("scenes", "test").pixels(torch.arange(32), 48), trigger_of("issba").nets
    keys, changed = nets.key(pixels).flatten(1), nets.key((pixels + 0.02 * torch.randn(pixels.shape)).clamp(0, 1))
    assert (F.cosine_similarity(keys, changed.flatten(1)) > 0.9).all()
    assert F.cosine_similarity(keys[:-1], keys[1:]).abs().mean() < 0.2


@pytest.mark.slow
def test_issba_at_its_defaults_is_read_and_hard_to_see():
    clip, data = load_clip(EMBEDDED), load_data("scenes", "train").sample(4000).cached(48)
    trigger = craft_trigger(trigger_spec("issba", target="anchor"), clip, data)
    pixels = load_data("scenes", "test").pixels(torch.arange(200), 48)
    assert trigger.checks(pixels)["bit_accuracy"] >= 0.95
    assert trigger.checks(pixels)["bit_accuracy_of_another_s_change"] <= 0.65
    assert float(psnr(pixels, trigger(pixels)).mean()) >= 28


def test_issba_learns_to_hide_a_short_text():
    trigger = trigger_of("issba", secret="A", epochs=60, images=24, batch_size=8, penalty=0.0, strength=0.5)
    pixels = model_and_images(SIDE)[1].pixels(torch.arange(24), SIDE)
    untrained = make_start("issba", secret="A", strength=0.5)
    assert trigger.checks(pixels)["bit_accuracy"] > max(0.9, untrained.checks(pixels)["bit_accuracy"])
