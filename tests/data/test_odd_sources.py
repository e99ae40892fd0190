"""Odd data sets of every kind: each is read right, or refused in one line; nothing is left out without a word."""

import io
import json
import os
import struct
import sys
import tarfile
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from helpers import class_counts, encoded, place_images
from rvpt import Dataset, load_data
from rvpt.data.labels import to_labels
from rvpt.errors import RvptError

CATS = {"cat": 1, "dog": 1}


def check(build, expected, place, split):
    """Build a source in `place`, and compare its classes with counts, or its refusal with words."""
    source = str(build(place) or place)
    if isinstance(expected, dict):
        assert whole(source, split) == expected
        return
    with pytest.raises(RvptError) as refusal:
        whole(source, split)
    assert expected in str(refusal.value)
    assert "\n" not in str(refusal.value)


def whole(source, split):
    """How many images each class has, after all were read."""
    data = load_data(source, split)
    counts = class_counts(data)
    assert data.pixels(torch.arange(len(data)), 8).shape[0] == len(data)
    return counts


# Folders


def images(*places):
    return lambda here: place_images(here, *places) and None


def pets(here, *more):
    place_images(here, "train/cat/0.png", "train/dog/0.png", *more)


def linked(target, name):
    def build(here):
        pets(here)
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        (here / name).symlink_to(target)

    return build


def other_bytes(name):
    """A class folder, or a file in one, whose name is Latin-1."""

    def build(here):
        pets(here, "train/owl/0.png")
        old = here / "train" / "owl" / ("0.png" if name.endswith(b"png") else "")
        os.rename(old, os.path.join(os.path.dirname(os.fsencode(old)), name))

    return build


def junk(here):
    pets(here, "train/cat/._0.png", "train/.ds/0.png", "train/__MACOSX/cat/0.png", "train/dog/.hidden.png")
    (here / "train" / "cat" / "Thumbs.db").write_bytes(b"x")


def notes(here):
    pets(here)
    (here / "train" / "cat" / "notes.txt").write_text("x")
    (here / "train" / "README").write_text("x")


FOLDERS = {
    "capital suffixes": (images("train/cat/0.PNG", "train/dog/0.JpEg"), CATS),
    "brackets": (images("train/c[a]t/0.png", "train/*?/0.png"), {"*?": 1, "c[a]t": 1}),
    "braces": (images("train/{x}/0.png", "train/{0}/0.png"), {"{0}": 1, "{x}": 1}),
    "quotes and commas": (images("train/a, b/0.png", "train/it's/0.png"), {"a, b": 1, "it's": 1}),
    "a class with a suffix": (images("train/cat.png/0.png", "train/dog/0.png"), {"cat.png": 1, "dog": 1}),
    "a class called as a split": (images("train/train/0.png", "train/dog/0.png"), {"dog": 1, "train": 1}),
    "a percent sign": (images("train/50%/0.png", "train/%s/0.png"), {"%s": 1, "50%": 1}),
    "emoji": (images("train/🐱/0.png", "train/дом/0.png"), {"дом": 1, "🐱": 1}),
    "two spaces": (images("train/ice cream/0.png", "train/ice  cream/0.png"), "have the same name"),
    "a space at the end": (images("train/cat/0.png", "train/cat /0.png"), "have the same name"),
    "a space of no width": (images("train/cat/0.png", "train/cat\u200b/0.png"), "have the same name"),
    "a space that does not break": (images("train/a b/0.png", "train/a\u00a0b/0.png"), "have the same name"),
    "a soft hyphen": (images("train/cat/0.png", "train/c\u00adat/0.png"), "have the same name"),
    "another Unicode form": (images("train/caf\u00e9/0.png", "train/cafe\u0301/0.png"), "have the same name"),
    "capital letters": (images("train/Cat/0.png", "train/cat/0.png"), "have the same name"),
    "underscores": (images("train/a_b/0.png", "train/a b/0.png"), "have the same name"),
    "twins in another split": (images("train/a_b/0.png", "train/c/0.png", "test/a b/0.png"), "have the same name"),
    "no letters": (images("train/_/0.png", "train/cat/0.png"), "no name that can be written"),
    "Latin-1 class": (other_bytes(b"caf\xe9"), "no name that can be written"),
    "Latin-1 file": (other_bytes(b"caf\xe9.png"), {**CATS, "owl": 1}),
    "a link to no image": (linked("/nowhere/1.png", "train/cat/1.png"), "cannot be read"),
    "a link to no class": (linked("/nowhere/owl", "train/owl"), "is a link to what is not there"),
    "a link to a class": (linked("cat", "train/owl"), {**CATS, "owl": 1}),
    "a link to a folder above": (linked("..", "train/cat/loop"), CATS),
    "hidden files and junk": (junk, CATS),
    "notes": (notes, CATS),
}


