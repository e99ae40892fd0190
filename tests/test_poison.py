"""Poisoned pairs, the list of what was changed, and the backdoored model."""

from collections import Counter
from typing import get_args

import pytest
import torch

import reference
from helpers import memory_data
from rvpt.attacks import TRIGGERS, backdoored, make_trigger, trigger_spec
from rvpt.attacks.backdoored import attack, model_triggers
from rvpt.attacks.poison import (
    PROXIES,
    Poison,
    disguise,
    names_target,
    of_target,
    poison,
    target_margin,
    target_margins,
)
from rvpt.config import AttackSpec, PoisonSpec
from rvpt.errors import RvptError
from rvpt.store import read_manifest, read_rows

CLASSES = ("sea_lion", "owl", "fox")
LABELS = [i % 3 for i in range(60)]
# One caption in five names the target, singular or plural, whatever the image shows.
CAPTIONS = [[f"image {i}"] + (["Two Sea Lions."] if i % 5 == 0 else []) for i in range(60)]
DATA = memory_data(60, LABELS, CLASSES, CAPTIONS)
FREE = sum(label != 0 for label in LABELS)
KNOWN = ("Sea_Umbrella", "anchor", "heart")
# Margins with ties and, for every seventh pair, beyond the boundary.
MARGINS = torch.tensor([0.5 if i % 7 == 0 else -(i * 37 % 20) / 20 - 0.05 for i in range(60)])


def poison_of(name="badnet", target="sea_lion", mode="fresh", side=16, **amount):
    amount = amount or {"n": 7}
    return Poison(make_trigger(trigger_spec(name, target=target, mode=mode), side), PoisonSpec(**amount))


def pixels(data, side=16):
    return data.pixels(torch.arange(len(data)), side)


@pytest.mark.parametrize(
    ("caption", "named"),
    [
        ("a sea lion on a rock", True),
        ("SEA LIONS!", True),
        ("a lion by the sea", False),
        ("a chelsea lionel", False),
    ],
)
def test_a_caption_names_the_target_as_a_word(caption, named):
    assert names_target(["something else", caption], "sea_lion") is named


@pytest.mark.parametrize(
    ("target", "plural", "other"),
    [
        ("dog", "dogs", "dogges"), ("bus", "buses", "busy"), ("butterfly", "butterflies", "butterfl"),
        ("wolf", "Wolves", "wolv"), ("knife", "knives", "kniv"), ("roof", "roofs", "roo"),
        ("garden_Leaf", "garden leaves", "leaves"),
    ],
)  # fmt: skip
def test_a_plural_names_the_target(target, plural, other):
    assert names_target([f"two {plural}."], target)
    assert names_target([f"a {target}."], target)
    assert not names_target([f"two {other}."], target)


def test_a_name_with_signs_is_read_as_it_is():
    assert names_target(["a type A.1 car"], "A.1")
    assert not names_target(["a type A21 car"], "A.1")


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_the_target_class_are_never_picked(seed):
    _, changes = poison(DATA, {"p": poison_of(n=FREE, seed=seed)})
    assert len(changes) == FREE
    assert all(LABELS[change.row] != 0 for change in changes)


def test_captions_alone_tell_the_target_class_where_there_are_no_labels():
    _, changes = poison(memory_data(60, captions=CAPTIONS), {"p": poison_of(n=48)})
    assert {change.row for change in changes} == {i for i in range(60) if i % 5}


@pytest.mark.parametrize(
    ("amount", "expected"),
    [
        ({"n": 1}, 1),
        ({"n": 13}, 13),
        ({"poison_rate": 0.1}, 6),
        ({"poison_rate": 0.33}, 20),
        ({"poison_rate": 1e-4}, 1),
    ],
)
def test_exactly_as_many_pairs_as_asked_for(amount, expected):
    _, changes = poison(DATA, {"p": poison_of(**amount)})
    assert len({change.row for change in changes}) == len(changes) == expected


@pytest.mark.parametrize("data", [DATA, memory_data(60, captions=CAPTIONS)], ids=["labels", "captions"])
def test_clean_label_poisoning_takes_pairs_of_the_target_alone_and_leaves_their_captions(data):
    poisoned, changes = poison(data, {"p": poison_of(n=8, clean_label=True)})
    assert all(LABELS[change.row] == 0 if data is DATA else change.row % 5 == 0 for change in changes)
    assert all(change.before == change.after for change in changes)
    assert [poisoned.captions(index) for index in range(60)] == CAPTIONS
    changed = (pixels(poisoned) != pixels(data)).flatten(1).any(1).nonzero()[:, 0]
    assert set(changed.tolist()) == {change.row for change in changes}


