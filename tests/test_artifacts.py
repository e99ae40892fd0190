"""Artifacts: whole or not at all, and every changed byte is seen."""

import errno
import json
import os
from contextlib import contextmanager

import pytest
import torch

from rvpt import store
from rvpt.errors import RvptError
from rvpt.store import (
    MANIFEST,
    append_rows,
    find_manifest,
    read_json,
    read_manifest,
    read_rows,
    read_tensors,
    refuse_source,
    sha256_tensors,
    staging,
    write_json,
    write_manifest,
    write_tensors,
    write_text,
)


def names(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def make(target, text="new", error=None, **options):
    """An artifact with one file, unless an error comes between."""
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
    assert names(target) == ["part"]
    assert names(target.parent) == ["out", "out/part"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_nothing_is_left_when_the_work_fails(tmp_path, error):
    with pytest.raises(error):
        make(tmp_path / "out", error=error)
    assert names(tmp_path) == []


def test_the_old_folder_stays_when_its_replacement_fails(tmp_path):
    make(tmp_path / "out", "old")
    with pytest.raises(ValueError, match="no"):
        make(tmp_path / "out", error=ValueError("no"), force=True)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


def test_the_old_folder_stays_when_it_cannot_be_swapped(tmp_path, monkeypatch):
    make(tmp_path / "out", "old")
    rename = store.os.rename

    def failing(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "broken")
        rename(source, target)

    monkeypatch.setattr(store.os, "rename", failing)
    with pytest.raises(RvptError, match="could not write"):
        make(tmp_path / "out", force=True)
    assert (tmp_path / "out" / "file").read_text() == "old"
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


def test_an_existing_folder_is_refused_and_force_replaces_it(tmp_path):
    make(tmp_path / "out", "old")
    with pytest.raises(RvptError, match="exists already: choose another --out or give --force"):
        make(tmp_path / "out")
    assert (tmp_path / "out" / "file").read_text() == "old"
    make(tmp_path / "out", force=True)
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]
    assert (tmp_path / "out" / "file").read_text() == "new"


def test_force_replaces_artifacts_alone(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "one.jpg").write_text("mine")
    with pytest.raises(RvptError, match="photos is no artifact of rvpt"):
        make(tmp_path / "photos", force=True)
    (tmp_path / "photos" / "manifest.json").write_text('{"name": "an app of somebody"}')
    with pytest.raises(RvptError, match=r"photos is no artifact of rvpt \(no manifest.json of ours\)"):
        make(tmp_path / "photos", force=True)
    assert names(tmp_path) == ["photos", "photos/manifest.json", "photos/one.jpg"]


def test_force_leaves_an_artifact_that_somebody_put_something_into(tmp_path):
    make(tmp_path / "out", "old")
    make(tmp_path / "out" / "within")
    with pytest.raises(RvptError, match=r"out holds within/(file|manifest.json), which is no part of it: move that"):
        make(tmp_path / "out", force=True)
    assert names(tmp_path / "out") == ["file", "manifest.json", "within", "within/file", "within/manifest.json"]
    (tmp_path / "out" / "within").rename(tmp_path / "within")
    (tmp_path / "out" / "file").unlink()  # one that is broken may be made again
    make(tmp_path / "out", force=True)
    assert names(tmp_path / "out") == ["file", "manifest.json"]


def test_what_is_read_is_not_replaced(tmp_path):
    make(tmp_path / "all" / "model")
    for target in (tmp_path / "all", tmp_path / "all" / "model", tmp_path / "all" / ".." / "all"):
        with pytest.raises(RvptError, match="which is read: choose another --out"):
            refuse_source(target, ["scenes", str(tmp_path / "all" / "model")])
    refuse_source(tmp_path / "all" / "model" / "cleaned", [str(tmp_path / "all" / "model")])


def test_a_link_stays_one(tmp_path):
    make(tmp_path / "there", "old")
    (tmp_path / "link").symlink_to(tmp_path / "there")
    make(tmp_path / "link", force=True)
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "there" / "file").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {"there", "link"}


