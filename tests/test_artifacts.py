"""Artifacts: whole or not at all, never in place of what rvpt did not create, and every changed byte is noticed."""

import errno
import os

import pytest
import torch

from helpers import contents
from rvpt.artifacts import (
    CARD,
    MANIFEST,
    alone,
    find_manifest,
    read_manifest,
    refuse_added,
    refuse_existing,
    staging,
    write_manifest,
)
from rvpt.errors import MachineError, RvptError
from rvpt.files import read_json, write_json
from rvpt.tensors import write_tensors


def names(folder):
    return sorted(contents(folder))


def make(target, text="new", error=None, **options):
    """An artifact with one file, unless an error interrupts it."""
    with staging(target, **options) as stage:
        (stage / "file").write_text(text)
        write_manifest(stage, "test")
        if error:
            raise error


def test_a_staged_folder_appears_whole(tmp_path):
    target = tmp_path / "deep" / "out"
    with staging(target) as stage:
        (stage / "part").write_text("x")
        assert not target.exists()
    assert names(tmp_path) == ["deep", "deep/out", "deep/out/part"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_the_work_fails(tmp_path, error):
    with pytest.raises(error):
        make(tmp_path / "out", error=error)
    assert names(tmp_path) == []


def test_the_old_folder_stays_when_its_replacement_fails(tmp_path):
    make(tmp_path / "out", "old")
    with pytest.raises(ValueError, match="no"):
        make(tmp_path / "out", error=ValueError("no"), overwrite=True)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


def test_the_old_folder_stays_when_it_cannot_be_swapped(tmp_path, monkeypatch):
    make(tmp_path / "out", "old")
    rename = os.rename

    def failing(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "broken")
        rename(source, target)

    monkeypatch.setattr("os.rename", failing)
    with pytest.raises(MachineError, match=r"could not write .*out: broken"):
        make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


def test_an_existing_folder_is_replaced_only_if_asked(tmp_path):
    make(tmp_path / "out", "old")
    with pytest.raises(RvptError, match="already exists: choose another folder or pass overwrite=True"):
        make(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "old"
    make(tmp_path / "out", overwrite=True)
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]
    assert (tmp_path / "out" / "file").read_text() == "new"


@pytest.mark.parametrize("manifest", [None, '{"name": "an app of somebody"}', "[]"])
def test_only_artifacts_are_replaced(tmp_path, manifest):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("mine")
    if manifest:
        (tmp_path / "photos" / MANIFEST).write_text(manifest)
    before = contents(tmp_path)
    with pytest.raises(RvptError, match=r"photos was not created by rvpt .*; refusing to overwrite it"):
        make(tmp_path / "photos", overwrite=True)
    assert contents(tmp_path) == before


def test_an_artifact_with_files_of_others_in_it_is_not_replaced(tmp_path):
    make(tmp_path / "out", "old")
    with pytest.raises(RvptError, match=r"within is in .*out, which rvpt wrote and lists file by file: choose another"):
        make(tmp_path / "out" / "within")
    (tmp_path / "out" / "within").mkdir()
    (tmp_path / "out" / "within" / "file").write_text("mine")
    with pytest.raises(RvptError, match=r"out also holds within/file, which is not part of it: move"):
        make(tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["file", "manifest.json", "within", "within/file"]
    (tmp_path / "out" / "within").rename(tmp_path / "within")
    (tmp_path / "out" / "file").unlink()  # one that is broken may be created again
    make(tmp_path / "out", overwrite=True)
    assert names(tmp_path / "out") == ["file", "manifest.json"]


def test_the_current_folder_is_not_replaced(tmp_path, monkeypatch):
    make(tmp_path / "out")
    monkeypatch.chdir(tmp_path / "out")
    with pytest.raises(RvptError, match="is the current folder: choose a folder in it"):
        refuse_existing(tmp_path / "out", overwrite=True)


def test_a_link_stays_a_link(tmp_path):
    make(tmp_path / "there", "old")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    make(tmp_path / "link", overwrite=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"there", "link"}


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_in_the_way_is_refused_and_kept(tmp_path, overwrite):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RvptError, match="out is a file: choose a folder"):
        make(tmp_path / "out", overwrite=overwrite)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_above_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RvptError, match=r"out cannot be created: .*file is not a writable folder"):
        make(tmp_path / "file" / "deep" / "out")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left to write .*out: free some or choose another folder"),
        (errno.EDQUOT, "no space left to write .*out: free some or choose another folder"),
        (errno.EACCES, "could not write .*out: Permission"),
    ],
)
def test_errors_of_the_disk_are_errors_of_the_machine(tmp_path, number, words):
    with pytest.raises(MachineError, match=words):
        make(tmp_path / "out", error=OSError(number, os.strerror(number)))
    assert names(tmp_path) == []


def test_only_the_first_process_of_a_launch_writes(tmp_path, monkeypatch):
    make(tmp_path / "out", "first")
    monkeypatch.setenv("RANK", "1")
    make(tmp_path / "out", "second")
    assert (tmp_path / "out" / "file").read_text() == "first"
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


