"""The commands run in this process, and tiny artifacts to run them on."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from PIL import Image
from typer.testing import CliRunner

from rvpt.cli import app

GEOMETRY = [word for pair in ("width=32", "blocks=4", "text_width=32") for word in ("--geometry", pair)]
PRETRAIN = ["--data", "scenes:300", "--epochs", 1, "--test", "scenes:24", *GEOMETRY]
ATTACK = ["--data", "scenes:200", "--test", "scenes:48", "--target", "anchor", "--epochs", 2, "--n", 20]
CLEAN = ["--data", "scenes:500", "--shots", 1, "--epochs", 6, "--length", 2, "--first-block", 2]


@dataclass(frozen=True)
class Tiny:
    """Folders of a clean CLIP, the same with two backdoors, and the adapter that cleans that."""

    clip: Path
    backdoored: Path
    cleaned: Path


@cache
def build(home: Path) -> Tiny:
    """The artifacts, made once by the commands themselves; what `datasets` caches goes there as well."""
    import datasets

    datasets.config.HF_DATASETS_CACHE = home / "cache"
    datasets.disable_progress_bars()
    tiny = Tiny(home / "clip", home / "backdoored", home / "cleaned")
    works("pretrain", "--out", tiny.clip, *PRETRAIN)
    works("attack", tiny.clip, "--out", tiny.backdoored, *ATTACK, "--trigger", "badnet", "--trigger", "blended")
    works("clean", tiny.backdoored, "--out", tiny.cleaned, *CLEAN)
    return tiny


def rvpt(*words: Any) -> Any:
    """The result of a command; an exception that is no exit is raised."""
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def works(*words: Any) -> str:
    """What a command prints."""
    result = rvpt(*words)
    assert result.exit_code == 0, result.stderr
    return str(result.stdout)


def refused(*words: Any) -> str:
    """The one line with which a command refuses bad input."""
    result = rvpt(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return str(line)


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that lies in a folder: the bytes of files, None for folders."""
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def images(folder: Path, split: str = "test", n: int = 2) -> Path:
    """A folder of images with the classes cat and dog, `n` of each."""
    for name, color in (("cat", "red"), ("dog", "blue")):
        (folder / split / name).mkdir(parents=True)
        for number in range(n):
            Image.new("RGB", (20 + number, 30), color).save(folder / split / name / f"{number}.png")
    return folder


def interrupting(command: str, step: int) -> Any:
    """In the place of `progress.bar`: Ctrl-C once so many steps of a command are done."""

    @contextmanager
    def bar(title: str) -> Any:
        def report(done: int, total: int, values: Any) -> None:
            if title == command and done == step:
                raise KeyboardInterrupt

        yield report

    return bar