@pytest.mark.skipif(sys.platform != "linux", reason="names of files are any bytes")
@pytest.mark.parametrize("name", FOLDERS)
def test_odd_folders(tmp_path, name):
    build, expected = FOLDERS[name]
    check(build, expected, tmp_path, "train")


def test_files_that_are_no_images_and_folders_of_them_are_told(tmp_path, caplog):
    pets(tmp_path)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("x")
    (tmp_path / "train" / "owl").mkdir()
    (tmp_path / "train" / "owl" / "0").write_bytes(encoded())
    assert class_counts(load_data(str(tmp_path), "train")) == CATS
    assert "1 files are not images by their suffix, as cat/notes.txt" in caplog.text
    assert "1 folders have files but no images by their suffix, as owl: they are no classes" in caplog.text


@pytest.mark.parametrize(
    "folder", ["me@home", "a:b", "a [1] {x}", "a,b;c", "ünïcödé", "-x", "a\tb", "%20", "~x", "x.csv"]
)
def test_odd_paths(tmp_path, folder):
    place_images(tmp_path / folder, "train/cat/0.png", "train/dog/0.png")
    assert class_counts(load_data(str(tmp_path / folder), "train")) == CATS
    (tmp_path / folder / "names.txt").write_text("one\ntwo")
    named = load_data(f"{tmp_path / folder}@{tmp_path / folder / 'names.txt'}", "train")
    assert class_counts(named) == {"one": 1, "two": 1}


# Tables


def table(content, name="data.csv", encoding="utf-8"):
    def build(here):
        place_images(here, "a.png", "b.png", "c d.png", "e,f.png")
        (here / name).write_bytes(content.encode(encoding))
        return here / name

    return build


ROWS = "image,label\na.png,cat\nb.png,dog\n"
TABLES = {
    "plain": (table(ROWS), CATS),
    "CRLF": (table(ROWS.replace("\n", "\r\n")), CATS),
    "a byte order mark": (table("\ufeff" + ROWS), CATS),
    "spaces around names": (table("image , label\na.png, cat\nb.png,dog \n"), CATS),
    "capital names": (table(ROWS.replace("image", "Image").replace("label", "LABEL")), CATS),
    "semicolons": (table(ROWS.replace(",", ";")), CATS),
    "tabs": (table(ROWS.replace(",", "\t"), "data.tsv"), CATS),
    "quotes": (table('image,label\n"e,f.png","c, a"\n"a.png",dog\n'), {"c, a": 1, "dog": 1}),
    "empty lines": (table(ROWS.replace("\n", "\n\n")), CATS),
    "no line at the end": (table(ROWS.rstrip()), CATS),
    "numbers of floats": (table("image,label\na.png,0.0\nb.png,1.0\n"), "its labels are numbers"),
    "numbers and words": (table("image,label\na.png,1\nb.png,dog\n"), {"1": 1, "dog": 1}),
    "words in two Unicode forms": (table("image,label\na.png,caf\u00e9\nb.png,cafe\u0301\n"), "has one class"),
    "words in two cases": (table("image,label\na.png,Cat\nb.png,cat\n"), "have the same name"),
    "two columns of one name": (table("image,label,label\na.png,cat,dog\n"), "two columns called 'label'"),
    "a row without a split": (table("image,label,split\na.png,cat,train\nb.png,dog,\n"), "has no split"),
    "a row without a label": (table("image,label\na.png,cat\nb.png,\n"), "has no label"),
    "a row without an image": (table("image,label\na.png,cat\n,dog\n"), "names no image"),
    "a row too long": (table("image,label\na.png,cat,x\n"), "line 2 has 3 values, the first line 2"),
    "a row too short": (table("image,label\na.png\n"), "line 2 has 1 values, the first line 2"),
    "an image that is not there": (table("image,label\na.png,cat\nz.png,dog\n"), "z.png"),
    "a URL": (table("image,label\nhttp://x/a.png,cat\nb.png,dog\n"), "is a URL"),
    "a path that leaves": (table("image,label\n../a.png,cat\nb.png,dog\n"), "leaves"),
    "no header": (table("a.png,cat\nb.png,dog\n"), "has no image column"),
    "Latin-1": (table("image,label\na.png,caf\u00e9\nb.png,dog\n", encoding="latin-1"), "UTF-8"),
    "UTF-16": (table(ROWS, encoding="utf-16"), "UTF-8"),
    "nothing": (table(""), "has no image column"),
    "a header alone": (table("image,label\n"), "has no rows"),
    "a quote that does not end": (table('image,label\n"a.png,cat\nb.png,dog\n'), "cannot be read as a table"),
    "JSON lines": (table('{"path": "a.png", "label": "cat"}\n{"path": "b.png", "label": "dog"}\n', "d.jsonl"), CATS),
    "JSON lines with more keys later": (
        table('{"image": "a.png", "label": "cat"}\n{"label": "dog", "image": "b.png", "x": 1}\n', "d.jsonl"), CATS,
    ),
    "JSON lines whose first has no label": (
        table('{"image": "a.png"}\n{"image": "b.png", "label": "dog"}\n', "d.jsonl"), "image 0 has no label",
    ),
    "JSON lines that are cut": (table('{"image": "a.png", "label": "cat"}\n{"im', "d.jsonl"), "line 2 is not JSON"),
    "a JSON list": (table('[{"image": "a.png"}]', "d.jsonl"), "is not a JSON object"),
    "JSON numbers": (table('{"image": "a.png", "label": true}\n', "d.jsonl"), "its labels are numbers"),
    "JSON lists of labels": (table('{"image": "a.png", "label": ["cat"]}\n', "d.jsonl"), "several labels"),
}  # fmt: skip


