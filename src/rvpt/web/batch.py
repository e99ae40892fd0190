"""Many images before and after cleaning: from uploaded images and zip files to a table."""

from __future__ import annotations

import csv
import zlib
from collections.abc import Iterable, Iterator, Sequence
from io import BytesIO, StringIO
from lzma import LZMAError
from pathlib import Path
from zipfile import BadZipFile, ZipFile

from PIL import Image

from rvpt.data.preprocess import to_image
from rvpt.data.reading import is_image
from rvpt.errors import RvptError
from rvpt.models.classifier import Classifier
from rvpt.web.compare import Comparison

HIDDEN = (".", "__MACOSX")  # what macOS adds to a zip file
MOST_IMAGES, MOST_BYTES = 500, 256 * 2**20  # of all images together, unpacked
HEADINGS = ("image", "before", "probability before", "after", "probability after", "changed", "flagged")
UNREADABLE = (BadZipFile, NotImplementedError, RuntimeError, OSError, ValueError, EOFError, zlib.error, LZMAError)
FORMULAS = ("=", "+", "-", "@", "\t", "\r")  # with which spreadsheets begin what they compute


def uploaded(paths: Iterable[Path]) -> Iterator[tuple[str, Image.Image]]:
    """(name, image) of uploaded images and of those in zip files, which are read in memory.

    Raises:
        RvptError: too many images or bytes, or a file that cannot be read.
    """
    count = size = 0
    for name, data in _files(paths):
        count, size = count + 1, size + len(data)
        if count > MOST_IMAGES or size > MOST_BYTES:
            raise RvptError(f"more than {MOST_IMAGES} images, or more than {MOST_BYTES >> 20} MB: give fewer")
        try:
            yield name, to_image(Image.open(BytesIO(data)))
        except (RvptError, OSError, ValueError, Image.DecompressionBombError):
            raise RvptError(f"{name} cannot be read as an image: remove it") from None
    if not count:
        raise RvptError("these files hold no images: give images, or zip files of images")


def _files(paths: Iterable[Path]) -> Iterator[tuple[str, bytes]]:
    """(name, bytes) of files; of a zip file, those of the images in it."""
    for path in paths:
        if path.suffix.lower() != ".zip":
            yield path.name, path.read_bytes()
            continue
        try:
            with ZipFile(path) as archive:
                for entry in archive.infolist():
                    parts = Path(entry.filename).parts
                    hidden = any(part.startswith(HIDDEN) for part in parts)
                    if hidden or not is_image(entry.filename):
                        continue
                    if entry.file_size > MOST_BYTES:  # as stated; a read never gives more
                        raise RvptError(f"{entry.filename} is larger than {MOST_BYTES >> 20} MB: remove it")
                    yield entry.filename, archive.read(entry)
        except RvptError:
            raise
        except UNREADABLE as error:
            raise RvptError(f"{path.name} cannot be read as a zip file: {error}") from None


def compare_all(
    comparison: Comparison, images: Iterable[tuple[str, Image.Image]], classes: Sequence[str], trigger: str
) -> list[list[str]]:
    """A line for each image, with what `HEADINGS` say."""
    both = [Classifier(model, classes) for model in (comparison.suspect, comparison.cleaned)]
    lines = []
    for name, image in images:
        pixels = comparison.stamped(image, trigger)
        (before, sure), (after, surer) = ((each.probabilities(pixels)[0].max(0)[::-1]) for each in both)
        monitor = comparison.monitor
        flagged = "" if monitor is None else _yes(bool(monitor([pixels[0]])[0]))
        lines.append([
            name, classes[int(before)], f"{float(sure):.3f}", classes[int(after)], f"{float(surer):.3f}",
            _yes(int(before) != int(after)), flagged,
        ])  # fmt: skip
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def as_csv(lines: Sequence[Sequence[str]]) -> str:
    """The table as CSV, in which no cell is a formula."""
    out = StringIO()
    writer = csv.writer(out)
    writer.writerow(HEADINGS)
    writer.writerows([f"'{cell}" if cell.startswith(FORMULAS) else cell for cell in line] for line in lines)
    return out.getvalue()