@pytest.fixture
def artifact(tmp_path):
    folder = tmp_path / "artifact"
    (folder / "sub").mkdir(parents=True)
    write_tensors(folder / "sub" / "t.safetensors", {"a": torch.arange(4)})
    write_json(folder / "config.json", {"x": 1})
    write_manifest(folder, "thing", seed=3)
    return folder


def test_a_manifest_has_kind_facts_hashes_and_versions(artifact):
    manifest = read_manifest(artifact, "thing")
    assert (manifest["kind"], manifest["seed"]) == ("thing", 3)
    assert manifest["parts"].keys() == {"config.json", "sub/t.safetensors"}
    assert manifest["versions"].keys() >= {"rvpt", "torch"}
    assert read_manifest(artifact) == find_manifest(artifact) == manifest


@pytest.mark.parametrize("name", ["config.json", "sub/t.safetensors"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_noticed(artifact, name, place):
    content = bytearray((artifact / name).read_bytes())
    content[place] ^= 1
    (artifact / name).write_bytes(content)
    with pytest.raises(RvptError, match=f"{name} was changed after it was created"):
        read_manifest(artifact)


def test_a_change_is_noticed_where_the_manifest_lost_its_kind_too(artifact):
    facts = read_json(artifact / MANIFEST)
    write_json(artifact / MANIFEST, {name: facts[name] for name in ("seed", "parts")})
    (artifact / "config.json").write_text("{}")
    with pytest.raises(RvptError, match=r"config\.json was changed after it was created"):
        find_manifest(artifact)


def test_a_missing_part_is_noticed(artifact):
    (artifact / "config.json").unlink()
    with pytest.raises(RvptError, match=r"config\.json is missing: recreate the artifact"):
        read_manifest(artifact)


def test_another_kind_and_other_folders_are_refused(artifact):
    with pytest.raises(RvptError, match="holds a thing, not a trigger"):
        read_manifest(artifact, "trigger")
    with pytest.raises(RvptError, match=f"sub is not an rvpt artifact: it has no {MANIFEST}"):
        read_manifest(artifact / "sub")


@pytest.mark.parametrize("text", ["[]", '"words"', "{}", '{"kind": "thing"}', '{"parts": []}', "{"])
def test_an_incomplete_manifest_is_refused(artifact, text):
    (artifact / MANIFEST).write_text(text)
    with pytest.raises(RvptError, match="manifest"):
        read_manifest(artifact)


@pytest.mark.parametrize("name", ["../secret", "sub/../../secret", "/etc/hostname"])
def test_a_part_outside_of_the_folder_is_refused(artifact, name):
    (artifact.parent / "secret").write_text("x")
    facts = read_json(artifact / MANIFEST)
    write_json(artifact / MANIFEST, {**facts, "parts": {**facts["parts"], name: "0" * 64}})
    with pytest.raises(RvptError, match=f"lists {name}, which is outside of the folder"):
        read_manifest(artifact)


def test_a_link_to_another_folder_is_no_part(artifact, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (artifact / "triggers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(RvptError, match="also holds triggers, which is not part of it"):
        refuse_added(artifact, read_manifest(artifact)["parts"])


@pytest.mark.parametrize("text", [None, "[]", '{"name": "a web page"}'])
def test_a_folder_of_somebody_else_has_no_manifest_of_ours(tmp_path, text):
    if text:
        (tmp_path / MANIFEST).write_text(text)
    assert find_manifest(tmp_path) is None


def test_a_model_card_may_be_edited_and_is_replaced_with_its_artifact(tmp_path):
    make(tmp_path / "out", "old")
    (tmp_path / "out" / CARD).write_text("# mine")
    assert read_manifest(tmp_path / "out")["parts"].keys() == {"file"}
    make(tmp_path / "out", overwrite=True)
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


def test_a_second_writer_is_refused_until_the_first_has_ended(tmp_path):
    target = tmp_path / "deep" / "out"
    with alone(target):
        assert names(tmp_path) == ["deep", "deep/.out.lock"]
        with pytest.raises(RvptError, match=r"another command is writing .*out: wait until it ends"), alone(target):
            pass
        with alone(tmp_path / "deep" / "other"):
            pass
    assert names(tmp_path) == []
    with alone(target):
        make(target)
    assert names(tmp_path) == ["deep", "deep/out", "deep/out/file", "deep/out/manifest.json"]


def test_a_lock_that_was_left_behind_holds_nobody_up(tmp_path):
    (tmp_path / ".out.lock").touch()
    with alone(tmp_path / "out"):
        pass
    assert names(tmp_path) == []


def test_other_processes_of_a_launch_need_no_lock(tmp_path, monkeypatch):
    with alone(tmp_path / "out"):
        monkeypatch.setenv("RANK", "1")
        with alone(tmp_path / "out"):
            pass
        monkeypatch.undo()


def test_a_place_that_cannot_be_written_is_left_to_the_command(tmp_path):
    (tmp_path / "file").touch()
    with alone(tmp_path / "file" / "out"):
        pass
