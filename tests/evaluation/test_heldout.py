"""Held-out sets: settings of the protocol, what rows say about them, and what is opened."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from helpers import image_folder
from recipes import lasting
from rvpt.errors import RvptError
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.heldout import HeldOut
from rvpt.models.clip import Clip
from triggers import trigger_of

VALUES = {"target": "owl", "template": "{}", "captioner": "llava", "prompt": "<image>?", "epsilon": 4.0, "probed": 9}
REQUIRED = {"captioning": {"captioner": "llava"}}


def test_every_setting_of_a_protocol_is_tried_here() -> None:
    assert set(VALUES) == {name for kind in PROTOCOLS.values() for name in kind.Settings.model_fields}


@pytest.mark.parametrize(("protocol", "name"), list(product(PROTOCOLS, VALUES)))
def test_a_protocol_takes_its_own_settings_and_no_others(protocol: str, name: str) -> None:
    asked = {"data": "scenes", "protocol": protocol, **REQUIRED.get(protocol, {}), name: VALUES[name]}
    if name in PROTOCOLS[protocol].Settings.model_fields:
        assert HeldOut(**asked).settings[name] == VALUES[name]
    else:
        with pytest.raises(RvptError, match=f"{name}: protocol {protocol} has no such setting"):
            HeldOut(**asked)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"shift": "fog"}, "unknown shift 'fog': choose from noise, blur, gray, sketch"),
        ({"protocol": "lookup"}, "unknown protocol 'lookup'"),
        ({"only": "umbrella"}, "only: .*list"),
        ({"limit": 0}, "limit: .*greater than or equal to 1"),
        ({"settings": 3}, "settings: .*dictionary"),
        ({"protocol": "readability", "split": "train"}, "split: readability trains on train"),
    ],
)
def test_what_does_not_fit_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(RvptError, match=message):
        HeldOut(data="scenes", **asked)


def test_rows_say_what_differs_from_the_defaults_and_has_no_key_of_its_own() -> None:
    asked = HeldOut(data="scenes", split="train", limit=3, shift="blur", only=["sun"], template="{}", target="sun")
    assert asked.facts() == {"split": "train", "limit": 3}
    assert HeldOut(data="x", on_error="skip", batch_size=8).facts() == {}
    assert HeldOut(data="x", protocol="adversarial", epsilon=4).facts() == {"protocol": "adversarial", "epsilon": 4.0}
    captioning = HeldOut(data="x", protocol="captioning", captioner="/models/llava")
    assert captioning.facts() == {"protocol": "captioning", "captioner": "llava"}


def test_the_title_tells_sets_apart() -> None:
    assert HeldOut(data="/data/cifar10").title == "cifar10"
    asked = HeldOut(data="scenes", only=["sun"], shift="gray", protocol="adversarial", epsilon=4.0)
    assert asked.title == "scenes (only sun) (gray) (adversarial) (epsilon=4.0)"


def test_it_is_opened_once_and_measures_models(clip: Clip) -> None:
    opened = HeldOut(data="scenes:60", limit=10, shift="sketch", template="{}", batch_size=4).open()
    assert (opened.data.name, len(opened.data)) == ("scenes:60 (sketch)", 10)
    done = list[int]()
    rows = opened.measure(
        clip, {"t": trigger_of("badnet", side=48).towards("sun")}, {"seed": 3}, lambda step, *_: done.append(step)
    )
    assert done == [4, 8, 10]
    assert {(row["data"], row["template"], row["seed"]) for row in rows} == {("scenes:60 (sketch)", "{}", 3)}
    assert {str(row["test"]) for row in rows} == {"{'limit': 10}"}
    assert rows[0]["n"] == 10
    skipped = replace(opened, data=replace(opened.data, skipped=("image 3", "image 5")))
    assert skipped.measure(clip, {})[0]["test"] == {"limit": 10, "skipped": 2}


def test_data_that_lack_what_the_protocol_needs_are_refused_when_they_are_opened(tmp_path: Path) -> None:
    with pytest.raises(RvptError, match="captions"):
        HeldOut(data=str(image_folder(tmp_path / "set")), protocol="retrieval").open()


def test_images_of_some_classes_may_be_classified_as_any(clip: Clip) -> None:
    opened = HeldOut(data="scenes:60", only=["sun", "heart"]).open()
    assert len(opened.data.classes) == 24
    assert set(opened.data.labeled().tolist()) == {opened.data.class_index(name) for name in ("sun", "heart")}


def test_a_protocol_gets_its_training_images() -> None:
    opened = HeldOut(data="scenes:60", protocol="readability").open()
    assert opened.protocol.training is not None
    assert opened.protocol.training.name == "scenes:60"


def test_images_are_kept_for_the_next_model_and_rows_stay(clip: Clip, monkeypatch: pytest.MonkeyPatch) -> None:
    plain, reads = HeldOut(data="scenes:60", limit=6, shift="gray").open(), list[int]()

    def read(rows: Tensor, size: int) -> Tensor:
        reads.append(len(rows))
        return plain.data.reader(rows, size)

    kept = replace(plain, keep=True, data=replace(plain.data, reader=read))
    monkeypatch.setattr("rvpt.evaluation.heldout.KEPT_BYTES", 3 * clip.image_size**2 * 6)
    expected = lasting(plain.measure(clip, {}))
    assert lasting(kept.measure(clip, {})) == lasting(kept.measure(clip, {})) == expected
    assert sum(reads) == 6
    monkeypatch.setattr("rvpt.evaluation.heldout.KEPT_BYTES", 0)
    assert lasting(kept.measure(clip, {})) == expected
    assert sum(reads) == 12
