"""What every trigger promises: images in, images out, the same for the same seed and row, saved and loaded."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from helpers import changed_alike, random_pixels
from rvpt.attacks import TRIGGERS
from rvpt.attacks.trigger import Trigger, load_trigger, make_trigger, preset_spec, trigger_spec
from rvpt.errors import RvptError
from triggers import CRAFTED, SIDE, trigger_of

ROWS = torch.tensor([4, 0, 90_000, 17, 5])
PIXELS = random_pixels(5, SIDE)
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
MODES = [
    (name, mode) for name, kind in TRIGGERS.items() for mode in get_args(kind.Spec.model_fields["mode"].annotation)
]
shared = cache(trigger_of)
STEADY = ("blended-triangles", "blended-text")  # nothing in them is random


@pytest.fixture(params=MODES, ids="-".join)
def kind(request: pytest.FixtureRequest) -> tuple[str, str]:
    """(name, mode) of a trigger."""
    return request.param


@pytest.fixture
def trigger(kind: tuple[str, str]) -> Trigger:
    """One for all tests, none of which changes it."""
    return shared(*kind)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_triggered_images_are_images_and_the_input_is_not_changed(
    trigger: Trigger, dtype: torch.dtype, device: str
) -> None:
    pixels = PIXELS.to(device, dtype)
    before = pixels.clone()
    out = trigger(pixels, ROWS)
    assert (out.shape, out.dtype, out.device) == (pixels.shape, dtype, pixels.device)
    torch.testing.assert_close(out.cpu(), trigger(PIXELS.to(dtype), ROWS), atol=1e-4, rtol=0)
    assert out.min() >= 0
    assert out.max() <= 1
    assert torch.equal(pixels, before)
    assert ((out != pixels).flatten(1).any(1)).all()


def test_black_and_white_images_stay_in_range(trigger: Trigger) -> None:
    for value in (0.0, 1.0):
        out = trigger(torch.full((2, 3, SIDE, SIDE), value))
        assert out.min() >= 0
        assert out.max() <= 1


def test_the_same_spec_makes_the_same_trigger(trigger: Trigger, kind: tuple[str, str]) -> None:
    assert torch.equal(trigger(PIXELS, ROWS), trigger_of(*kind)(PIXELS, ROWS))


def test_another_seed_makes_another_trigger(trigger: Trigger, kind: tuple[str, str]) -> None:
    same = torch.equal(trigger(PIXELS, ROWS), trigger_of(*kind, seed=2)(PIXELS, ROWS))
    assert same == (trigger.name in STEADY)


def test_an_image_is_changed_alike_in_any_order_and_batch(trigger: Trigger) -> None:
    changed_alike(trigger, PIXELS, ROWS)


def test_rows_count_from_zero_by_default(trigger: Trigger) -> None:
    assert torch.equal(trigger(PIXELS), trigger(PIXELS, torch.arange(5)))


def test_an_empty_batch_stays_empty(trigger: Trigger) -> None:
    assert trigger(PIXELS[:0], ROWS[:0]).shape == (0, 3, SIDE, SIDE)


def test_only_fresh_triggers_change_with_the_row(kind: tuple[str, str]) -> None:
    name, mode = kind
    trigger = trigger_of(name, mode, **({"place": "middle"} if "place" in TRIGGERS[name].Spec.model_fields else {}))
    one, other = (trigger(PIXELS[:1], torch.tensor([row])) for row in (0, 1))
    assert torch.equal(one, other) == (mode == "fixed")


def test_gradients_flow_through_every_trigger(trigger: Trigger) -> None:
    pixels = (0.25 + 0.5 * PIXELS).requires_grad_(True)
    trigger(pixels, ROWS).sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert torch.isfinite(pixels.grad).all()


def test_a_saved_trigger_is_the_same(trigger: Trigger, tmp_path: Path) -> None:
    trigger.save(str(tmp_path / "t"))
    loaded = load_trigger(tmp_path / "t", SIDE)
    assert loaded.spec == trigger.spec
    assert loaded.hash() == trigger.hash()
    assert torch.equal(loaded(PIXELS, ROWS), trigger(PIXELS, ROWS))


@pytest.mark.parametrize(("name", "other"), [("blended", {"ratio": 0.9}), ("badnet", {"place": "top-left"})])
def test_the_hash_depends_on_the_settings_but_not_on_the_target(name: str, other: dict[str, Any]) -> None:
    assert trigger_of(name, **other).hash() != trigger_of(name).hash()
    assert trigger_of(name).towards("fox").hash() == trigger_of(name).hash()


def test_hashes_in_stored_rows_stay_valid() -> None:
    settings = {"badnet": {"size": 56}, "blended": {}}
    hashes = [make_trigger(trigger_spec(name, target="x", **some), 48).hash() for name, some in settings.items()]
    assert [value[:12] for value in hashes] == ["9754b64446a8", "77986b2119c3"]  # of rows/demo.jsonl


def test_tensors_that_do_not_fit_the_settings_are_refused(trigger: Trigger, tmp_path: Path) -> None:
    other = make_trigger(trigger_spec("badnet", target="owl", size=100), 64)
    other.spec, other.image_size = trigger.spec, trigger.image_size
    other.save(tmp_path / "t")
    with pytest.raises(RvptError, match=r"trigger.safetensors does not fit the trigger's settings or is not finite"):
        load_trigger(tmp_path / "t")


def test_a_trigger_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    trigger = trigger_of("badnet")
    trigger.tensors["pattern"][0] = torch.nan
    trigger.save(tmp_path / "t")
    with pytest.raises(RvptError, match="not finite: create it again"):
        load_trigger(tmp_path / "t")


def test_images_of_another_size_are_refused(trigger: Trigger, tmp_path: Path) -> None:
    with pytest.raises(RvptError, match=f"{SIDE}x{SIDE}, not 20x20: create one for this size"):
        trigger(random_pixels(1, 20))
    with pytest.raises(RvptError, match="not 32x20"):
        trigger(torch.zeros(1, 3, 32, 20))
    trigger.save(tmp_path / "t")
    with pytest.raises(RvptError, match="made for images of 32x32, the model needs 20x20: create one"):
        load_trigger(tmp_path / "t", 20)


def test_an_unknown_trigger_is_refused_with_those_there_are() -> None:
    with pytest.raises(RvptError, match=f"unknown trigger 'stripe': choose from {', '.join(TRIGGERS)}"):
        trigger_spec("stripe", target="owl")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"ratio": 0.1}, "ratio: unknown setting: choose from name, target, mode, seed, size, place"),
        ({"place": "nowhere"}, "place: .*'nowhere'"),
        ({"size": 0}, "size: .*greater than 0"),
        ({"name": "sig"}, "name: the trigger is badnet"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        trigger_spec("badnet", target="owl", **options)


def test_a_preset_changes_the_defaults_and_options_change_the_preset() -> None:
    assert preset_spec("badnet", "paper", target="owl") == trigger_spec("badnet", target="owl")
    assert preset_spec("badnet", "small", target="owl") == trigger_spec("badnet", target="owl", size=56)
    assert preset_spec("badnet", "small", target="owl", size=3) == trigger_spec("badnet", target="owl", size=3)


def test_a_kind_may_have_a_preset_of_its_own() -> None:
    spec = preset_spec("badclip", "small", target="owl", preset="published", lr=0.1)
    assert (spec.epochs, spec.images, spec.lr, spec.size) == (50, 10_000, 0.1, 16)
    with pytest.raises(RvptError, match="badnet has no preset 'published': choose from paper, small"):
        preset_spec("badnet", "small", target="owl", preset="published")


def test_a_folder_without_a_trigger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RvptError, match="is not an rvpt artifact"):
        load_trigger(tmp_path)
    with pytest.raises(RvptError, match="badnet is the name of a trigger, not a folder"):
        load_trigger("badnet")


@pytest.mark.parametrize("name", CRAFTED)
def test_an_optimized_trigger_is_not_made_without_its_model(name: str) -> None:
    with pytest.raises(RvptError, match=f"create it with rvpt craft {name}"):
        make_trigger(trigger_spec(name, target="owl"), SIDE)