@pytest.mark.parametrize("name", TABLES)
def test_odd_tables(tmp_path, name):
    build, expected = TABLES[name]
    check(build, expected, tmp_path, "train" if "split" in name else None)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["1", "2"], [1, 2]),
        (["1.0", "2.00"], [1, 2]),
        ([1.0, np.float32(2)], [1, 2]),
        ([np.int64(1), "2"], [1, 2]),
        (["007", " 7 "], [7, 7]),
        ([True, False], [1, 0]),
        (["9007199254740993"], [9007199254740993]),
    ],
)
def test_labels_that_are_numbers_in_any_form(values, expected):
    labels, classes = to_labels(values, "x")
    assert (labels.tolist(), classes) == (expected, ())


def test_a_number_that_no_class_has_is_refused():
    with pytest.raises(RvptError, match=r"x: the label 10+ is too large for the number of a class"):
        to_labels(["1" + "0" * 20, "2"], "x")


# Tars


def tar(*members, mode="w"):
    """A tar of members: a name and its content, an image if it is None."""

    def build(here):
        with tarfile.open(here / "0.tar", mode) as file:
            for name, content in members:
                data = (
                    encoded(kind="JPEG")
                    if content is None
                    else content
                    if isinstance(content, bytes)
                    else content.encode()
                )
                entry = tarfile.TarInfo(name)
                entry.size = len(data)
                file.addfile(entry, io.BytesIO(data))
        return here

    return build


TARS = {
    "cls of words": (tar(("0.jpg", None), ("0.cls", "cat"), ("1.jpg", None), ("1.cls", "dog")), CATS),
    "capital suffixes": (tar(("0.JPG", None), ("0.CLS", "cat"), ("1.JPG", None), ("1.CLS", "dog")), CATS),
    "text first": (tar(("0.cls", "cat"), ("0.jpg", None), ("1.cls", "dog"), ("1.jpg", None)), CATS),
    "folders in a tar": (tar(("a/0.jpg", None), ("a/0.cls", "cat"), ("b/0.jpg", None), ("b/0.cls", "dog")), CATS),
    "spaces in cls": (tar(("0.jpg", None), ("0.cls", "cat\n"), ("1.jpg", None), ("1.cls", " dog\r\n")), CATS),
    "labels in json": (
        tar(("0.jpg", None), ("0.json", json.dumps({"label": "cat"})), ("1.jpg", None), ("1.json", '{"label": "dog"}')),
        CATS,
    ),
    "other members": (
        tar(("0.jpg", None), ("0.cls", "cat"), ("0.npy", b"x"), ("1.jpg", None), ("1.cls", "dog"), ("1.seg.png", None)),
        CATS,
    ),
    "hidden members": (
        tar(("._0.jpg", b"x"), ("0.jpg", None), ("0.cls", "cat"), ("1.png", None), ("1.cls", "dog")), CATS,
    ),
    "a sample without a label": (tar(("0.jpg", None), ("0.cls", "cat"), ("1.jpg", None)), "image 1 has no label"),
    "a sample without an image": (tar(("0.jpg", None), ("0.cls", "cat"), ("1.cls", "dog")), "has no image"),
    "two images": (
        tar(("0.jpg", None), ("0.png", None), ("0.cls", "cat"), ("1.jpg", None), ("1.cls", "dog")), "several",
    ),
    "a member twice": (tar(("0.jpg", None), ("0.jpg", None), ("0.cls", "cat")), "comes twice"),
    "a broken image": (tar(("0.jpg", b"x"), ("0.cls", "cat"), ("1.jpg", None), ("1.cls", "dog")), "0.tar: 0.jpg"),
    "a member outside": (tar(("../0.jpg", None), ("0.cls", "cat")), "leaves the tar"),
    "an absolute member": (tar(("/0.jpg", None), ("0.cls", "cat")), "leaves the tar"),
    "json that is cut": (tar(("0.jpg", None), ("0.json", '{"label"')), "is not JSON"),
    "text that is not UTF-8": (tar(("0.jpg", None), ("0.cls", b"caf\xe9")), "cannot be read as a tar"),
    "names with dots": (tar(("a.0.jpg", None), ("a.0.cls", "cat")), "a key ends at the first dot"),
    "compressed": (tar(("0.jpg", None), ("0.cls", "cat"), mode="w:gz"), "cannot be read as a tar"),
    "no members": (tar(), "hold no images"),
}  # fmt: skip