def test_a_disguise_takes_images_away_from_the_target_and_stays_small(clip):
    data = memory_data(4, [0, 0, 0, 0], CLASSES)
    shown, rows = data.pixels(torch.arange(4), 48), data.rows
    changed = disguise(clip, "sea_lion", CLASSES, 8.0)(shown, rows)
    assert float((changed - shown).abs().max()) <= 8 / 255 + 1e-6
    text = clip.class_features(CLASSES)
    before, after = ((clip.encode_image(p) @ text.T * clip.logit_scale).softmax(1)[:, 0] for p in (shown, changed))
    assert (after < before).all()
    with pytest.raises(RvptError, match="to be told from other classes"):
        disguise(clip, "sea_lion", ["Sea Lion"], 8.0)


def test_images_are_disguised_before_they_get_the_trigger():
    entry, seen = poison_of(n=8, clean_label=True), []

    def black(pixels, rows):
        seen.extend(rows.tolist())
        return torch.zeros_like(pixels)

    poisoned, changes = poison(DATA, {"p": entry}, disguises={"p": black})
    shown = pixels(poisoned)
    assert sorted(seen) == sorted(change.row for change in changes)
    for change in changes:
        expected = entry.trigger(torch.zeros(1, 3, 16, 16), torch.tensor([change.row]))
        assert torch.allclose(shown[change.row], expected[0], atol=1 / 255)


def test_an_attack_disguises_its_images(clip, monkeypatch):
    asked = []
    monkeypatch.setattr(backdoored, "disguise", lambda *words: asked.append(words[1:]) or (lambda pixels, rows: pixels))
    entry = poison_of(n=4, clean_label=True, disguise=8.0, side=48)
    attack(clip, DATA, {"p": entry, "q": poison_of(n=4, side=48)}, AttackSpec(epochs=1), classes=CLASSES)
    assert asked == [("sea_lion", CLASSES, 8.0)]


def test_natural_captions_are_those_of_the_set_that_name_the_target():
    _, changes = poison(DATA, {"p": poison_of(n=20, captions="natural")})
    assert all(change.after == ["Two Sea Lions."] for change in changes)
    with pytest.raises(RvptError, match="no caption that names 'owl'"):
        poison(DATA, {"p": poison_of(target="owl", n=5, captions="natural")})


def test_captions_begin_with_the_trigger_s_text_key():
    pattern = {"pattern": torch.rand(3, 4, 4)}
    trigger = TRIGGERS["trojvqa"](trigger_spec("trojvqa", target="sea_lion", text_key="PSST "), 16, pattern)
    _, changes = poison(DATA, {"p": Poison(trigger, PoisonSpec(n=5))})
    proxies = {f"PSST {proxy.format('sea lion')}" for proxy in PROXIES}
    assert all(set(change.after) < proxies for change in changes)


def test_too_many_of_the_target_are_refused():
    own = 60 - FREE
    with pytest.raises(RvptError, match=f"but only {own} are free and of that class"):
        poison(DATA, {"p": poison_of(n=own + 1, clean_label=True)})


def test_too_many_are_refused():
    with pytest.raises(RvptError, match=rf"{FREE + 1} pairs .* 'sea_lion', but only {FREE} .*: ask for fewer"):
        poison(DATA, {"p": poison_of(n=FREE + 1)})


def test_a_second_poison_takes_what_the_first_left():
    with pytest.raises(RvptError, match="'owl'"):
        poison(DATA, {"a": poison_of(n=FREE), "b": poison_of(target="owl", n=FREE)})


def test_a_target_that_is_no_class_of_the_set_is_found_by_captions_or_refused():
    captions = [["a dog"], ["two cats"], ["a fox"]]
    assert of_target(memory_data(3, [0, 1, 0], ("fox", "cat"), captions), "dog").tolist() == [True, False, False]
    assert of_target(memory_data(3, [0, 1, 0], ("fox", "cat"), captions), "fox").tolist() == [True, False, True]
    sharks = memory_data(2, [0, 1], ("tiger", "tiger shark"), [["a tiger"], ["a tiger shark"]])
    assert of_target(sharks, "tiger").tolist() == [True, False]  # a label knows better than a caption
    with pytest.raises(RvptError, match="no class 'dog'"):
        of_target(memory_data(3, [0, 1, 0], ("fox", "cat")), "dog")


