"""Inspecting images: which are flagged, and what is written about them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from helpers import contents
from rvpt.artifacts import read_manifest
from rvpt.data.load import load_data
from rvpt.data.preprocess import to_image
from rvpt.detection.monitor import Inspection, Predicted
from rvpt.errors import RvptError
from rvpt.jobs.drawing import draw_images
from rvpt.jobs.inspecting import clean_images, inspect_and_save, warn_of_disagreement
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.rows import read_rows
from tiny import Tiny


@pytest.fixture(scope="module")
def suspect(tiny: Tiny) -> Clip:
    return load_clip(tiny.backdoored)


@pytest.fixture(scope="module")
def cleaned(tiny: Tiny, suspect: Clip) -> Cleaned:
    return Cleaned.from_pretrained(tiny.cleaned, suspect)


def image_files(folder: Path, n: int = 12) -> Path:
    """Images in a folder, without classes."""
    folder.mkdir()
    pixels = load_data("scenes:40", "test").pixels(torch.arange(n), 48)
    for index, image in enumerate(pixels):
        to_image(image).save(folder / f"{index}.png")
    return folder


def test_the_folder_holds_scores_and_flagged_images(suspect: Clip, cleaned: Cleaned, tmp_path: Path) -> None:
    place = image_files(tmp_path / "images")
    found = inspect_and_save(suspect, cleaned, str(place), tmp_path / "out", false_alarms=0.3)
    lines = read_rows(tmp_path / "out" / "scores.jsonl")
    assert [Path(line["file"]).name for line in lines] == sorted(path.name for path in place.iterdir())
    assert [line["flagged"] for line in lines] == [line["p_value"] <= 0.3 for line in lines]
    flagged = [line for line in lines if line["flagged"]]
    assert found["flagged"] == len(flagged) == sum(found["predictions"].values())
    assert sorted(found["found"], key=lambda line: int(line["image"])) == flagged
    copied = {path.name: path.read_bytes() for path in (tmp_path / "out" / "flagged").iterdir()}
    assert copied == {
        f"{line['image']:06d}-{Path(line['file']).name}": Path(line["file"]).read_bytes() for line in flagged
    }
    with Image.open(tmp_path / "out" / "flagged.png") as sheet:
        assert sheet.format == "PNG"
    manifest = read_manifest(tmp_path / "out", "inspection")
    assert (manifest["images"], manifest["model_sha256"]) == (12, suspect.hash())


def test_images_without_files_are_written_as_pngs(suspect: Clip, cleaned: Cleaned, tmp_path: Path) -> None:
    found = inspect_and_save(suspect, cleaned, "scenes:40", tmp_path / "out", split="test", false_alarms=0.5)
    assert found["flagged"] > 0
    data = load_data("scenes:40", "test")
    for path in (tmp_path / "out" / "flagged").iterdir():
        (index,) = (data.rows == int(path.stem)).nonzero()[:, 0].tolist()
        with Image.open(path) as image:
            assert image.tobytes() == to_image(data.pixels(torch.tensor([index]), 48)[0]).tobytes()


def test_nothing_is_written_without_a_folder(suspect: Clip, cleaned: Cleaned, tmp_path: Path) -> None:
    inspect_and_save(suspect, cleaned, str(image_files(tmp_path / "images", 4)), false_alarms=0.5)
    assert [path.name for path in tmp_path.iterdir()] == ["images"]


def test_the_threshold_comes_from_images_that_the_model_was_not_cleaned_with(cleaned: Cleaned) -> None:
    drawn: dict[str, Any] = cleaned.facts["data"]
    used, whole = draw_images(drawn).rows, load_data(drawn["source"], drawn["split"])
    found = clean_images(cleaned)
    assert not torch.isin(found.rows, used).any()
    assert len(found) == len(whole) - len(used)
    for split in (drawn["split"], "training"):
        assert torch.equal(clean_images(cleaned, drawn["source"], split).rows, found.rows)
    blurred = clean_images(cleaned, shift="blur")
    assert torch.equal(blurred.rows, found.rows)
    assert blurred.name.endswith("(blur)")
    assert len(clean_images(cleaned, drawn["source"], "test")) == len(load_data(drawn["source"], "test"))


def test_a_model_that_says_nothing_needs_clean_images(suspect: Clip) -> None:
    with pytest.raises(RvptError, match="give clean images as clean=DATA"):
        clean_images(Cleaned(suspect))


def test_a_check_of_another_model_is_refused(suspect: Clip, cleaned: Cleaned, tiny: Tiny, tmp_path: Path) -> None:
    edited = shutil.copytree(tiny.check, tmp_path / "other")
    manifest = json.loads((edited / "manifest.json").read_text())
    (edited / "manifest.json").write_text(json.dumps({**manifest, "model_sha256": "0" * 64}))
    with pytest.raises(RvptError, match="is a check of another model"):
        inspect_and_save(suspect, cleaned, "scenes:40", split="test", check=edited)


def test_targets_come_from_a_check(suspect: Clip, cleaned: Cleaned, tiny: Tiny) -> None:
    found = inspect_and_save(suspect, cleaned, "scenes:40", split="test", check=tiny.check, false_alarms=0.5)
    verdict = json.loads((tiny.check / "verdict.json").read_text())
    assert found["targets"] == [row["class"] for row in verdict["targets"]][:3]


def test_a_failed_inspection_leaves_nothing(suspect: Clip, cleaned: Cleaned, tmp_path: Path) -> None:
    with pytest.raises(RvptError, match="needs at least 999999"):
        inspect_and_save(suspect, cleaned, "scenes:40", tmp_path / "out", split="test", false_alarms=1e-6)
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("agree", [1, 3])
def test_models_that_disagree_on_most_images_are_warned_of(agree: int, caplog: pytest.LogCaptureFixture) -> None:
    labels, ones = torch.zeros(4, dtype=torch.int64), torch.ones(4)
    other = Predicted((torch.arange(4) >= agree).long(), ones)
    warn_of_disagreement(Inspection(ones, ones, ones.bool(), Predicted(labels, ones), other))
    assert ("agree on only 25% of the images" in caplog.text) == (agree == 1)
