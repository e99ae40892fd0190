"""rvpt convert: any CLIP as a folder in transformers' layout."""

from __future__ import annotations

from typing import Annotated

import typer

from rvpt.cli.app import command
from rvpt.cli.options import Activation, Json, OutputDir, Overwrite, Revision, Source
from rvpt.cli.panels import MODELS
from rvpt.cli.tables import show_facts
from rvpt.spec import Precision


@command(MODELS)
def convert(
    source: Source,
    output_dir: OutputDir,
    activation: Activation = None,
    revision: Revision = None,
    precision: Annotated[Precision, typer.Option(help="Precision of the written weights.")] = "fp32",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a CLIP to a folder in the layout of transformers, with safetensors.

    PyTorch files are read as data, without unpickling; no code in them is run.
    """
    from rvpt.jobs.converting import convert

    facts = convert(
        source, output_dir, activation=activation, precision=precision, revision=revision, overwrite=overwrite
    )
    show_facts({"converted": str(output_dir), **facts}, as_json=as_json)
