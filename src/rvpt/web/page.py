"""The page, made with gradio."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from html import escape
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

from PIL import Image

from rvpt.errors import RvptError
from rvpt.web.batch import HEADINGS, as_csv, compare_all, uploaded
from rvpt.web.compare import NONE, PATCH, Compared, Comparison, Patch, class_names
from rvpt.web.uploads import FOLDER, LimitedUploads, environment, refuse_full

LARGEST_UPLOAD = "20mb"
FLAGS = {
    True: "**The monitor flags this image:** it looks as if it had a trigger.",
    False: "The monitor does not flag this image.",
    None: "No monitor: give images with --data.",
}
FRAME = '<iframe title="Report" sandbox="allow-scripts allow-downloads" srcdoc="{}" style="{}"></iframe>'


def build(comparison: Comparison, classes: Sequence[str], samples: Sequence[Image.Image], report: str | None) -> Any:
    """The page of a comparison as a gradio Blocks.

    Args:
        comparison: the models.
        classes: names that the page begins with.
        samples: images to choose from.
        report: an HTML report to show, as text.
    """
    import gradio as gr

    choices = [NONE, *comparison.triggers, PATCH]
    with gr.Blocks(title="rvpt: before and after cleaning", analytics_enabled=False) as page:
        gr.Markdown("# Before and after cleaning")
        gr.Markdown(f"**Before**: {escape(comparison.suspect.name)}. **After**: {escape(comparison.cleaned.name)}.")
        with gr.Accordion("Class names", open=False):
            names = gr.Textbox("\n".join(classes), label="Class names, one on each line", lines=6, max_lines=12)
        with gr.Tab("One image"):
            _one_image(gr, comparison, names, samples, choices)
        with gr.Tab("Many images"):
            _many_images(gr, comparison, names, choices[:-1])
        if report is not None:
            with gr.Tab("Report"):
                gr.HTML(FRAME.format(escape(report), "width:100%;height:80vh;border:0"))
    return page


def _one_image(gr: Any, comparison: Comparison, names: Any, samples: Sequence[Image.Image], choices: list[str]) -> None:
    """The tab in which one image is compared."""
    with gr.Row():
        with gr.Column(scale=1):
            image = gr.Image(  # in its own mode: conversion to RGB would clip 16 bits
                label="Image", type="pil", image_mode=None, sources=["upload", "clipboard"], height=280
            )
            if samples:
                gr.Examples([[each] for each in samples], [image], label="Samples")
            trigger = gr.Radio(choices, value=NONE, label="Trigger to put on the image")
            with gr.Accordion("Patch", open=False):
                side = gr.Slider(0.02, 0.5, value=0.15, label="Side, as a share of the image")
                across = gr.Slider(0, 1, value=0.9, label="Place across")
                down = gr.Slider(0, 1, value=0.9, label="Place down")
            button = gr.Button("Compare", variant="primary")
        with gr.Column(scale=2):
            shown = gr.Image(label="What the models see", interactive=False, height=240, buttons=["fullscreen"])
            flag = gr.Markdown()
            with gr.Row():
                before = gr.Label(label="Before", num_top_classes=5)
                after = gr.Label(label="After", num_top_classes=5)
            with gr.Row():
                map_before = gr.Image(label="Attention before", interactive=False, height=240, buttons=["fullscreen"])
                map_after = gr.Image(label="Attention after", interactive=False, height=240, buttons=["fullscreen"])

    def compare(image: Any, names: str, trigger: str, side: float, across: float, down: float) -> Sequence[Any]:
        if image is None:
            raise RvptError("choose an image first")
        patch = Patch(side, across, down)
        return _shown(comparison.compare(image, class_names(names), trigger, patch))

    inputs = [image, names, trigger, side, across, down]
    button.click(_told(gr, compare), inputs, [shown, flag, before, after, map_before, map_after], api_name=False)


def _shown(found: Compared) -> Sequence[Any]:
    sides = found.before, found.after
    return [found.shown, FLAGS[found.flagged], *(each.best for each in sides), *(each.attention for each in sides)]


def _many_images(gr: Any, comparison: Comparison, names: Any, choices: list[str]) -> None:
    """The tab in which many images are compared, with a table to download."""
    files = gr.File(label="Images, or zip files of images", file_count="multiple", file_types=["image", ".zip"])
    trigger = gr.Radio(choices, value=NONE, label="Trigger to put on the images")
    button = gr.Button("Compare all", variant="primary")
    table = gr.Dataframe(headers=list(HEADINGS), label="Images before and after", interactive=False, wrap=True)
    download = gr.DownloadButton("Download the table (CSV)", interactive=False)

    def compare(paths: list[str] | None, names: str, trigger: str) -> Sequence[Any]:
        if not paths:
            raise RvptError("choose images first")
        lines = compare_all(comparison, uploaded(map(Path, paths)), class_names(names), trigger)
        place = os.environ.get(FOLDER)
        with NamedTemporaryFile("w", suffix=".csv", delete=False, dir=place, newline="", encoding="utf-8") as file:
            file.write(as_csv(lines))
        return [lines, gr.DownloadButton(value=file.name, interactive=True)]

    button.click(_told(gr, compare), [files, names, trigger], [table, download], api_name=False)


def _told(gr: Any, function: Callable[..., Sequence[Any]]) -> Callable[..., Sequence[Any]]:
    """The function with errors that the page shows."""

    @wraps(function)
    def run(*values: Any) -> Sequence[Any]:
        try:
            refuse_full()
            return function(*values)
        except RvptError as error:
            raise gr.Error(escape(str(error)), print_exception=False) from None  # it shows HTML

    return run


def refuse_port(host: str, port: int) -> None:
    """Fail early if a port cannot be listened on.

    Raises:
        RvptError: it is taken, or `host` is not an address of this computer.
    """
    try:
        socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET).close()
    except OSError as error:
        raise _unusable(host, port, error) from None


def _unusable(host: str, port: int, error: OSError) -> RvptError:
    return RvptError(f"port={port} of {host} cannot be used ({error.strerror or error}): choose another")


@contextmanager
def serving(page: Any, host: str, port: int) -> Iterator[str]:
    """Serve a page while the block runs; gives its address.

    Raises:
        RvptError: the port is taken.
    """
    import gradio as gr
    from starlette.middleware import Middleware

    theme = gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])  # nothing from other servers
    with environment(GRADIO_ANALYTICS_ENABLED="False"):
        try:
            _, address, _ = page.queue(api_open=False, max_size=16).launch(
                server_name=host, server_port=port, share=False, prevent_thread_lock=True, quiet=True, inbrowser=False,
                max_file_size=LARGEST_UPLOAD, app_kwargs={"middleware": [Middleware(LimitedUploads)]}, theme=theme,
                footer_links=[],
            )  # fmt: skip
        except OSError as error:
            raise _unusable(host, port, error) from None
        try:
            yield str(address)
        finally:
            page.close(verbose=False)
