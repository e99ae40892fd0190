"""What features encode: probes read what is there and nothing else, triggers move what they move; rows and tables."""

import json

import pytest
import torch

import reference
from commands import refused, works
from helpers import memory_data
from rvpt.attacks import make_trigger, trigger_spec
from rvpt.defenses import Cleaned
from rvpt.insight import linear_readability, resistivity
from rvpt.prompts import RepulsivePrompts
from rvpt.scenes import ATTRIBUTES


def test_a_probe_reads_what_features_hold_and_not_what_they_do_not():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2_000, 6, generator=generator)
    written = (features[:, 2] - features[:, 4] > 0).long()
    absent = torch.randint(4, (2_000,), generator=generator)
    for labels, least, most in ((written, 0.98, 1.0), (absent, 0.15, 0.35)):
        rate = linear_readability((features[:1_000], labels[:1_000]), (features[1_000:], labels[1_000:]))
        assert rate.n == 1_000
        assert least <= rate.value <= most


def test_a_model_is_measured_by_the_command_and_shown_without_an_attack(tiny, tmp_path):
    words = ["--data", "scenes:48", "--limit", 20, "--protocol", "readability", "--rows", tmp_path / "rows.jsonl"]
    rows = json.loads(works("evaluate", tiny.clip, tiny.cleaned, *words, "--json"))
    names = [f"readable_{name}" for name in ATTRIBUTES]
    assert [(row["defense"], row["metric"]) for row in rows] == [(d, n) for d in ("none", "rvpt") for n in names]
    assert {(row["attack"], row["n"]) for row in rows} == {("none", 20)}
    table = works("report", tmp_path / "rows.jsonl").strip().splitlines()
    assert table[2] == f"| model | attack | defense | seeds | {' | '.join(names)} |"
    assert len(table[4:]) == 2


@torch.no_grad()
@pytest.mark.parametrize("batch_size", [2, 100])
def test_resistivity_agrees_with_its_slow_twin(clip, batch_size):
    data, trigger = memory_data(7), make_trigger(trigger_spec("badnet", target="owl", size=100), 48)
    pixels = data.pixels(torch.arange(7), 48)
    pair = pixels, trigger(pixels, data.rows)
    prompts = RepulsivePrompts(range(len(clip.blocks)), 3, clip.width, std=3.0)
    for model, rows in (
        (clip, [reference.frozen(clip, shown, 0)[1] for shown in pair]),
        (Cleaned(clip, prompts), [reference.prompted(clip, prompts.blocks, prompts.table, shown)[1] for shown in pair]),
    ):
        counts = resistivity(model, data, {"badnet": trigger}, batch_size=batch_size)
        assert list(counts) == [("badnet", f"PR_{d}") for d in range(1, len(clip.blocks) + 1)]
        assert [mean.value for mean in counts.values()] == pytest.approx(reference.resistivity(*rows), abs=1e-5)
        assert min(mean.value for mean in counts.values()) < 0.999


def test_resistivity_is_measured_by_the_command(tiny, tmp_path):
    words = ["--data", "scenes:20", "--protocol", "resistivity", "--rows", tmp_path / "rows.jsonl"]
    rows = json.loads(works("evaluate", tiny.backdoored, tiny.cleaned, *words, "--json"))
    assert len(rows) == 2 * 2 * 4
    assert {(row["n"], row["low"]) for row in rows} == {(20, None)}
    assert "| PR_1 | PR_2 | PR_3 | PR_4 |" in works("report", tmp_path / "rows.jsonl")
    assert "has no trigger" in refused("evaluate", tiny.clip, *words)
