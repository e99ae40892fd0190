"""The models in the repository: whole, loadable, and described by a card that agrees with their manifest."""

import shutil

import pytest

from rvpt.artifacts import CARD, find_manifest, read_manifest, staging
from rvpt.attacks.backdoor import load_triggers
from rvpt.data.load import load_data
from rvpt.evaluation.classification import measure
from rvpt.jobs.measuring import find_triggers
from rvpt.models.formats.load import EMBEDDED, SUSPECT, embedded_model, load_clip

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


# The backdoored model


def test_the_suspect_is_small_and_has_its_triggers():
    files = [path for path in embedded_model(SUSPECT).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 6 * 2**20
    suspect = load_clip(SUSPECT)
    assert suspect.source == SUSPECT
    assert load_triggers(SUSPECT).keys() == find_triggers(suspect).keys() == {"badnet", "blended"}


def test_the_suspect_is_the_model_of_its_manifest_and_card():
    folder = embedded_model(SUSPECT)
    facts, card = read_manifest(folder, "backdoored"), (folder / CARD).read_text()
    assert (load_clip(folder).hash(), load_clip(EMBEDDED).hash()) == (facts["sha256"], facts["base_sha256"])
    for counts in facts["measured"].values():
        for name in ("none/CA", "badnet/ASR", "blended/ASR"):
            hits, n = counts[name]
            assert f" {100 * hits / n:.1f}% |" in card
    assert "license: " in card


def test_the_suspects_backdoor_works():
    found = measure(load_clip(SUSPECT), load_data("scenes:400", "test"), load_triggers(SUSPECT))
    assert min(found[name, "ASR"].value for name in ("badnet", "blended")) > 0.85
    assert found["none", "CA"].value > 0.9
