"""rvpt evaluate: measure models by a protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt import progress
from rvpt.cli.app import MoreHelp, command
from rvpt.cli.choices import PROTOCOL, SHIFT
from rvpt.cli.options import DATA, BaseModel, Data, Device, Json, OnErrors, Rows, ShiftName, set_option
from rvpt.cli.panels import CLEANING
from rvpt.cli.settings import gather
from rvpt.cli.tables import show_rows
from rvpt.errors import RvptError
from rvpt.rows import Rows as RowList
from rvpt.rows import append_rows, refuse_foreign
from rvpt.spec import TEMPLATE, Precision

MEASURING = "Measuring"


def _help() -> MoreHelp:
    from rvpt.evaluation import PROTOCOLS

    usual = PROTOCOLS["classification"].batch_size
    others = [f"{kind.batch_size} ({name})" for name, kind in PROTOCOLS.items() if kind.batch_size != usual]
    texts = {
        "protocol": PROTOCOL.text(),
        "shift": SHIFT.text(),
        "template": f"default: {TEMPLATE}",
        "batch_size": f"default: {', '.join([str(usual), *others])}",
    }
    return MoreHelp(texts)


@command(CLEANING, _help)
def evaluate(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Folders of models or of cleaned models, hub ids, or those that ship with rvpt."
        ),
    ],
    data: Data,
    trigger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of a trigger; repeatable.",
            show_default="those saved with the model",
        ),
    ] = None,
    protocol: Annotated[
        str, PROTOCOL.option(help="What to measure; 'rvpt protocols' describes them.")
    ] = "classification",
    limit: Annotated[
        int | None, typer.Option(min=1, help="Use at most this many images, drawn at random.", show_default="all")
    ] = None,
    device: Device = None,
    base_model: BaseModel = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            help="Name of the triggers' target class in this data set.",
            show_default="its name in the trigger",
            rich_help_panel=MEASURING,
        ),
    ] = None,
    template: Annotated[
        str | None,
        typer.Option(metavar="TEXT", help="Caption of a class; {} is its name.", rich_help_panel=MEASURING),
    ] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Images per batch.", rich_help_panel=MEASURING)] = None,
    precision: Annotated[Precision, typer.Option(help="Precision of the weights.", rich_help_panel=MEASURING)] = "fp32",
    settings: Annotated[
        list[str] | None,
        set_option(
            "Setting of the protocol, as in --set epsilon=4; repeatable. 'rvpt protocols' lists them.", MEASURING
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="Split of the data to measure on.", rich_help_panel=DATA)] = "test",
    include_class: Annotated[
        list[str] | None,
        typer.Option(
            metavar="CLASS",
            help="Use only the images of this class; repeatable.",
            show_default="all",
            rich_help_panel=DATA,
        ),
    ] = None,
    shift: ShiftName = None,
    on_error: OnErrors = "stop",
    rows: Rows = None,
    as_json: Json = False,
) -> None:
    """Measure models: accuracy on clean images (CA), and attack success (ASR) and accuracy (PA) under each trigger.

    Models that rvpt backdoored, and models cleaned from them, are measured under the triggers saved with them. All
    others are measured on clean images, unless --trigger is given. --protocol measures something else instead.
    """
    from rvpt.evaluation.heldout import HeldOut
    from rvpt.jobs.measuring import evaluate_saved
    from rvpt.models.formats.load import model_place

    for model in models:  # before the first is measured
        model_place(model)
    own = gather(settings, target=target, template=template)
    held_out = HeldOut(
        data=data, split=split, only=include_class or [], limit=limit, shift=shift, protocol=protocol,
        on_error=on_error, batch_size=batch_size, settings=own,
    )  # fmt: skip
    if trigger and not held_out.how.uses_triggers:
        raise RvptError(f"protocol {protocol} uses no triggers: remove trigger={trigger[0]}")
    if rows:
        refuse_foreign(rows)
    opened, measured = held_out.open(), RowList()
    folders: dict[str, str] = {}
    try:
        for model in models:
            with progress.bar(f"evaluate {Path(model).name}") as report:
                found = evaluate_saved(
                    model, opened, triggers=trigger or [], base=base_model, device=device, dtype=precision,
                    report=report,
                )  # fmt: skip
            measured += found
            folders.update((model, row["hashes"]["model"]) for row in found)
            if rows:
                append_rows(rows, found)
    finally:  # what was measured is shown, whatever comes after it
        if measured:
            show_rows(measured, as_json=as_json, folders=folders)
