"""Rows on the screen."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from rvpt.report.groups import by_data, by_run, metrics
from rvpt.report.markdown import TITLES, spread

CAPTION = "rates in %, with 95% Wilson intervals or over seeds; ASR leaves the target class out"
WIDTH, TEXTS, INTERVAL = 100, 48, 12  # least widths of a table, of its columns of text, of a rate with its interval
TOOK = 50.0  # an ASR in percent from which a backdoor counts as put in
LOST = 3.0  # points of CA from which an attack is called clumsy


def percent(row: Mapping[str, Any]) -> str:
    """A rate with its interval if it has one, in percent."""
    if row["rate"] is None:
        return "-"
    if row["low"] is None:
        return f"{100 * row['rate']:.1f}"
    return f"{100 * row['rate']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def show_rows(rows: Sequence[Mapping[str, Any]], *, as_json: bool, title: str = "") -> None:
    """Print a line for each model, defense and attack; with `as_json` the rows themselves, one JSON array."""
    if as_json:
        print(json.dumps(list(rows), indent=2))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title or None, caption=CAPTION)
    clean, hit = ([metric for metric in side if metric != "ASR_with_target"] for side in metrics(rows))
    for heading in ("data", "model", "attack", "defense", *clean, *hit):
        rate = heading in (*clean, *hit)
        table.add_column(heading, justify="right" if rate else "left", no_wrap=rate, overflow="fold")
    for data, members in by_data(rows).items():
        for run, found in by_run(members).items():
            cells = [*(_cell(found.clean, name) for name in clean), *(_cell(found.hit, name) for name in hit)]
            table.add_row(data, run.model, run.attack, run.title, *cells)
        table.add_section()
    rates = sum(3 + max(INTERVAL, len(heading)) for heading in (*clean, *hit))
    Console(width=max(Console().width, WIDTH, TEXTS + rates)).print(table)


def _cell(rows: Sequence[Mapping[str, Any]], metric: str) -> str:
    """One measurement with its interval; mean and standard deviation over several seeds."""
    found = [row for row in rows if row["metric"] == metric]
    return percent(found[0]).replace(" [", "\n[") if len(found) == 1 else spread(found, metric)


def show_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print facts as aligned lines, or as one JSON object."""
    if as_json:
        print(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value:.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}")


def show_demo(rows: Sequence[Mapping[str, Any]]) -> None:
    """The demo's table: a line for each defense, its rates under every trigger and what it cost."""
    from rich.console import Console
    from rich.table import Table

    attacks = list(dict.fromkeys(str(row["attack"]) for row in rows if row["attack"] != "none"))
    table = Table(caption=CAPTION)
    columns = [("none", "CA"), *((a, m) for a in attacks for m in ("ASR", "PA"))]
    for heading in ("defense", "CA", *(f"{m}\n{a}" for a, m in columns[1:]), "seconds", "trained"):
        table.add_column(heading, justify="left" if heading == "defense" else "right")
    for defense in dict.fromkeys(str(row["defense"]) for row in rows):
        mine = {(row["attack"], row["metric"]): row for row in rows if row["defense"] == defense}
        cost = mine["none", "CA"]
        cells = [percent(mine[column]).replace(" [", "\n[") for column in columns]
        table.add_row(
            TITLES.get(defense, defense),
            *cells,
            f"{cost['clean_seconds']:.0f}",
            f"{cost['trained_parameters']:,}",
        )
    Console(width=max(Console().width, WIDTH)).print(table)


def show_triggers(found: Sequence[Mapping[str, Any]]) -> None:
    """A line for each trigger: how visible it is and what can be set."""
    from rich.console import Console
    from rich.table import Table

    table = Table(caption="PSNR in dB and SSIM: means over the images; higher is harder to see")
    for heading in ("trigger", "PSNR", "SSIM", "options"):
        table.add_column(heading, justify="right" if heading in ("PSNR", "SSIM") else "left")
    for entry in found:
        options = ", ".join(
            f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}"
            for name, value in entry["options"].items()
        )
        table.add_row(entry["name"], f"{entry['psnr']:.1f}", f"{entry['ssim']:.3f}", options)
    Console(width=max(Console().width, WIDTH)).print(table)


def show_verdict(rows: Sequence[Mapping[str, Any]]) -> None:
    """Say of each attack whether it took: the rows of the model before it come first, then those after it."""
    rates: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        rates.setdefault((str(row["attack"]), str(row["metric"])), []).append(100 * (row["rate"] or 0.0))
    before, after = rates["none", "CA"]
    lost = ", which gives it away: give a lower --lr or fewer --epochs" if before - after > LOST else ""
    print(f"CA {before:.1f}% -> {after:.1f}%{lost}")
    for (attack, metric), (at_first, at_last) in rates.items():
        if metric == "ASR":
            print(f"{attack}: ASR {at_first:.1f}% -> {at_last:.1f}%, {_verdict(at_first, at_last)}")


def _verdict(before: float, after: float) -> str:
    if after < TOOK:
        return "did not take: give more --n, --epochs or --lr"
    return "took" if before < TOOK else "high before the attack too: the clean model takes the trigger for the target"
