"""What features encode: probes read what is there and nothing else, and the protocol's rows reach the tables."""

import json

import torch

from commands import works
from rvpt.insight import linear_readability
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
    words = [
        "--data",
        "scenes:48",
        "--limit",
        20,
        "--protocol",
        "readability",
        "--rows",
        tmp_path / "rows.jsonl",
        "--json",
    ]
    rows = json.loads(works("evaluate", tiny.clip, tiny.cleaned, *words))
    names = [f"readable_{name}" for name in ATTRIBUTES]
    assert [(row["defence"], row["metric"]) for row in rows] == [(d, n) for d in ("none", "rvpt") for n in names]
    assert {(row["attack"], row["n"]) for row in rows} == {("none", 20)}
    table = works("report", tmp_path / "rows.jsonl").strip().splitlines()
    assert table[2] == f"| model | attack | defence | seeds | {' | '.join(names)} |"
    assert len(table[4:]) == 2
