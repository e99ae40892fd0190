"""Results on the screen: tables of rows, and facts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from rvpt.cli.listing import plain_table
from rvpt.report.groups import by_data, by_run, metrics, which_model
from rvpt.report.inspections import predicted, summary
from rvpt.report.markdown import spread
from rvpt.report.names import TITLES, guess
from rvpt.rows import CLEAN, Row

CAPTION = "rates in %, with 95% Wilson intervals or standard deviations over seeds; ASR leaves the target class out"
WIDTH, ANY = 100, 10_000  # of a table where there is no terminal, and of one with names, which are not folded there
FOLDED, INTERVAL = 7, 12  # widths of a column of text if folded, and of an interval
SHOWN = 20  # flagged images in a table
HIDDEN = ("ASR_with_target",)  # in the rows, but not on the screen


def show_json(value: Any) -> None:
    """Print a value as JSON."""
    print(json.dumps(value, indent=2))


def show_facts(facts: Mapping[str, Any], *, as_json: bool) -> None:
    """Print facts as aligned lines, or as one JSON object."""
    if as_json:
        show_json(facts)
        return
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:<{width}}  {value:.3f}" if isinstance(value, float) else f"{name:<{width}}  {value}")


def show_rows(rows: Sequence[Row], *, as_json: bool, title: str = "", folders: Mapping[str, str] | None = None) -> None:
    """Print a line for each model, defense and attack.

    Args:
        rows: of any models and data.
        as_json: print the rows themselves, as one JSON array.
        title: above the table.
        folders: the hash of the model in each folder; several are shown in a column.
    """
    if as_json:
        show_json(list(rows))
        return
    table = Table(title=title or None, caption=CAPTION)
    clean, triggered = ([metric for metric in side if metric not in HIDDEN] for side in metrics(rows))
    rates, places = (*clean, *triggered), folders if folders and len(folders) > 1 else {}
    texts = (*(["folder"] if places else []), "data", "model", "attack", "defense")
    for heading in (*texts, *rates):
        table.add_column(
            heading, justify="right" if heading in rates else "left", no_wrap=heading in rates, overflow="fold"
        )
    for data, members in by_data(rows).items():
        for run, found in by_run(members).items():
            measured = {which_model(row)[1] for row in found.hit}
            whose = [folder for folder, sha256 in places.items() if sha256 in measured]
            cells = [*(_cell(found.clean, name) for name in clean), *(_cell(found.hit, name) for name in triggered)]
            table.add_row(*(["\n".join(whose)] if places else []), data, run.model, run.attack, run.title, *cells)
        table.add_section()
    numbers = sum(3 + max(INTERVAL, len(heading)) for heading in rates)
    show_table(table, FOLDED * len(texts) + numbers, ANY)


def show_demo(rows: Sequence[Row]) -> None:
    """The demo's table: a line for each defense, its rates under every trigger and what it cost."""
    attacks = list(dict.fromkeys(str(row["attack"]) for row in rows if row["attack"] != CLEAN))
    columns = [(CLEAN, "CA"), *((attack, metric) for attack in attacks for metric in ("ASR", "PA"))]
    table = Table(caption=CAPTION)
    for heading in ("defense", "CA", *(f"{m}\n{a}" for a, m in columns[1:]), "seconds", "trained"):
        table.add_column(heading, justify="left" if heading == "defense" else "right")
    for defense in dict.fromkeys(str(row["defense"]) for row in rows):
        mine = {(row["attack"], row["metric"]): row for row in rows if row["defense"] == defense}
        cost = mine[CLEAN, "CA"]
        table.add_row(
            TITLES.get(defense, defense),
            *(_two_lines(mine[column]) for column in columns),
            f"{cost['clean_seconds']:.0f}",
            f"{cost['trained_parameters']:,}",
        )
    show_table(table)