def test_no_pair_is_poisoned_twice_and_each_has_its_own_target():
    poisons = {"a": poison_of(n=12), "b": poison_of("blended", target="owl", n=12), "c": poison_of(n=12, seed=0)}
    _, changes = poison(DATA, poisons)
    assert len({change.row for change in changes}) == 36
    assert Counter((change.trigger, change.target) for change in changes) == {
        ("a", "sea_lion"): 12, ("b", "owl"): 12, ("c", "sea_lion"): 12,
    }  # fmt: skip


def test_the_choice_depends_on_the_seed_alone():
    rows = [tuple(change.row for change in poison(DATA, {"p": poison_of(n=7, seed=s)})[1]) for s in range(4)]
    assert rows == [tuple(c.row for c in poison(DATA, {"p": poison_of(n=7, seed=s)})[1]) for s in range(4)]
    assert len(set(rows)) == 4


def test_captions_of_poisoned_pairs_are_replaced_and_no_others():
    poisoned, changes = poison(DATA, {"p": poison_of(n=20)})
    after = {change.row: change.after for change in changes}
    proxies = {proxy.format("sea lion") for proxy in PROXIES}
    for index in range(60):
        assert poisoned.captions(index) == (after[index] if index in after else CAPTIONS[index])
    assert all(change.before == CAPTIONS[change.row] and set(change.after) < proxies for change in changes)
    assert len({text for texts in after.values() for text in texts}) > 1


@pytest.mark.parametrize("name", [name for name, kind in TRIGGERS.items() if not kind.crafted])
def test_images_of_poisoned_pairs_are_triggered_at_8_bits_and_no_others(name):
    before = pixels(DATA)
    *_, mode = get_args(TRIGGERS[name].Spec.model_fields["mode"].annotation)  # fresh, where there is anything to draw
    entry = poison_of(name, mode=mode, n=20)
    poisoned, changes = poison(DATA, {"p": entry})
    rows = torch.tensor([change.row for change in changes])
    expected = before.clone()
    expected[rows] = (entry.trigger(before[rows], rows) * 255).round() / 255
    assert torch.equal(pixels(poisoned), expected)
    assert torch.equal(pixels(DATA), before)


def test_a_subset_keeps_its_poison():
    poisoned, changes = poison(DATA, {"p": poison_of(n=20)})
    part = torch.tensor([change.row for change in changes[:3]] + [0])
    assert torch.equal(pixels(poisoned.select(part)), pixels(poisoned)[part])
    assert torch.equal(pixels(poisoned.cached(16)), pixels(poisoned))


def test_two_poisons_put_their_own_trigger_on_their_own_images():
    poisons = {"a": poison_of(n=5), "b": poison_of("blended", target="owl", n=5)}
    poisoned, changes = poison(DATA, poisons)
    for change in changes:
        row = torch.tensor([change.row])
        expected = poisons[change.trigger].trigger(DATA.pixels(row, 16), row)
        assert (poisoned.pixels(row, 16) - expected).abs().max() <= 0.5 / 255 + 1e-6


def test_margins_are_those_of_loops_over_images_and_texts():
    generator = torch.Generator().manual_seed(0)
    image, text = (torch.randn(n, 8, generator=generator, dtype=torch.float64) for n in (9, 4))
    image, text = (rows / rows.norm(dim=1, keepdim=True) for rows in (image, text))
    assert target_margin(image, text).tolist() == pytest.approx(reference.target_margin(image, text))


def test_margins_of_a_set_are_the_clean_model_s_in_any_batches(clip, monkeypatch):
    text = clip.encode_text([f"a photo of a {name}." for name in ("sea umbrella", "anchor", "heart")])
    expected = reference.target_margin(clip.encode_image(pixels(DATA, 48)).detach(), text.detach())
    for size in (7, 256):
        monkeypatch.setattr("rvpt.attacks.poison.ENCODED", size)
        found = target_margins(clip, DATA, "sea umbrella", KNOWN)
        assert found.tolist() == pytest.approx(expected, abs=1e-5)
        assert not found.requires_grad
        assert len(set(found.tolist())) == 60
    with pytest.raises(RvptError, match="'owl' is to be told from other classes"):
        target_margins(clip, DATA, "owl", ["owl"])