def test_an_empty_folder_may_be_filled(tmp_path):
    (tmp_path / "out").mkdir()
    make(tmp_path / "out")
    assert names(tmp_path) == ["out", "out/file", "out/manifest.json"]


@pytest.mark.parametrize("force", [False, True])
def test_a_file_in_the_way_is_refused_and_kept(tmp_path, force):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(RvptError, match="is a file, a folder is needed"):
        make(tmp_path / "out", force=force)
    assert (tmp_path / "out").read_text() == "mine"


def test_a_file_above_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(RvptError, match=r"out cannot be made: .*file is no folder"):
        make(tmp_path / "file" / "deep" / "out")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize(
    ("number", "words"),
    [(errno.ENOSPC, "no space left to write .*out: free some"), (errno.EACCES, "could not write .*out: Permission")],
)
def test_a_disk_that_does_not_take_it_is_said(tmp_path, number, words):
    with pytest.raises(RvptError, match=words):
        make(tmp_path / "out", error=OSError(number, os.strerror(number)))
    assert names(tmp_path) == []


def failing_replace(monkeypatch):
    def replace(*paths):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(store.os, "replace", replace)


def test_a_full_disk_leaves_the_old_text(tmp_path, monkeypatch):
    write_text(tmp_path / "a.txt", "old")
    failing_replace(monkeypatch)
    with pytest.raises(RvptError, match=r"no space left to write .*a\.txt"):
        write_text(tmp_path / "a.txt", "new")
    assert names(tmp_path) == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_while_tensors_are_written_is_said(tmp_path, monkeypatch):
    def save_file(*args, **options):
        raise store.SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(store, "save_file", save_file)
    with pytest.raises(RvptError, match="space"), staging(tmp_path / "out") as stage:
        write_tensors(stage / "t.safetensors", {"a": torch.zeros(2)})
    assert names(tmp_path) == []


def test_tensors_come_back_as_they_were(tmp_path):
    tensors = {
        "half": torch.randn(3, 4).half(), "view": torch.arange(12).view(3, 4).T, "empty": torch.zeros(0, 2),
        "brain": torch.ones(2, dtype=torch.bfloat16), "scalar": torch.tensor(True),
    }  # fmt: skip
    write_tensors(tmp_path / "t.safetensors", {**tensors, "shared": tensors["half"]})
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys() | {"shared"}
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in tensors.items())


@pytest.mark.parametrize("keep", [0, 4, 60])
def test_a_damaged_tensor_file_is_said(tmp_path, keep):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.zeros(50)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RvptError, match=r"t\.safetensors is not a whole safetensors file"):
        read_tensors(path)


def test_a_missing_file_is_said(tmp_path):
    for read in (read_tensors, read_json, read_rows):
        with pytest.raises(RvptError, match="nothing is missing"):
            read(tmp_path / "nothing")


def test_json_comes_back_and_damage_is_said(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1, 2.5, None], "ü": "é"})
    assert read_json(tmp_path / "a.json") == {"b": [1, 2.5, None], "ü": "é"}
    (tmp_path / "a.json").write_text('{"b": [1,')
    with pytest.raises(RvptError, match=r"a\.json cannot be read as JSON"):
        read_json(tmp_path / "a.json")


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
    assert read_manifest(artifact) == manifest


@pytest.mark.parametrize("name", ["config.json", "sub/t.safetensors"])
@pytest.mark.parametrize("place", [0, -1])
def test_one_changed_byte_is_seen(artifact, name, place):
    content = bytearray((artifact / name).read_bytes())
    content[place] ^= 1
    (artifact / name).write_bytes(content)
    with pytest.raises(RvptError, match=f"{name} was changed since it was made"):
        read_manifest(artifact)


def test_a_change_is_seen_where_the_manifest_lost_its_kind_too(artifact):
    facts = read_json(artifact / MANIFEST)
    write_json(artifact / MANIFEST, {name: facts[name] for name in ("seed", "parts")})
    (artifact / "config.json").write_text("{}")
    with pytest.raises(RvptError, match=r"config\.json was changed since it was made"):
        find_manifest(artifact)


