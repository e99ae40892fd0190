"""Where a run writes: never over what it reads, and refused before the work where it could not write in the end."""

import pytest

from helpers import contents
from line import SPECS, Run
from rvpt.errors import RvptError
from rvpt.jobs.output_dirs import open_checkpoint, refuse_source

SPEC = SPECS["sgd"]


@pytest.fixture
def model(tmp_path):
    folder = tmp_path / "all" / "model"
    folder.mkdir(parents=True)
    return folder


def test_what_is_read_is_not_replaced(tmp_path, model):
    for target in (tmp_path / "all", model, tmp_path / "all" / ".." / "all"):
        for source in (str(model), f"{model}@names.txt"):
            with pytest.raises(
                RvptError, match=r"all.* holds .*model.*, which this command reads: choose another folder"
            ):
                refuse_source(target, ["scenes", source])
    refuse_source(model / "cleaned", ["scenes", str(model), "owner/clip", "/gone"])


def interrupted(target, key, **options):
    with pytest.raises(KeyboardInterrupt):
        Run(SPEC, open_checkpoint(target, key, resume=False, overwrite=False), stop=5)


def test_an_interrupted_run_is_kept_beside_its_target_and_resumed(tmp_path):
    interrupted(tmp_path / "out", {"lr": 1})
    assert contents(tmp_path).keys() == {"out.run", "out.run/state.safetensors", "out.run/run.json"}
    with pytest.raises(RvptError, match=r"out.run holds an interrupted run: pass resume=True"):
        open_checkpoint(tmp_path / "out", {"lr": 1}, resume=False, overwrite=False)
    with pytest.raises(
        RvptError, match=r"out.run holds a run with other settings \(lr=2 now, 1 before\): repeat those of run.json"
    ):
        open_checkpoint(tmp_path / "out", {"lr": 2}, resume=True, overwrite=False)
    checkpoint = open_checkpoint(tmp_path / "out", {"lr": 1}, resume=True, overwrite=False)
    assert Run(SPEC, checkpoint).steps[0] == 6


def test_overwriting_drops_an_interrupted_run_at_once(tmp_path):
    interrupted(tmp_path / "out", {"lr": 1})
    checkpoint = open_checkpoint(tmp_path / "out", {"lr": 2}, resume=False, overwrite=True)
    assert contents(tmp_path) == {}
    assert Run(SPEC, checkpoint).steps[0] == 1


def test_a_target_that_cannot_be_written_is_refused_before_the_work(tmp_path, model):
    (model / "mine").write_text("x")
    with pytest.raises(RvptError, match="model already exists: choose another folder or pass overwrite=True"):
        open_checkpoint(model, {}, resume=False, overwrite=False)
    with pytest.raises(RvptError, match="model was not created by rvpt"):
        open_checkpoint(model, {}, resume=False, overwrite=True)
    with pytest.raises(RvptError, match="which this command reads: choose another folder"):
        open_checkpoint(model, {}, [str(model)], resume=False, overwrite=True)
