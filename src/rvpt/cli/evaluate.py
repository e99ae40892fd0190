"""rvpt evaluate: clean accuracy, attack success and poisoned accuracy of models, or another protocol."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from rvpt.cli.app import Data, Json, Template, command, given
from rvpt.cli.tables import show_rows
from rvpt.config import TEMPLATE
from rvpt.errors import RvptError

SHIFTS = "noise, blur, gray, sketch, posterize or recolor"


@command
def evaluate(
    models: Annotated[list[str], typer.Argument(help="Model folders, cleaned folders, hub ids, or 'scenes-clip'.")],
    data: Data,
    trigger: Annotated[
        list[str] | None, typer.Option(help="Trigger folder.", show_default="those stored with the model")
    ] = None,
    target: Annotated[str | None, typer.Option(help="The target's name in --data, where it differs.")] = None,
    split: Annotated[str, typer.Option(help="Split to measure on.")] = "test",
    only_class: Annotated[
        list[str] | None, typer.Option(help="Measure on this class's images alone (may be given several times).")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Measure on so many images, drawn at random.", show_default="all")
    ] = None,
    shift: Annotated[str | None, typer.Option(help=f"Change of style: {SHIFTS}.")] = None,
    protocol: Annotated[
        str,
        typer.Option(
            help="classification, retrieval (by captions), captioning, adversarial (PGD-10), readability "
            "(of attributes, off the features), or resistivity (of every block, to the triggers)."
        ),
    ] = "classification",
    captioner: Annotated[
        str | None, typer.Option(help="For captioning: a LLaVA, which sees through the model. Folder or hub id.")
    ] = None,
    prompt: Annotated[str | None, typer.Option(help="What it is asked; <image> is the image's place.")] = None,
    epsilon: Annotated[float, typer.Option(help="For adversarial: the largest change, in 255ths.")] = 2.0,
    base: Annotated[str | None, typer.Option(help="Base model of cleaned folders, if it was moved.")] = None,
    template: Template = TEMPLATE,
    batch_size: Annotated[
        int | None, typer.Option(min=1, help="Images at once.", show_default="256; captioning 8")
    ] = None,
    rows: Annotated[Path | None, typer.Option(help="JSONL file to append the rows to.")] = None,
    as_json: Json = False,
) -> None:
    """Measure CA, and under each trigger ASR (target class out), ASR_with_target and PA; or by another protocol."""
    from rvpt.jobs import HeldOut, evaluate_saved
    from rvpt.progress import bar
    from rvpt.store import append_rows, refuse_unwritable_file

    test = HeldOut.build(
        data=data, split=split, target=target, template=template, only=only_class or [], limit=limit, shift=shift,
        protocol=protocol, captioner=captioner, epsilon=epsilon, batch_size=batch_size, **given(prompt=prompt),
    )  # fmt: skip
    if trigger and not test.how.shows_triggers:
        raise RvptError(f"--protocol {protocol} shows no triggers: leave --trigger out")
    if rows:
        refuse_unwritable_file(rows)
    measured: list[dict[str, Any]] = []
    for model in models:
        try:
            with bar(f"evaluate {Path(model).name}") as report:
                found = evaluate_saved(model, test, triggers=trigger or [], base=base, report=report)
            measured += found
            if rows:
                append_rows(rows, found)
        except RvptError:
            if measured:  # is shown, whatever comes after it
                show_rows(measured, as_json=as_json)
            raise
    show_rows(measured, as_json=as_json)
