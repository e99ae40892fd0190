"""Markdown tables of rows: mean and standard deviation over seeds."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import Any

from rvpt.report.paper import PAPER, beside

Row = Mapping[str, Any]
CLEAN = ("CA", "R@1", "caption_CA")
TRIGGERED = ("PA", "ASR", "ASR_with_target", "ASR@10", "rank_ratio", "caption_PA", "caption_ASR")
COSTS = {"seconds", "clean_seconds", "peak_memory_bytes"}
TITLES = {"none": "no defence", "vpt": "VPT", "rvpt": "RVPT"}
DEFENCES = ("before the attack", "none", "probe", "finetune", "contrastive", "cleanclip", "par", "vpt", "rvpt")


def results(rows: Sequence[Row]) -> str:
    """One table for each data set: a line for every model, attack and defence, rates in % over the seeds.

    Runs of one defence with different settings are never pooled: a line tells those of its settings that are not as in
    most of the runs.
    """
    rows = list({_measurement(row): row for row in rows}.values())
    parts = []
    for data in sorted({str(row["data"]) for row in rows}):
        parts.append(f"### {data}\n\n{_table(data, [row for row in rows if row['data'] == data])}")
    return "\n".join(parts)


def _table(data: str, rows: Sequence[Row]) -> str:
    clean_metrics, hit_metrics = (_measured(rows, metrics) for metrics in (CLEAN, TRIGGERED))
    columns = [*clean_metrics, *hit_metrics, *(["paper: CA, ASR"] if data.lower() in PAPER else [])]
    lines = [
        f"| model | attack | defence | seeds | {' | '.join(columns)} |",
        "|---|---|---|" + "---:|" * (len(columns) + 1),
    ]
    groups: dict[tuple[str, ...], list[Row]] = {}
    runs: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        runs.setdefault((str(row["model"]), str(row["defence"])), []).append(row)
    usual = {run: _usual(members) for run, members in runs.items()}
    for row in rows:
        run = str(row["model"]), str(row["defence"])
        own = " ".join(f"{name}={value}" for name, value in _settings(row).items() if (name, value) not in usual[run])
        groups.setdefault((*run, own), []).append(row)
    keys = {(key, str(row["attack"])) for key, group in groups.items() for row in group if row["attack"] != "none"}
    places = {key: place for place, key in enumerate(groups)}
    for key, attack in sorted(keys, key=lambda k: (k[0][0], k[1], _order(k[0][1]), places[k[0]])):
        clean, hit = ([r for r in groups[key] if r["attack"] == name] for name in ("none", attack))
        model, defence, own = key
        cells = [*(spread(clean, metric) for metric in clean_metrics), *(spread(hit, metric) for metric in hit_metrics)]
        cells += [beside(data, attack, defence)] if data.lower() in PAPER else []
        title = f"{defence}, {own}" if own else defence
        lines.append(f"| {model} | {attack} | {title} | {len({r['seed'] for r in hit})} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _measured(rows: Sequence[Row], metrics: Sequence[str]) -> list[str]:
    """Those of the metrics that some row has."""
    return [metric for metric in metrics if any(row["metric"] == metric for row in rows)]


def _measurement(row: Row) -> str:
    """What was measured and came out, without what it took: the same for a row that stands in two files."""
    return json.dumps({name: value for name, value in row.items() if name not in COSTS}, sort_keys=True)


def _settings(row: Row) -> dict[str, Any]:
    """What a row's run was set to, but for its seed."""
    draw = {"shots": row.get("shots"), "without": ", ".join(row.get("without", ())) or None}
    draw["cleaned_on"] = row.get("cleaned_on")
    draw["measured_with"] = row.get("template")
    return {name: value for name, value in {**row.get("spec", {}), **draw}.items() if name != "seed"}


def _usual(rows: Sequence[Row]) -> set[tuple[str, Any]]:
    """The settings, with their values, that more than half of the different runs have."""
    runs = {json.dumps(each, sort_keys=True): each for each in map(_settings, rows)}
    counts = Counter(setting for each in runs.values() for setting in each.items())
    return {setting for setting, count in counts.items() if 2 * count > len(runs)}


def _order(defence: str) -> int:
    return DEFENCES.index(defence) if defence in DEFENCES else len(DEFENCES)


def spread(rows: Sequence[Row], metric: str) -> str:
    """Mean ± standard deviation over the rows of one metric, in percent."""
    rates = [100 * r["rate"] for r in rows if r["metric"] == metric and r["rate"] is not None]
    if not rates:
        return "–"
    return f"{mean(rates):.1f} ± {stdev(rates):.1f}" if len(rates) > 1 else f"{rates[0]:.1f}"


START, END = "<!-- rows -->", "<!-- /rows -->"


def between_marks(page: str, tables: str) -> str:
    """The page with its part between the marks replaced by `tables`; without marks they go to its end."""
    if START not in page or END not in page:
        page = f"{page.rstrip()}\n\n{START}\n{END}\n".lstrip()
    before, rest = page.split(START, 1)
    return f"{before}{START}\n{tables}{END}{rest.split(END, 1)[1]}"
