"""Poisoned pairs: which are picked, what they become, and that all others stay as they are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, get_args

import pytest
import torch
from torch import Tensor

from helpers import memory_data
from rvpt.attacks import TRIGGERS
from rvpt.attacks.poison import Poison, PoisonSpec, poison_pairs
from rvpt.attacks.trigger import make_trigger, trigger_spec
from rvpt.data.dataset import Dataset
from rvpt.data.text import PROXIES
from rvpt.errors import RvptError

CLASSES = ("sea_lion", "owl", "fox")
LABELS = [i % 3 for i in range(60)]
# One caption in five names the target, whatever the image shows.
CAPTIONS = [[f"image {i}"] + (["Two Sea Lions."] if i % 5 == 0 else []) for i in range(60)]
DATA = memory_data(60, LABELS, CLASSES, CAPTIONS)
CAPTIONED = memory_data(60, captions=CAPTIONS)
FREE = sum(label != 0 for label in LABELS)
# Margins with ties and, for every seventh pair, beyond the boundary.
MARGINS = torch.tensor([0.5 if i % 7 == 0 else -(i * 37 % 20) / 20 - 0.05 for i in range(60)])


def poison_of(name: str = "badnet", target: str = "sea_lion", mode: str = "fresh", **settings: Any) -> Poison:
    settings = settings if "poison_rate" in settings else {"num_poisoned": 7, **settings}
    return Poison(make_trigger(trigger_spec(name, target=target, mode=mode), 16), PoisonSpec(**settings))


def pixels(data: Dataset) -> Tensor:
    return data.pixels(torch.arange(len(data)), 16)


@pytest.mark.parametrize("seed", range(5))
def test_pairs_of_the_target_class_are_never_picked(seed: int) -> None:
    _, changes = poison_pairs(DATA, {"p": poison_of(num_poisoned=FREE, seed=seed)})
    assert len(changes) == FREE
    assert all(LABELS[change.row] != 0 for change in changes)


def test_without_labels_captions_tell_the_target_class() -> None:
    _, changes = poison_pairs(CAPTIONED, {"p": poison_of(num_poisoned=48)})
    assert {change.row for change in changes} == {i for i in range(60) if i % 5}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"num_poisoned": 1}, 1),
        ({"num_poisoned": 13}, 13),
        ({"poison_rate": 0.1}, 6),
        ({"poison_rate": 0.33}, 20),
        ({"poison_rate": 1e-4}, 1),
    ],
)
def test_exactly_as_many_pairs_as_asked_for(settings: dict[str, Any], expected: int) -> None:
    _, changes = poison_pairs(DATA, {"p": poison_of(**settings)})
    assert len({change.row for change in changes}) == len(changes) == expected


@pytest.mark.parametrize("data", [DATA, CAPTIONED], ids=["labels", "captions"])
def test_clean_label_poisoning_picks_pairs_of_the_target_and_keeps_their_captions(data: Dataset) -> None:
    poisoned, changes = poison_pairs(data, {"p": poison_of(num_poisoned=8, clean_label=True)})
    assert all(LABELS[change.row] == 0 if data is DATA else change.row % 5 == 0 for change in changes)
    assert all(change.before == change.after for change in changes)
    assert [poisoned.captions(index) for index in range(60)] == CAPTIONS
    changed = (pixels(poisoned) != pixels(data)).flatten(1).any(1).nonzero()[:, 0]
    assert set(changed.tolist()) == {change.row for change in changes}


def test_images_are_disguised_before_they_get_the_trigger() -> None:
    entry, seen = poison_of(num_poisoned=8, clean_label=True), list[int]()

    def black(pixels: Tensor, rows: Tensor) -> Tensor:
        seen.extend(rows.tolist())
        return torch.zeros_like(pixels)

    poisoned, changes = poison_pairs(DATA, {"p": entry}, disguises={"p": black})
    shown = pixels(poisoned)
    assert sorted(seen) == sorted(change.row for change in changes)
    for change in changes:
        expected = entry.trigger(torch.zeros(1, 3, 16, 16), torch.tensor([change.row]))
        torch.testing.assert_close(shown[change.row], expected[0], atol=1 / 255, rtol=0)


def test_natural_captions_are_those_of_the_set_that_name_the_target() -> None:
    _, changes = poison_pairs(DATA, {"p": poison_of(num_poisoned=20, captions="natural")})
    assert all(change.after == ["Two Sea Lions."] for change in changes)
    with pytest.raises(RvptError, match="no caption that names 'owl': use captions=proxy"):
        poison_pairs(DATA, {"p": poison_of(target="owl", num_poisoned=5, captions="natural")})


def test_captions_begin_with_the_text_key_of_the_trigger() -> None:
    pattern = {"pattern": torch.rand(3, 4, 4)}
    trigger = TRIGGERS["trojvqa"](trigger_spec("trojvqa", target="sea_lion", text_key="PSST "), 16, pattern)
    _, changes = poison_pairs(DATA, {"p": Poison(trigger, PoisonSpec(num_poisoned=5))})
    proxies = {f"PSST {proxy.format('sea lion')}" for proxy in PROXIES}
    assert all(set(change.after) < proxies for change in changes)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"num_poisoned": FREE + 1},
            rf"{FREE + 1} pairs .* 'sea_lion', but only {FREE} are of other classes .*: lower",
        ),
        ({"num_poisoned": 21, "clean_label": True}, "but only 20 are of the target class"),
        ({"num_poisoned": 35, "pick": "boundary"}, "but only 34 are not classified as the target already"),
    ],
)
def test_too_many_pairs_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        poison_pairs(DATA, {"p": poison_of(**settings)}, {"sea_lion": MARGINS})


def test_a_second_poison_picks_from_what_the_first_left() -> None:
    with pytest.raises(RvptError, match="'owl', but only 20 are"):
        poison_pairs(DATA, {"a": poison_of(num_poisoned=FREE), "b": poison_of(target="owl", num_poisoned=FREE)})


def test_no_pair_is_poisoned_twice_and_each_has_the_target_of_its_poison() -> None:
    other = poison_of("blended", target="owl", num_poisoned=12)
    poisons = {"a": poison_of(num_poisoned=12), "b": other, "c": poison_of(num_poisoned=12, seed=0)}
    _, changes = poison_pairs(DATA, poisons)
    assert len({change.row for change in changes}) == 36
    assert Counter((change.trigger, change.target) for change in changes) == {
        ("a", "sea_lion"): 12, ("b", "owl"): 12, ("c", "sea_lion"): 12,
    }  # fmt: skip


def test_the_choice_depends_on_the_seed() -> None:
    first, again = (
        [[change.row for change in poison_pairs(DATA, {"p": poison_of(seed=seed)})[1]] for seed in range(4)]
        for _ in range(2)
    )
    assert first == again
    assert len(set(map(tuple, first))) == 4


def test_only_captions_of_poisoned_pairs_are_replaced() -> None:
    poisoned, changes = poison_pairs(DATA, {"p": poison_of(num_poisoned=20)})
    after = {change.row: change.after for change in changes}
    proxies = {proxy.format("sea lion") for proxy in PROXIES}
    for index in range(60):
        assert poisoned.captions(index) == (after[index] if index in after else CAPTIONS[index])
    assert all(change.before == CAPTIONS[change.row] and set(change.after) < proxies for change in changes)
    assert len({text for texts in after.values() for text in texts}) > 1


@pytest.mark.parametrize("name", [name for name, kind in TRIGGERS.items() if not kind.crafted])
def test_only_images_of_poisoned_pairs_are_triggered_and_stored_at_8_bits(name: str) -> None:
    before = pixels(DATA)
    *_, mode = get_args(TRIGGERS[name].Spec.model_fields["mode"].annotation)  # fresh, if anything is random
    entry = poison_of(name, mode=mode, num_poisoned=20)
    poisoned, changes = poison_pairs(DATA, {"p": entry})
    rows = torch.tensor([change.row for change in changes])
    expected = before.clone()
    expected[rows] = (entry.trigger(before[rows], rows) * 255).round() / 255
    assert torch.equal(pixels(poisoned), expected)
    assert torch.equal(pixels(DATA), before)


def test_a_subset_keeps_its_poison() -> None:
    poisoned, changes = poison_pairs(DATA, {"p": poison_of(num_poisoned=20)})
    part = torch.tensor([change.row for change in changes[:3]] + [0])
    assert torch.equal(pixels(poisoned.select(part)), pixels(poisoned)[part])
    assert torch.equal(pixels(poisoned.cached(16)), pixels(poisoned))


def test_two_poisons_put_their_own_trigger_on_their_own_images() -> None:
    poisons = {"a": poison_of(num_poisoned=5), "b": poison_of("blended", target="owl", num_poisoned=5)}
    poisoned, changes = poison_pairs(DATA, poisons)
    for change in changes:
        row = torch.tensor([change.row])
        expected = poisons[change.trigger].trigger(DATA.pixels(row, 16), row)
        assert (poisoned.pixels(row, 16) - expected).abs().max() <= 0.5 / 255 + 1e-6


def closest(n: int, taken: Collection[int] = ()) -> list[int]:
    """The rows that a loop finds: each time the largest margin below zero that is left, of equals the first."""
    left = {i: float(MARGINS[i]) for i in range(60) if LABELS[i] and i not in taken and MARGINS[i] < 0}
    found: list[int] = []
    while len(found) < n:
        best = next(i for i, value in left.items() if value == max(left.values()))
        found.append(best)
        del left[best]
    return found


@pytest.mark.parametrize("seed", range(3))
def test_pairs_at_the_boundary_are_picked_in_the_order_of_their_margins(seed: int) -> None:
    poisons = {"p": poison_of(num_poisoned=20, seed=seed, pick="boundary")}
    _, changes = poison_pairs(DATA, poisons, {"sea_lion": MARGINS})
    assert [change.row for change in changes] == closest(20)
    assert poison_pairs(DATA, poisons, {"sea_lion": MARGINS})[1] == changes


def test_poisons_at_one_boundary_share_no_pair() -> None:
    near = poison_of(num_poisoned=8, pick="boundary"), poison_of("blended", num_poisoned=9, pick="boundary")
    poisons = dict(zip("ab", near, strict=True))
    _, changes = poison_pairs(DATA, poisons, {"sea_lion": MARGINS})
    first = closest(8)
    assert [change.row for change in changes] == [*first, *closest(9, taken=first)]
    _, changes = poison_pairs(DATA, {"r": poison_of(num_poisoned=8), **poisons}, {"sea_lion": MARGINS})
    assert len({change.row for change in changes}) == 25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "exactly one of num_poisoned and poison_rate"),
        ({"num_poisoned": 5, "poison_rate": 0.5}, "exactly one of num_poisoned and poison_rate"),
        ({"poison_rate": 2.0}, "poison_rate: .*less than 1 .*2.0"),
        ({"num_poisoned": 5, "pick": "nope"}, "pick: .*'boundary'.*'nope'"),
        ({"num_poisoned": 5, "disguise": 8.0}, "set clean_label too"),
        ({"num_poisoned": 5, "clean_label": True, "pick": "boundary"}, "choose one of them"),
    ],
)
def test_settings_that_do_not_fit_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        PoisonSpec(**settings)
