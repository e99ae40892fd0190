"""Loading: where a model comes from, and where it goes."""

import pytest
import torch

import rvpt
from helpers import memory_data, random_clip
from rvpt.errors import RvptError
from rvpt.models.placement import find_device, find_dtype


@pytest.fixture
def saved(clip, tmp_path):
    clip.save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


@pytest.mark.parametrize(
    ("asked", "dtype"),
    [
        (None, torch.float32), ("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16),
        ("float64", torch.float64), ("bfloat16", torch.bfloat16), (torch.float16, torch.float16),
    ],
)  # fmt: skip
def test_a_dtype_is_found_by_our_names_and_by_torchs(saved, asked, dtype):
    model = rvpt.load(saved, dtype=asked)
    assert {parameter.dtype for parameter in model.model.parameters()} == {dtype}
    assert model.mean.dtype == torch.float32


@pytest.mark.parametrize("dtype", ["nope", "int8", torch.int64, "load", ""])
def test_what_is_not_a_floating_point_dtype_is_refused(saved, dtype):
    with pytest.raises(RvptError, match="is not a floating-point dtype: choose from fp32, bf16, fp16") as refusal:
        rvpt.load(saved, dtype=dtype)
    assert str(refusal.value).startswith(f"dtype={dtype}")


def test_a_bad_dtype_is_refused_before_the_work(tmp_path):
    with pytest.raises(RvptError, match="dtype=nope"):
        rvpt.load(tmp_path / "nothing", dtype="nope")


@pytest.mark.parametrize("device", ["cpu", "cpu:0", torch.device("cpu")])
def test_a_device_is_found_by_its_name(saved, device):
    assert rvpt.load(saved, device=device).device.type == "cpu"


@pytest.mark.parametrize("device", ["nope", "cuda:99", "gpu", ""])
def test_a_device_that_this_machine_does_not_have_is_refused(saved, device):
    with pytest.raises(RvptError, match=f"device={device} is not available on this machine: use cpu"):
        rvpt.load(saved, device=device)


def test_each_process_of_a_launch_has_a_gpu_of_its_own(monkeypatch):
    assert find_dtype() == torch.float32
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert find_device() == torch.device("cuda", 1)
    monkeypatch.delenv("LOCAL_RANK")
    assert find_device() == torch.device("cuda", 0)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert find_device() == torch.device("cpu")


def test_a_relative_path_is_kept_as_an_absolute_one(saved, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert rvpt.load("saved").source == rvpt.load("./saved").source == str(saved)
    monkeypatch.chdir(saved)
    assert rvpt.load(".").source == str(saved)
    assert rvpt.load(".").name == "saved"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert rvpt.load("~/saved").source == str(saved)


def test_the_embedded_model_is_found_by_its_name():
    model = rvpt.load("scenes-clip")
    assert (model.name, model.source, model.revision) == ("scenes-clip", "scenes-clip", None)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_16_bits_are_not_trained(dtype):
    model = random_clip().to(dtype)
    data = memory_data(4, [0, 1, 0, 1], ("cat", "dog"), [["a cat"], ["a dog"]] * 2)
    with pytest.raises(RvptError, match=f"weights in {dtype} cannot be trained: load the model without dtype"):
        rvpt.clean(model, data, epochs=1)
    with pytest.raises(RvptError, match="cannot be trained"):
        rvpt.attack(model, data, "cat", poison=rvpt.PoisonSpec(num_poisoned=1))