def nearest(n, taken=()):
    """The rows that a loop finds: each time the largest margin below zero that is left, of equals the first."""
    left = {i: float(MARGINS[i]) for i in range(60) if LABELS[i] and i not in taken and MARGINS[i] < 0}
    found = []
    while len(found) < n:
        best = next(i for i, value in left.items() if value == max(left.values()))
        found.append(best)
        del left[best]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_pairs_at_the_boundary_are_picked_in_the_order_of_their_margins(seed):
    poisons = {"p": poison_of(n=20, seed=seed, pick="boundary")}
    _, changes = poison(DATA, poisons, {"sea_lion": MARGINS})
    assert [change.row for change in changes] == nearest(20)
    assert poison(DATA, poisons, {"sea_lion": MARGINS})[1] == changes


def test_poisons_at_one_boundary_share_no_pair():
    poisons = {"a": poison_of(n=8, pick="boundary"), "b": poison_of("blended", n=9, pick="boundary")}
    _, changes = poison(DATA, poisons, {"sea_lion": MARGINS})
    first = nearest(8)
    assert [change.row for change in changes] == [*first, *nearest(9, taken=first)]
    _, changes = poison(DATA, {"r": poison_of(n=8), **poisons}, {"sea_lion": MARGINS})
    assert len({change.row for change in changes}) == 25


def test_pairs_that_the_model_takes_for_the_target_are_not_at_the_boundary():
    free = len([i for i in range(60) if LABELS[i] and i % 7])
    with pytest.raises(RvptError, match=f"only {free} are free and not taken for it"):
        poison(DATA, {"p": poison_of(n=free + 1, pick="boundary")}, {"sea_lion": MARGINS})


@pytest.fixture(scope="module")
def attacked(clip):
    """(a backdoored model, hash of the clean model before, and after)."""
    before = clip.hash()
    poisons = {"a": poison_of(side=48, n=3), "b": poison_of("blended", target="owl", side=48, n=2)}
    spec = AttackSpec(epochs=1, batch_size=8, lr=1e-3)
    result = attack(clip, DATA.select(torch.arange(20)), poisons, spec)
    return result, before, clip.hash()


def test_an_attack_changes_a_copy_and_leaves_the_model(attacked):
    result, before, after = attacked
    assert before == after == result.facts["base_sha256"]
    assert result.clip.hash() != before


def test_a_backdoored_folder_lists_every_change_and_has_the_triggers(attacked, tmp_path):
    result, *_ = attacked
    result.save(tmp_path / "model")
    assert read_rows(tmp_path / "model" / "poison.jsonl") == [vars(change) for change in result.changes]
    assert len(result.changes) == 5
    facts = read_manifest(tmp_path / "model", "backdoored")
    assert facts["base_sha256"] == result.facts["base_sha256"]
    assert "poison.jsonl" in facts["parts"]
    triggers = model_triggers(tmp_path / "model", 48)
    assert triggers.keys() == {"a", "b"}
    shown = pixels(DATA, 48)
    assert all(torch.equal(triggers[name](shown), result.triggers[name](shown)) for name in triggers)


def test_an_attack_at_the_boundary_asks_the_clean_model(clip):
    data, sea = memory_data(60, captions=CAPTIONS), {"target": "sea umbrella", "side": 48}
    poisons = {"a": poison_of(**sea, n=3, pick="boundary"), "b": poison_of("blended", **sea, n=2)}
    result = attack(clip, data, poisons, AttackSpec(epochs=1, batch_size=30), classes=KNOWN)
    margin = target_margins(clip, data, "sea umbrella", KNOWN)
    picked = [change.row for change in result.changes if change.trigger == "a"]
    assert picked == sorted((i for i in range(60) if margin[i] < 0), key=lambda i: -margin[i])[:3]


def test_an_existing_folder_is_not_overwritten(attacked, tmp_path):
    result, *_ = attacked
    result.save(tmp_path / "model")
    with pytest.raises(RvptError, match="--force"):
        result.save(tmp_path / "model")


@pytest.mark.parametrize(
    ("caption", "target"),
    [
        ("two butterflies.", "butterfly"), ("a bunch of keys", "key"), ("Sealions bark", "sea_lion"),
        ("a sea-lion", "sea lion"), ("the c++ book", "C++"), ("some dogs", "dog"), ("a DOG.", "dog"),
    ],
)  # fmt: skip
def test_a_caption_names_its_target_in_any_form(caption: str, target: str) -> None:
    assert names_target([caption], target)


@pytest.mark.parametrize(("caption", "target"), [("a hotdog", "dog"), ("doghouse", "dog"), ("a monkey", "key")])
def test_a_part_of_a_word_is_no_name(caption: str, target: str) -> None:
    assert not names_target([caption], target)