def test_a_missing_part_is_seen(artifact):
    (artifact / "config.json").unlink()
    with pytest.raises(RvptError, match=r"config\.json is missing: the artifact is not whole"):
        read_manifest(artifact)


def test_another_kind_and_no_artifact_are_said(artifact):
    with pytest.raises(RvptError, match="holds a thing, a trigger is needed"):
        read_manifest(artifact, "trigger")
    with pytest.raises(RvptError, match=f"sub is no rvpt artifact: it has no {MANIFEST}"):
        read_manifest(artifact / "sub")


@pytest.mark.parametrize("text", ["[]", '"words"', "{}", '{"kind": "thing"}'])
def test_a_manifest_that_is_none_is_said(artifact, text):
    (artifact / MANIFEST).write_text(text)
    with pytest.raises(RvptError, match="manifest"):
        read_manifest(artifact)


BASE = {"a": torch.arange(6).view(2, 3), "b": torch.zeros(2)}


@pytest.mark.parametrize(
    "other",
    [
        {"a": BASE["a"], "c": BASE["b"]},
        {"a": BASE["a"], "b": BASE["b"].int()},
        {"a": BASE["a"].view(3, 2), "b": BASE["b"]},
        {"a": BASE["a"] + torch.tensor([0, 0, 1]), "b": BASE["b"]},
        {"a": BASE["a"]},
        {"a": BASE["a"], "b": -BASE["b"]},
    ],
    ids=["name", "dtype", "shape", "value", "fewer", "sign of zero"],
)
def test_the_hash_of_tensors_sees_every_change(other):
    assert sha256_tensors(other) != sha256_tensors(BASE)


def test_the_hash_of_tensors_sees_nothing_else():
    reordered = {"b": torch.zeros(4)[::2], "a": BASE["a"].T.contiguous().T}
    assert sha256_tensors(reordered) == sha256_tensors(BASE)


def test_rows_come_back_in_order_and_append(tmp_path):
    path = tmp_path / "deep" / "rows.jsonl"
    rows = [{"metric": "CA", "rate": 0.5, "spec": {"lr": 1}, "note": "ä\u2028\n"}, {"metric": "ASR", "rate": None}]
    append_rows(path, rows)
    append_rows(path, iter(rows[:1]))
    assert read_rows(path) == [*rows, rows[0]]
    assert len(path.read_bytes().split(b"\n")) == 4


def test_a_row_begins_a_line_of_its_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"metric": "CA"}')  # as editors leave it
    append_rows(path, [{"metric": "PA"}])
    assert read_rows(path) == [{"metric": "CA"}, {"metric": "PA"}]


@pytest.mark.parametrize("line", [b'{"metric": "C', b"7", b"[]", b'[["metric", 1]]', b'{"a": "\xff"}'])
def test_a_damaged_line_is_named(tmp_path, line):
    path = tmp_path / "rows.jsonl"
    append_rows(path, [{"metric": "CA"}])
    with path.open("ab") as file:
        file.write(line + b"\n" + json.dumps({"metric": "PA"}).encode() + b"\n")
    with pytest.raises(RvptError, match=r"rows\.jsonl, line 2: not a JSON object"):
        read_rows(path)


@pytest.mark.parametrize("before", [[], [{"metric": "CA"}]])
def test_rows_on_a_full_disk_are_written_all_or_none(tmp_path, monkeypatch, before):
    path = tmp_path / "rows.jsonl"
    append_rows(path, before)

    @contextmanager
    def nearly_full(self, mode, **options):
        with open(self, mode, **options) as file:

            class Disk:
                seek, read = file.seek, file.read

                def write(self, text):
                    file.write(text[:5])
                    file.flush()
                    raise OSError(errno.ENOSPC, "No space left on device")

            yield Disk()

    with monkeypatch.context() as patch:
        patch.setattr(store.Path, "open", nearly_full)
        with pytest.raises(RvptError, match="no space left"):
            append_rows(path, [{"metric": "PA"}])
    assert (read_rows(path) if path.exists() else []) == before
