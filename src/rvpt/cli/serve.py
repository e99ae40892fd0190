"""rvpt serve: a local page to try a suspect and its cleaned model."""

from __future__ import annotations

import ipaddress
import logging
import time
from pathlib import Path
from typing import Annotated

import typer

from rvpt.cli.app import command
from rvpt.cli.options import ClassesFile, Device, ImagesSplit, ModelArgument, OnErrors
from rvpt.cli.panels import CLEANING
from rvpt.errors import RvptError

logger = logging.getLogger("rvpt")


@command(CLEANING)
def serve(
    suspect: ModelArgument,
    cleaned: Annotated[str, typer.Argument(metavar="CLEANED", help="Folder of the same model, cleaned.")],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="DATA",
            help="Images for samples, class names and the monitor, without triggers.",
            show_default="no samples and no monitor",
        ),
    ] = None,
    trigger: Annotated[
        list[str] | None,
        typer.Option(
            metavar="FOLDER",
            help="Folder of a trigger that can be put on images; repeatable.",
            show_default="those saved with the suspect",
        ),
    ] = None,
    report: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Report to show in a tab.", show_default=False)
    ] = None,
    host: Annotated[str, typer.Option(metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 7860,
    device: Device = None,
    split: ImagesSplit = "test",
    classes: ClassesFile = None,
    on_error: OnErrors = "stop",
) -> None:
    """Open a page on this computer: drop an image on it, put a trigger on it, and see both models' predictions.

    It needs the extra 'web' of rvpt. Only this computer can reach the page, unless --host is given.
    """
    from rvpt.data.classnames import read_names
    from rvpt.web.open import open_page
    from rvpt.web.page import refuse_port, serving
    from rvpt.web.uploads import temporary_uploads

    if not is_local(host):
        logger.warning("everybody who can reach %s can use the page: it has no password", host)
    names = read_names(classes) if classes else None
    refuse_port(host, port)  # before the models are loaded
    with temporary_uploads():
        page = open_page(
            suspect,
            cleaned,
            data,
            split=split,
            classes=names,
            triggers=trigger or [],
            report=report,
            device=device,
            on_error=on_error,
        )
        with serving(page, host, port) as address:
            print(f"{address} (Ctrl-C ends it)", flush=True)
            while True:
                time.sleep(3600)


def is_local(host: str) -> bool:
    """Whether only this computer can reach an address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        raise RvptError(f"host={host} is not an address: give one such as 127.0.0.1 or 0.0.0.0") from None