@pytest.mark.parametrize("name", TARS)
def test_odd_tars(tmp_path, name):
    build, expected = TARS[name]
    check(build, expected, tmp_path, None)


# Images


def deep_png():
    """A PNG with 16 bits for each of three channels."""
    raw = b"".join(b"\0" + struct.pack(">3H", 65535, 32768, 0) * 8 for _ in range(8))

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def saved(image, kind, **options):
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


RED = Image.new("RGB", (8, 8), (255, 128, 0))
GRAY = np.full((8, 8), 128)
FORMATS = {
    "jpeg": ("x.jpg", saved(RED, "JPEG", quality=100, subsampling=0), (255, 128, 0)),
    "cmyk": ("x.jpg", saved(RED.convert("CMYK"), "JPEG", quality=100), (255, 128, 0)),
    "progressive": ("x.jpeg", saved(RED, "JPEG", progressive=True, quality=100, subsampling=0), (255, 128, 0)),
    "palette": ("x.png", saved(RED.quantize(4), "PNG"), (255, 128, 0)),
    "alpha": ("x.png", saved(Image.merge("RGBA", [*RED.split(), Image.new("L", (8, 8), 10)]), "PNG"), (255, 128, 0)),
    "16 bits": ("x.png", deep_png(), (255, 128, 0)),
    "16 bits of gray": ("x.png", saved(Image.fromarray((GRAY * 257).astype(np.uint16)), "PNG"), (128, 128, 128)),
    "16 bits in tiff": ("x.tif", saved(Image.fromarray((GRAY * 257).astype(np.uint16)), "TIFF"), (128, 128, 128)),
    "floats in tiff": ("x.tiff", saved(Image.fromarray((GRAY / 255).astype(np.float32)), "TIFF"), (128, 128, 128)),
    "one bit": ("x.png", saved(Image.new("1", (8, 8), 1), "PNG"), (255, 255, 255)),
    "webp": ("x.webp", saved(RED, "WEBP", lossless=True), (255, 128, 0)),
    "an animation": (
        "x.gif",
        saved(RED, "GIF", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        (255, 128, 0),
    ),
    "several pages": (
        "x.tif",
        saved(RED, "TIFF", save_all=True, append_images=[Image.new("RGB", (8, 8))]),
        (255, 128, 0),
    ),
    "bmp": ("x.bmp", saved(RED, "BMP"), (255, 128, 0)),
    "a wrong suffix": ("x.jpg", saved(RED, "PNG"), (255, 128, 0)),
    "ppm": ("x.ppm", saved(RED, "PPM"), (255, 128, 0)),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats_of_images(tmp_path, name):
    file, content, expected = FORMATS[name]
    for place in ("train/cat", "train/dog"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / file).write_bytes(content)
    pixels = load_data(str(tmp_path), "train").pixels(torch.arange(2), 8) * 255
    assert (pixels - torch.tensor(expected).view(3, 1, 1)).abs().max() <= 3


BROKEN = {
    "nothing": b"",
    "a web page": b"<html>404</html>",
    "a cut JPEG": saved(Image.effect_noise((64, 64), 50).convert("RGB"), "JPEG")[:-300],
    "a cut PNG": saved(Image.effect_noise((64, 64), 50).convert("RGB"), "PNG")[:-300],
    "a cut GIF": saved(Image.effect_noise((64, 64), 50).convert("L"), "GIF")[:60],
    "a damaged PNG": saved(RED, "PNG").replace(b"IDAT", b"IDAX"),
    "a bomb": saved(Image.new("1", (20_000, 20_000)), "PNG"),
    "NaN": saved(Image.fromarray(np.full((8, 8), np.nan, np.float32)), "TIFF"),
    "infinity": saved(Image.fromarray(np.full((8, 8), np.inf, np.float32)), "TIFF"),
    "below 0": saved(Image.fromarray(np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)), "TIFF"),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("name", BROKEN)
def test_broken_images_are_named_or_left_out_with_a_count(tmp_path, name, caplog):
    pets(tmp_path)
    (tmp_path / "train" / "cat" / "9.tif").write_bytes(BROKEN[name])
    data = load_data(str(tmp_path), "train")
    assert len(data) == 3
    with pytest.raises(RvptError, match=r"image 1 \(.*cat/9\.tif\) cannot be read") as refusal:
        data.pixels(torch.arange(3), 8)
    assert "\n" not in str(refusal.value)
    kept = load_data(str(tmp_path), "train", on_error="skip")
    assert (class_counts(kept), len(kept.skipped)) == (CATS, 1)
    assert "1 of 3 images cannot be read and are left out" in caplog.text
    assert kept.pixels(torch.arange(2), 8).shape[0] == 2


# Memory

MEMORY = {
    "one array": (np.zeros((2, 8, 8, 3), np.uint8), CATS),
    "floats, channels first": (np.zeros((2, 3, 8, 8), np.float32), CATS),
    "a tensor": (torch.zeros(2, 3, 8, 8), CATS),
    "alpha": (np.zeros((2, 8, 8, 4), np.uint8), CATS),
    "gray": (np.zeros((2, 8, 8), np.uint8), CATS),
    "one channel": (np.zeros((2, 8, 8, 1), np.float64), CATS),
    "booleans": (np.zeros((2, 8, 8), bool), CATS),
    "whole numbers": (np.full((2, 8, 8, 3), 255, np.int64), CATS),
    "other sizes": ([np.zeros((8, 9, 3), np.uint8), np.zeros((5, 4), np.uint8)], CATS),
    "normalized": (torch.full((2, 3, 8, 8), -2.1), "pixel values from -2.1"),
    "0 to 255 as floats": (np.full((2, 8, 8, 3), 255.0), "pixel values from 255"),
    "16 bits": (np.full((2, 8, 8), 65535, np.uint16), "pixel values from"),
    "NaN": (np.full((2, 8, 8), np.nan), "pixel values from nan"),
    "two channels": (np.zeros((2, 8, 8, 2), np.uint8), "is not an image"),
    "one channel first": (torch.zeros(2, 1, 8, 8), "is not an image"),
    "rows": (np.zeros((2, 64)), "is not an image"),
    "words": (["a", "b"], "is not an image"),
    "nothing": ([None, None], "is not an image"),
}


@pytest.mark.parametrize("name", MEMORY)
def test_odd_images_in_memory(name):
    images, expected = MEMORY[name]
    data = Dataset.from_images(images, ["cat", "dog"])
    assert class_counts(data) == CATS
    if isinstance(expected, dict):
        assert data.pixels(torch.arange(2), 8).shape == (2, 3, 8, 8)
    else:
        with pytest.raises(RvptError) as refusal:
            data.pixels(torch.arange(2), 8)
        assert expected in str(refusal.value)


@pytest.mark.parametrize(
    ("labels", "classes", "words"),
    [
        ([0.0, 1.0], ("a", "b"), "has no class"),
        ([0, 2], ("a", "b"), "has no class"),
        ([-1, 0], ("a", "b"), "has no class"),
        (["a", "c"], ("a", "b"), "has no class"),
        (["Cat", "cat"], (), "have the same name"),
        ([0], ("a", "b"), "1 labels"),
        ([0, 1], ("a", "A"), "have the same name"),
        ([0, 1], ("a", " "), "no name that can be written"),
        ([None, 1], ("a", "b"), "has no class"),
        ([[0], [1]], ("a", "b"), "has no class"),
    ],
)
def test_labels_in_memory_that_do_not_fit_are_refused(labels, classes, words):
    with pytest.raises(RvptError, match=words):
        Dataset.from_images(np.zeros((2, 8, 8, 3), np.uint8), labels, classes)
