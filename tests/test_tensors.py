"""Tensors on disk, and their hashes."""

import os

import pytest
import torch
from safetensors import SafetensorError

from helpers import contents
from rvpt.artifacts import staging
from rvpt.errors import MachineError, RvptError
from rvpt.tensors import read_metadata, read_tensors, sha256_tensors, write_tensors


def test_tensors_come_back_as_they_were(tmp_path):
    tensors = {
        "half": torch.randn(3, 4).half(), "view": torch.arange(12).view(3, 4).T, "empty": torch.zeros(0, 2),
        "brain": torch.ones(2, dtype=torch.bfloat16), "scalar": torch.tensor(True),
    }  # fmt: skip
    write_tensors(tmp_path / "t.safetensors", {**tensors, "shared": tensors["half"]}, {"note": "ü"})
    read = read_tensors(tmp_path / "t.safetensors")
    assert read.keys() == tensors.keys() | {"shared"}
    assert all(torch.equal(read[name], value) and read[name].dtype == value.dtype for name, value in tensors.items())
    assert read_metadata(tmp_path / "t.safetensors") == {"note": "ü"}


@pytest.mark.parametrize("keep", [0, 4, 60])
@pytest.mark.parametrize("read", [read_tensors, read_metadata])
def test_a_damaged_file_is_named(tmp_path, keep, read):
    path = tmp_path / "t.safetensors"
    write_tensors(path, {"a": torch.zeros(50)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(RvptError, match=r"t\.safetensors is not a complete safetensors file"):
        read(path)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(RvptError, match="nothing is missing"):
        read_tensors(tmp_path / "nothing")


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(28, "No space left on device"),
    ],
)
def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch, error):
    def save_file(*args, **options):
        raise error

    monkeypatch.setattr("rvpt.tensors.save_file", save_file)
    with pytest.raises(MachineError, match=r"(?i)no space left"), staging(tmp_path / "out") as stage:
        write_tensors(stage / "t.safetensors", {"a": torch.zeros(2)})
    assert contents(tmp_path) == {}


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
def test_the_hash_sees_every_change(other):
    assert sha256_tensors(other) != sha256_tensors(BASE)


def test_the_hash_sees_neither_order_nor_strides():
    reordered = {"b": torch.zeros(4)[::2], "a": BASE["a"].T.contiguous().T}
    assert sha256_tensors(reordered) == sha256_tensors(BASE)


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_files_have_the_permissions_that_others_have(tmp_path, mask, mode):
    old = os.umask(mask)
    try:
        write_tensors(tmp_path / "x.safetensors", {"a": torch.ones(2)})
    finally:
        os.umask(old)
    assert (tmp_path / "x.safetensors").stat().st_mode & 0o777 == mode
    assert [path.name for path in tmp_path.iterdir()] == ["x.safetensors"]
