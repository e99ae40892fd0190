"""rvpt verify: is this folder still what rvpt wrote?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import command
from rvpt.cli.options import BaseModel, Json
from rvpt.cli.panels import MODELS
from rvpt.cli.tables import show_facts


@command(MODELS)
def verify(
    folder: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="A model, cleaned model, trigger, check or export of rvpt.")
    ],
    base_model: BaseModel = None,
    as_json: Json = False,
) -> None:
    """Check a folder that rvpt wrote: the hash of each file, that it loads, and the outputs stored with it.

    If anything differs, the exit code is 2 and one line says what. Hashes find damage; they do not prove who wrote it.
    """
    from rvpt.jobs.verifying import verify

    show_facts({"verified": str(folder), **verify(folder, base=base_model)}, as_json=as_json)
