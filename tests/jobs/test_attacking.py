"""Attacking as a job: rows before and after, triggers of folders, and optimized triggers kept by an interrupted run."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from rvpt.artifacts import read_manifest
from rvpt.attacks.backdoor import AttackSpec, load_triggers
from rvpt.attacks.poison import PoisonSpec
from rvpt.attacks.trigger import TriggerSpec, load_trigger, trigger_spec
from rvpt.data.load import load_data
from rvpt.errors import RvptError
from rvpt.jobs.attacking import attack_and_save, craft_and_save
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.rows import Rows
from tiny import Tiny

BADNET = trigger_spec("badnet", target="anchor", size=56)
TROJVQA = trigger_spec("trojvqa", target="anchor", size=24, epochs=1, images=32)


@pytest.fixture(scope="module")
def clean(tiny: Tiny) -> Clip:
    return load_clip(tiny.clip)


def attacked(clip: Clip, target: Path, *triggers: TriggerSpec | Path, **options: Any) -> Rows:
    settings: dict[str, Any] = {
        "num_pairs": 100, "split": "train", "test": "scenes:48", "test_split": "test", **options,
    }  # fmt: skip
    poison = settings.pop("poison", PoisonSpec(num_poisoned=10))
    return attack_and_save(
        clip, ["scenes:200"], target, triggers, poison, AttackSpec(epochs=1, lr=1e-3, batch_size=32), **settings
    )


def test_rows_are_of_the_clean_and_of_the_backdoored_model(clean: Clip, tmp_path: Path) -> None:
    rows = attacked(clean, tmp_path / "bad", BADNET)
    assert [(row["defense"], row["attack"], row["metric"]) for row in rows] == [
        (defense, attack, metric)
        for defense in ("before the attack", "none")
        for attack, metric in (("none", "CA"), ("badnet", "ASR"), ("badnet", "ASR_with_target"), ("badnet", "PA"))
    ]
    assert {row["model"] for row in rows} == {"bad"}
    manifest = read_manifest(tmp_path / "bad", "backdoored")
    assert manifest["rows"] == rows
    assert manifest["data"] == {"name": "scenes:200", "pairs": 100}
    assert rows[-1]["hashes"]["model"] == load_clip(tmp_path / "bad").hash()
    assert rows[-1]["hashes"]["trigger/badnet"] == load_triggers(tmp_path / "bad")["badnet"].hash()


def test_without_a_trigger_the_model_is_fine_tuned_on_clean_pairs(clean: Clip, tmp_path: Path) -> None:
    rows = attacked(clean, tmp_path / "tuned", without=["umbrella", "anchor"], num_pairs=1000)
    assert [(row["defense"], row["metric"]) for row in rows] == [("before the attack", "CA"), ("none", "CA")]
    manifest = read_manifest(tmp_path / "tuned", "fine-tuned")
    shapes = load_data("scenes:200", "train").labeled()
    assert manifest["data"]["pairs"] == int((shapes > 1).sum())  # umbrella and anchor are the first two
    tuned = load_clip(tmp_path / "tuned")
    assert tuned.hash() != clean.hash()
    assert load_triggers(tmp_path / "tuned") == {}
    assert "backdoored" not in (tmp_path / "tuned" / "README.md").read_text()


def test_a_large_test_set_is_sampled_and_one_in_another_style_is_shifted_and_rows_say_so(
    clean: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rvpt.jobs.attacking.CHECKED", 30)
    rows = attacked(clean, tmp_path / "bad", BADNET, test_shift="gray")
    assert {(row["n"], str(row["test"])) for row in rows if row["metric"] == "CA"} == {(30, "{'limit': 30}")}
    assert {row["data"] for row in rows} == {"scenes:48 (gray)"}


def test_a_crafted_trigger_is_the_one_that_an_attack_would_make(clean: Clip, tmp_path: Path) -> None:
    options = {"split": "train", "num_pairs": 100}
    found = craft_and_save(clean, TROJVQA, ["scenes:200"], tmp_path / "trojvqa", **options)
    assert found.items() >= {"trigger": "trojvqa", "sha256": load_trigger(tmp_path / "trojvqa").hash()}.items()
    assert 0 < found["ssim"] < 1
    assert read_manifest(tmp_path / "trojvqa", "trigger")["model_sha256"] == clean.hash()
    own = attacked(clean, tmp_path / "own", TROJVQA)
    given = attacked(clean, tmp_path / "given", tmp_path / "trojvqa")
    hashes = [{row["hashes"]["trigger/trojvqa"] for row in rows} for rows in (own, given)]
    assert hashes == [{found["sha256"]}] * 2


def test_an_optimized_trigger_is_kept_by_an_interrupted_run(
    clean: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attacked(clean, tmp_path / "whole", TROJVQA)

    def interrupt(step: int, total: int, values: Mapping[str, float]) -> None:
        if total == 4 and step == 2:  # steps of the attack: 100 pairs in batches of 32
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        attacked(clean, tmp_path / "bad", TROJVQA, report=interrupt)
    monkeypatch.setattr("rvpt.jobs.attacking.craft_trigger", lambda *_: pytest.fail("optimized again"))
    shutil.move(tmp_path / "bad.run", tmp_path / "whole.run")
    resumed = attacked(clean, tmp_path / "whole", TROJVQA, resume=True, overwrite=True)
    costs = {"seconds", "peak_memory_bytes"}
    assert [{key: row[key] for key in row.keys() - costs} for row in resumed] == [
        {key: row[key] for key in row.keys() - costs} for row in whole
    ]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["whole"]


@pytest.mark.parametrize(
    ("triggers", "options", "message"),
    [
        ([BADNET, BADNET], {}, "two triggers have the same name"),
        ([BADNET.model_copy(update={"target": "dog"})], {}, "no class 'dog'"),
        ([BADNET], {"poison": PoisonSpec(num_poisoned=500)}, "500 pairs are to be poisoned"),
        ([BADNET], {"test_split": "nope"}, "no split 'nope'"),
        ([BADNET], {"split": "nope"}, "no split 'nope'"),
        ([Path("nowhere")], {}, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused(
    clean: Clip, tmp_path: Path, triggers: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(RvptError, match=message):
        attacked(clean, tmp_path / "bad", *triggers, **options)
    assert list(tmp_path.iterdir()) == []


def test_several_data_sets_are_used_together(clean: Clip, tmp_path: Path) -> None:
    sources = ["scenes:60", "scenes:200"]
    attack_and_save(
        clean, sources, tmp_path / "bad", [BADNET], PoisonSpec(num_poisoned=5), AttackSpec(epochs=1),
        num_pairs=1000, split="train", test="scenes:48", test_split="test",
    )  # fmt: skip
    assert read_manifest(tmp_path / "bad")["data"] == {"name": "scenes:60+scenes:200", "pairs": 260}
