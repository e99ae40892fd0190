"""What the page shows, without the page: predictions, attention maps, patches, tables of uploads."""

from __future__ import annotations

import csv
from io import BytesIO, StringIO
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from PIL import Image

from helpers import encoded, random_image, random_pixels
from rvpt.errors import RvptError
from rvpt.models.classifier import Classifier
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.prompts import RepulsivePrompts
from rvpt.web import batch
from rvpt.web.batch import HEADINGS, as_csv, compare_all, uploaded
from rvpt.web.compare import NONE, PATCH, Comparison, Patch, class_names
from rvpt.web.page import build
from triggers import trigger_of

CLASSES = ("star", "anchor", "heart")


@pytest.fixture
def comparison(clip: Clip) -> Comparison:
    cleaned = Cleaned(clip, RepulsivePrompts(range(2, 4), 3, clip.width, std=3.0))
    return Comparison(clip, cleaned, {"badnet": trigger_of("badnet", side=48, size=100)})


def test_both_models_see_the_image_with_its_trigger(comparison: Comparison) -> None:
    image = random_image(70, 60)
    for trigger in (NONE, "badnet", PATCH):
        found = comparison.compare(image, CLASSES, trigger)
        pixels = comparison.stamped(image, trigger)
        for side, model in ((found.before, comparison.suspect), (found.after, comparison.cleaned)):
            expected = Classifier(model, CLASSES).probabilities(pixels)[0]
            assert side.best == pytest.approx(dict(zip(CLASSES, expected.tolist(), strict=True)), abs=1e-6)
            assert list(side.best.values()) == sorted(side.best.values(), reverse=True)
            assert side.attention is not None
            assert side.attention.size == found.shown.size == (384, 384)
        assert found.flagged is None
    assert not torch.equal(comparison.stamped(image, "badnet"), comparison.stamped(image))


def test_the_page_gets_images_of_16_bits_as_they_are(tmp_path: Path, comparison: Comparison) -> None:
    gradio = pytest.importorskip("gradio")
    from gradio.data_classes import ImageData

    Image.fromarray(torch.full((8, 8), 30_000, dtype=torch.uint16).numpy()).save(tmp_path / "deep.png")
    page = build(comparison, CLASSES, [], None)
    shown = next(block for block in page.blocks.values() if isinstance(block, gradio.Image) and block.label == "Image")
    image = shown.preprocess(ImageData(path=str(tmp_path / "deep.png"), orig_name="deep.png"))
    pixels = comparison.stamped(image)
    assert pixels.max() == pixels.min() == pytest.approx(30_000 / 65_535, abs=1 / 255)


@pytest.mark.parametrize(("across", "down", "area"), [(0.5, 0.5, 100), (1.0, 1.0, 25), (0.0, 0.5, 50)])
def test_a_patch_is_inside_of_the_image(across: float, down: float, area: int) -> None:
    pixels = random_pixels(1, 50)
    changed = Patch(0.2, across, down, (0, 1, 0))(pixels)
    assert int((changed != pixels).any(1).sum()) == area
    assert changed[0, :, round(down * 49), round(across * 49)].tolist() == [0, 1, 0]


def test_class_names_are_the_lines() -> None:
    assert class_names(" a \n\nb\na\n") == ["a", "b"]
    for text in ("", "one", "\n".join(map(str, range(1001)))):
        with pytest.raises(RvptError, match="give 2 to 1000 different class names"):
            class_names(text)


def archive(path: Path, **files: bytes) -> Path:
    with ZipFile(path, "w") as made:
        for name, data in files.items():
            made.writestr(name.replace("__", "/").replace("_png", ".png"), data)
    return path


def test_uploads_are_images_and_images_in_zip_files(tmp_path: Path, comparison: Comparison) -> None:
    (tmp_path / "one.png").write_bytes(encoded("red"))
    packed = archive(tmp_path / "more.ZIP", folder__two_png=encoded("blue"), readme=b"text", three_png=encoded("green"))
    lines = compare_all(comparison, uploaded([tmp_path / "one.png", packed]), CLASSES, NONE)
    assert [line[0] for line in lines] == ["one.png", "folder/two.png", "three.png"]
    for line, color in zip(lines, ("red", "blue", "green"), strict=True):
        assert line[1] == Classifier(comparison.suspect, CLASSES).predict([Image.open(BytesIO(encoded(color)))])[0]
        assert line[5] == ("no" if line[1] == line[3] else "yes")
        assert line[6] == ""
    assert list(csv.reader(StringIO(as_csv(lines)))) == [list(HEADINGS), *lines]


def test_uploads_that_cannot_be_read_or_are_too_many_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.png").write_bytes(b"<html>")
    (tmp_path / "bad.zip").write_bytes(b"PK")
    for name, said in (("bad.png", "bad.png cannot be read as an image"), ("bad.zip", "cannot be read as a zip file")):
        with pytest.raises(RvptError, match=said):
            list(uploaded([tmp_path / name]))
    damaged = bytearray(archive(tmp_path / "damaged.zip", a_png=encoded()).read_bytes())
    for place in (8, damaged.index(b"PK\1\2") + 10):
        damaged[place : place + 2] = b"\x08\0"  # said to be deflated, which it is not
    (tmp_path / "damaged.zip").write_bytes(damaged)
    with pytest.raises(RvptError, match=r"damaged\.zip cannot be read as a zip file"):
        list(uploaded([tmp_path / "damaged.zip"]))
    packed = archive(tmp_path / "many.zip", a_png=encoded(), b_png=encoded())
    monkeypatch.setattr(batch, "MOST_IMAGES", 1)
    with pytest.raises(RvptError, match="more than 1 images"):
        list(uploaded([packed]))
    monkeypatch.setattr(batch, "MOST_BYTES", 10)
    with pytest.raises(RvptError, match=r"^a\.png is larger than 0 MB"):
        list(uploaded([packed]))


def test_a_zip_file_may_hold_images_of_every_format_and_what_systems_add(tmp_path: Path) -> None:
    scan = BytesIO()
    Image.new("RGB", (8, 8)).save(scan, "TIFF")
    files = {"a/0.png": encoded(), "__MACOSX/a/._0.png": b"\0\5\x16\7", "a/1.tif": scan.getvalue()}
    with ZipFile(tmp_path / "mac.zip", "w") as made:
        for name, data in files.items():
            made.writestr(name, data)
    assert [name for name, _ in uploaded([tmp_path / "mac.zip"])] == ["a/0.png", "a/1.tif"]
    with pytest.raises(RvptError, match="these files hold no images"):
        list(uploaded([archive(tmp_path / "none.zip", readme=b"text")]))


def test_no_cell_of_the_table_is_a_formula() -> None:
    (_, line) = csv.reader(StringIO(as_csv([["=1+1.png", "@a", "0.5", "-b", "0.1", "no", ""]])))
    assert line == ["'=1+1.png", "'@a", "0.5", "'-b", "0.1", "no", ""]
