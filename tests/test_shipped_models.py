"""The models in the repository: whole, loadable, and described by a card that agrees with their manifest."""

import shutil

import pytest

from rvpt.artifacts import CARD, find_manifest, read_manifest, staging
from rvpt.models.formats.load import embedded_model, load_clip

PHOTOS = embedded_model().parents[3] / "models" / "photos-clip"
every = pytest.mark.parametrize("folder", [embedded_model(), PHOTOS], ids=lambda folder: folder.name)


@every
def test_it_loads_and_is_the_model_of_its_manifest(folder):
    assert load_clip(folder).hash() == read_manifest(folder, "clip")["sha256"]


@every
def test_its_card_has_the_measured_accuracies(folder):
    card = (folder / CARD).read_text()
    for rates in find_manifest(folder)["measured"].values():
        assert any(f"| {100 * rates['zero-shot']['rate']:.{digits}f}% |" in card for digits in (1, 2))
    assert "license: " in card


@every
def test_an_edited_card_is_neither_a_changed_part_nor_in_the_way(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / folder.name)
    (copy / CARD).write_text("# mine\n")
    assert find_manifest(copy) == find_manifest(folder)
    with staging(copy, overwrite=True) as stage:
        (stage / "new").write_text("")
    assert [path.name for path in copy.iterdir()] == ["new"]