def show_inspection(found: Mapping[str, Any]) -> None:
    """Print how many images are flagged, and the most suspicious ones."""
    lines = found["found"][:SHOWN]
    headings = ("image", "suspect", "cleaned", "score", "p")
    shown = ((line["file"] or str(line["image"]), guess(line, "suspect"), guess(line, "cleaned"),
              f"{line['score']:.3f}", f"{line['p_value']:.4f}") for line in lines)  # fmt: skip
    if lines:
        show_table(plain_table(headings, shown))
    if len(found["found"]) > len(lines):
        print(f"... and {len(found['found']) - len(lines)} more")
    print(summary(found))
    if found["predictions"]:
        print(f"what the suspect predicts for flagged images: {predicted(found)}")


def show_checked_cleaning(found: Mapping[str, Any], folder: Path, *, as_json: bool) -> None:
    """Print what a check, cleaning and a second check found."""
    if as_json:
        show_json(found)
        return
    show_verdicts({f"{name} cleaning": found[name] for name in ("before", "after") if found[name]})
    if cleaned := found["cleaned"]:
        print(
            f"cleaned by {cleaned['defense']} with {cleaned['images']} images in {cleaned['seconds']:.0f} s: "
            f"{folder / 'cleaned'}"
        )
        print(_kept(found["accuracy"]))
    else:
        print(
            "The model looks clean and was not cleaned. A check misses some backdoors: to clean the model anyway, run "
            "the command without --auto."
        )


def _kept(found: Mapping[str, Any]) -> str:
    """What a cleaning cost, in a line."""
    which = "not used for cleaning" if found["held_out"] else "used for cleaning, as there are no others"
    before, after = (f"{100 * found[name]:.1f}%" for name in ("before", "after"))
    if found["measure"] == "accuracy":
        return f"accuracy on {found['n']} images {which}: {before} before, {after} after"
    return f"agreement with the suspect, without labels, on {found['n']} images {which}: {after}"


def show_verdicts(verdicts: Mapping[str, Mapping[str, Any]]) -> None:
    """Print verdicts side by side, with their names as headings, and below why they may say little."""
    from rvpt.detection.verdict import basis, caveats

    lines = [
        ("verdict", *(each["verdict"] for each in verdicts.values())),
        ("why", *(basis(each) for each in verdicts.values())),
        ("most suspicious target", *(_suspected(each["targets"][0]) for each in verdicts.values())),
    ]
    show_table(plain_table(("", *verdicts), lines))
    for name, each in verdicts.items():
        for caveat in caveats(each):
            print(f"{name}: {caveat}")


def _suspected(target: Mapping[str, Any]) -> str:
    return f"{target['class']} ({100 * target['share']:.0f}% of images flipped)"


def show_table(table: Table, least: int = 0, wide: int = WIDTH) -> None:
    """Print a table as wide as the terminal; where there is none, as wide as it needs to be, up to a limit.

    Args:
        table: what to print.
        least: width without which numbers would be cut off.
        wide: the limit where there is no terminal; `COLUMNS` in the environment may set a higher one.
    """
    console = Console(markup=False, emoji=False)  # names are shown as they are
    console.width = max(console.width, least) if console.is_terminal else max(console.width, wide)
    console.print(table)


def percent(row: Row) -> str:
    """A rate with its interval if it has one, in percent."""
    if row["rate"] is None:
        return "-"
    if row["low"] is None:
        return f"{100 * row['rate']:.1f}"
    return f"{100 * row['rate']:.1f} [{100 * row['low']:.1f}, {100 * row['high']:.1f}]"


def _two_lines(row: Row) -> str:
    return percent(row).replace(" [", "\n[")


def _cell(rows: Sequence[Row], metric: str) -> str:
    """One measurement with its interval; mean and standard deviation over several seeds."""
    found = [row for row in rows if row["metric"] == metric]
    return _two_lines(found[0]) if len(found) == 1 else spread(found, metric)
