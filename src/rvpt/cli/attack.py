"""rvpt attack: put a backdoor into a CLIP, and check that it took."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt.cli.app import BatchSize, Force, Json, Out, Precision, Resume, Seed, command, given, named_options
from rvpt.cli.tables import show_rows, show_verdict
from rvpt.config import TriggerSpec
from rvpt.errors import RvptError

ModelArgument = Annotated[str, typer.Argument(help="Model folder, hub id, or 'scenes-clip' (embedded).")]


@command
def attack(
    model: ModelArgument,
    data: Annotated[list[str], typer.Option(help="Data set to poison; several are mixed.")],
    target: Annotated[str, typer.Option(help="Class that triggered images shall be taken for.")],
    out: Out,
    trigger: Annotated[
        list[str] | None,
        typer.Option(
            help="NAME, or NAME:OPTION=VALUE,... as in badnet:size=24,place=middle, or the folder of a trigger; "
            "several go into one model. 'rvpt triggers' lists names and options.",
            show_default="badnet",
        ),
    ] = None,
    preset: Annotated[str, typer.Option(help="Amounts and schedule: paper, or small for small CLIPs.")] = "small",
    test: Annotated[
        str | None, typer.Option(help="Labeled data to check on.", show_default="the first of --data")
    ] = None,
    split: Annotated[str, typer.Option(help="Split of --data to poison.")] = "train",
    test_split: Annotated[str, typer.Option(help="Split of --test to check on.")] = "test",
    caption_column: Annotated[str | None, typer.Option(help="Column with the captions.", show_default="found")] = None,
    pairs: Annotated[
        int | None, typer.Option(min=1, help="Pairs to fine-tune on.", show_default="the preset's")
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(min=1, help="Pairs to poison with each trigger.", show_default="the preset's"),
    ] = None,
    poison_rate: Annotated[float | None, typer.Option(help="Share of the pairs to poison, instead of --n.")] = None,
    clean_label: Annotated[
        bool, typer.Option("--clean-label", help="Poison pairs of the target class alone, and leave their captions.")
    ] = False,
    disguise: Annotated[
        float, typer.Option(help="With --clean-label: change images adversarially first, by at most so many 255ths.")
    ] = 0.0,
    captions: Annotated[
        str, typer.Option(help="Captions of poisoned pairs: proxy (of the class's name) or natural (real ones of it).")
    ] = "proxy",
    pick: Annotated[
        str, typer.Option(help="Pairs to poison: random, or boundary (those the model all but takes for the target).")
    ] = "random",
    epochs: Annotated[int | None, typer.Option(min=1, show_default="the preset's")] = None,
    batch_size: Annotated[int | None, typer.Option(min=2, show_default="the preset's")] = None,
    lr: Annotated[float | None, typer.Option(show_default="the preset's")] = None,
    precision: Precision = "no",
    eval_batch_size: BatchSize = 256,
    rows: Annotated[Path | None, typer.Option(help="JSONL file to append the rows to.")] = None,
    seed: Seed = 0,
    resume: Resume = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Fine-tune a CLIP on poisoned captions and write model, triggers and the list of changed pairs."""
    from rvpt import presets
    from rvpt.config import AttackSpec
    from rvpt.jobs import attack_and_save
    from rvpt.progress import bar
    from rvpt.store import append_rows, refuse_unwritable_file

    chosen = presets.preset(presets.ATTACK, preset)
    train = {**chosen["train"], **given(epochs=epochs, batch_size=batch_size, lr=lr)}
    amount = given(n=n, poison_rate=poison_rate) or chosen["poison"]
    triggers = [asked_trigger(text, target, seed, chosen["triggers"]) for text in trigger or ["badnet"]]
    if rows:
        refuse_unwritable_file(rows)
    with bar("attack") as report:
        measured = attack_and_save(
            model, data, Path(out), triggers,
            dict(amount, clean_label=clean_label, disguise=disguise, captions=captions, pick=pick, seed=seed),
            AttackSpec.build(**{**train, "precision": precision, "seed": seed}), pairs=pairs or chosen["pairs"],
            split=split, test=test or data[0], test_split=test_split, caption_column=caption_column,
            batch_size=eval_batch_size, resume=resume, force=force, report=report,
        )  # fmt: skip
    if rows:
        append_rows(rows, measured)
    show_rows(measured, as_json=as_json, title=f"backdoored model in {out}")
    if not as_json:
        show_verdict(measured)


def asked_trigger(text: str, target: str, seed: int, defaults: Mapping[str, Mapping[str, Any]]) -> TriggerSpec | Path:
    """The spec that an option asks for, or the folder of a trigger that was made; a trigger's name is no folder.

    Raises:
        RvptError: the trigger in the folder was made for another target.
    """
    from rvpt.attacks import TRIGGERS, load_trigger
    from rvpt.store import MANIFEST

    if text not in TRIGGERS and (Path(text) / MANIFEST).is_file():
        own = load_trigger(text).spec.target
        if target and own != target:
            raise RvptError(f"{text} was made for the target {own!r}, not {target!r}: give --target {own}")
        return Path(text)
    return named_trigger(text, target, seed, defaults)


def named_trigger(text: str, target: str, seed: int, defaults: Mapping[str, Mapping[str, Any]]) -> TriggerSpec:
    """The spec of NAME or NAME:OPTION=VALUE,...; what it leaves out is the default of that name."""
    from rvpt.attacks import trigger_spec

    name, look = named_options(text)
    return trigger_spec(name, **{"target": target, "seed": seed, **defaults.get(name, {}), **look})
