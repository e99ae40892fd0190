"""ONNX: a graph for each tower, which onnxruntime runs without torch."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from rvpt.errors import RvptError
from rvpt.exports import cards
from rvpt.exports.towers import ImageTower, TextTower, Towers

INSTALL = "ONNX needs onnx, onnxscript and onnxruntime: pip install 'rvpt[onnx]'"
LIMIT = 2**31 - 2**20  # bytes of weights that one file can hold


class Onnx(Towers):
    """image.onnx with the prompts built in, and text.onnx."""

    name = "onnx"
    summary = "graphs of the image tower, prompts built in, and of the text tower, for onnxruntime"
    libraries = ("onnx", "onnxruntime", "transformers")
    suffix, usage = "onnx", cards.ONNX

    def write_graph(self, tower: ImageTower | TextTower, example: Tensor, sides: Mapping[int, Any], path: Path) -> None:
        _library("onnx"), _library("onnxscript")
        large = sum(weight.nbytes for weight in tower.parameters()) > LIMIT
        with _quiet():
            torch.onnx.export(
                tower, (example,), path, input_names=[tower.reads], output_names=[tower.gives],
                dynamic_shapes=(dict(sides),), dynamo=True, external_data=large, verbose=False,
            )  # fmt: skip

    def run_graph(self, path: Path, name: str, value: Tensor) -> Tensor:
        session = _library("onnxruntime").InferenceSession(path, providers=["CPUExecutionProvider"])
        return torch.from_numpy(session.run(None, {name: value.numpy()})[0])


ONNX = Onnx()


def _library(name: str) -> Any:
    """A library of the extra.

    Raises:
        RvptError: it is not installed.
    """
    from importlib import import_module

    try:
        return import_module(name)
    except ImportError:
        raise RvptError(INSTALL) from None


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's messages, such as that torchvision is not installed."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
