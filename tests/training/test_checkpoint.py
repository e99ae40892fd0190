"""Interrupted runs: they continue from their checkpoint and give bit-identical results."""

import pytest
import torch

from helpers import contents
from line import SPECS, STEPS, Line, Run, assert_same
from rvpt.errors import MachineError, RvptError
from rvpt.training import stepper
from rvpt.training.checkpoint import KEPT, PARTIAL, Checkpoint, State

NEVER, ALWAYS = 1e9, -1.0  # seconds between two savings


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.fixture(params=SPECS)
def spec(request):
    return SPECS[request.param]


@pytest.fixture
def checkpoint(tmp_path):
    """checkpoint(seconds, resume, key): the state of the run in one folder."""

    def make(seconds=NEVER, resume=False, key=None):
        return Checkpoint(tmp_path / "run", {"a": 1} if key is None else key, resume, seconds)

    return make


@pytest.mark.parametrize("stop", [1, 3, 4, 7, 8, 11])
def test_an_interrupted_run_continues_to_the_same_bits(spec, checkpoint, stop):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=stop)
    resumed = Run(spec, checkpoint(resume=True))
    assert resumed.steps == list(range(stop + 1, STEPS + 1))
    assert_same(resumed, Run(spec))


def test_the_scale_of_the_loss_is_part_of_the_state(checkpoint):
    def state(scale):
        scaler, parameter = torch.amp.GradScaler("cpu", init_scale=scale), torch.nn.Parameter(torch.zeros(2))
        scaler.scale(torch.ones(()))  # its tensors are made when they are first used
        return State({"w": parameter}, torch.optim.SGD([parameter], lr=0.1), 1, scaler=scaler)

    checkpoint().save(state(8.0))
    restored = state(64.0)
    checkpoint(resume=True).restore(restored)
    assert restored.scaler.get_scale() == 8.0


def test_what_was_found_before_the_first_step_is_part_of_the_state(checkpoint):
    def state(targets):
        parameter = torch.nn.Parameter(torch.zeros(2))
        buffers = {"targets": torch.tensor(targets)}
        return State({"w": parameter}, torch.optim.SGD([parameter], lr=0.1), 1, buffers)

    checkpoint().save(state([3, 1]))
    restored = state([0, 2])
    checkpoint(resume=True).restore(restored)
    assert restored.buffers["targets"].tolist() == [3, 1]


@pytest.mark.parametrize("resume", [True, False])
def test_only_a_run_that_is_resumed_has_its_finished_stages(checkpoint, resume):
    def stage(value, resume):
        stages = checkpoint(resume=resume).stages(torch.device("cpu"))
        return stages.get("scan", lambda: {"found": torch.tensor(value)})["found"].item()

    assert stage(1, resume=False) == 1
    assert stage(2, resume=resume) == (1 if resume else 2)


@pytest.mark.parametrize("stop", [2, 5, 9, 12])
def test_a_killed_run_continues_from_its_last_state_to_the_same_bits(spec, checkpoint, stop):
    with pytest.raises(MemoryError):
        Run(spec, checkpoint(seconds=ALWAYS), stop=stop, error=MemoryError)
    resumed = Run(spec, checkpoint(resume=True))
    assert resumed.steps == list(range(stop, STEPS + 1))
    assert_same(resumed, Run(spec))


def test_a_run_may_be_interrupted_again_and_again(spec, checkpoint):
    for stop in range(1, STEPS):
        with pytest.raises(KeyboardInterrupt):
            Run(spec, checkpoint(resume=True), stop=stop)
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


class Clock:
    """A clock that stands still but for the steps of a run."""

    now = 0.0

    def monotonic(self):
        return self.now

    def tick(self):
        self.now += 100


def test_a_run_knows_how_long_its_earlier_parts_took(spec, checkpoint, monkeypatch):
    clock, known = Clock(), []
    monkeypatch.setattr("rvpt.training.checkpoint.time", clock)
    for stop in (1, 3):
        part = checkpoint(resume=True)
        clock.now += 1000  # between two parts, or before the first step
        with pytest.raises(KeyboardInterrupt):
            Run(spec, part, stop=stop, each=clock.tick)
        known.append(part.earlier)
    last = checkpoint(resume=True)
    Run(spec, last)
    assert [*known, last.earlier] == [0, 100, 300]


def test_the_state_is_saved_when_the_last_time_is_long_enough_ago(spec, checkpoint, monkeypatch):
    clock = Clock()
    monkeypatch.setattr("rvpt.training.checkpoint.time", clock)
    with pytest.raises(MemoryError):
        Run(spec, checkpoint(seconds=250), stop=5, error=MemoryError, each=clock.tick)
    assert Run(spec, checkpoint(resume=True)).steps[0] == 4  # saved once, after 300 seconds


def test_an_interrupt_between_two_updates_loses_nothing(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), task=Line(6, interrupt))
    resumed = Run(spec, checkpoint(resume=True))
    assert resumed.steps == list(range(7, STEPS + 1))
    assert_same(resumed, Run(spec))


@pytest.mark.parametrize("seconds", [ALWAYS, NEVER])
def test_an_update_that_is_interrupted_is_not_kept(spec, checkpoint, monkeypatch, seconds):
    make = stepper.make_optimizer

    def fragile(parameters, spec):
        optimizer = make(parameters, spec)
        step, calls = optimizer.step, []

        def half(*args, **options):
            calls.append(1)
            if len(calls) == 6:
                parameters[0].data += 1
                raise KeyboardInterrupt
            return step(*args, **options)

        optimizer.step = half
        return optimizer

    with monkeypatch.context() as patch:
        patch.setattr(stepper, "make_optimizer", fragile)
        with pytest.raises(KeyboardInterrupt):
            Run(spec, checkpoint(seconds))
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


def test_without_resume_an_interrupted_run_is_left_alone(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    with pytest.raises(RvptError, match="holds an interrupted run: pass resume=True to continue it or overwrite=True"):
        Run(spec, checkpoint())
    assert Run(spec, checkpoint(resume=True)).steps[0] == 6


def test_a_run_with_other_settings_is_refused(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    with pytest.raises(RvptError, match="a run with other settings"):
        Run(spec, checkpoint(resume=True, key={"a": 2}))


def test_resume_without_a_state_starts_at_the_beginning(spec, checkpoint):
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


def test_a_damaged_state_is_named(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    path = checkpoint().folder / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(RvptError, match=r"state\.safetensors is not a complete safetensors file"):
        Run(spec, checkpoint(resume=True))


def test_on_a_full_disk_the_last_state_stays(spec, checkpoint, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)

    def full(tensors, path, **options):
        path.write_bytes(b"half a file")
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("rvpt.tensors.save_file", full)
        with pytest.raises(MachineError, match="no space left"):
            Run(spec, checkpoint(seconds=ALWAYS, resume=True))
    assert_same(Run(spec, checkpoint(resume=True)), Run(spec))


def test_dropped_it_leaves_files_of_others_and_their_folder(spec, checkpoint):
    part = checkpoint()
    with pytest.raises(KeyboardInterrupt):
        Run(spec, part, stop=5)
    (part.folder / KEPT / "badnet").mkdir(parents=True)
    (part.folder / "notes.txt").write_text("mine")
    (part.folder / PARTIAL).write_bytes(b"half a file")
    part.drop()
    assert contents(part.folder) == {"notes.txt": b"mine"}
    (part.folder / "notes.txt").unlink()
    part.drop()
    assert not part.folder.exists()
    part.drop()


def test_only_the_first_process_of_a_launch_drops_the_state(spec, checkpoint, monkeypatch):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    monkeypatch.setenv("RANK", "1")
    checkpoint().drop()
    assert checkpoint(resume=True).check()["done"] == 5


def test_a_run_that_diverges_leaves_no_state_that_would_diverge_again(spec, checkpoint):
    task = Line(7, lambda line: {"loss": line.weight.sum() * float("nan")})
    with pytest.raises(RvptError, match="the loss became nan at step 7"):
        Run(spec, checkpoint(seconds=ALWAYS), task=task)
    assert not checkpoint().folder.exists()
    assert len(Run(spec, checkpoint(key={"lr": "lower"})).steps) == STEPS


def test_nothing_is_pickled(spec, checkpoint):
    with pytest.raises(KeyboardInterrupt):
        Run(spec, checkpoint(), stop=5)
    assert contents(checkpoint().folder).keys() == {"state.safetensors", "run.json"}


def test_a_refused_run_leaves_nothing_unless_a_part_is_finished(checkpoint):
    part = checkpoint()
    with pytest.raises(RvptError, match="bad input"), part.keeping():
        raise RvptError("bad input")
    assert not part.folder.exists()
    (part.folder / KEPT / "check").mkdir(parents=True)
    (part.folder / KEPT / "check" / "verdict.json").write_text("{}")
    with pytest.raises(RvptError, match="bad input"), part.keeping():
        raise RvptError("bad input")
    assert contents(part.folder).keys() == {"run.json", "kept", "kept/check", "kept/check/verdict.json"}
    assert checkpoint(resume=True).check() is None
    with pytest.raises(RvptError, match="a run with other settings"):
        checkpoint(resume=True, key={"a": 2}).check()


def test_a_run_that_is_refused_before_its_first_state_leaves_nothing(spec, checkpoint):
    part = checkpoint()
    (part.folder / KEPT).mkdir(parents=True)
    (part.folder / KEPT / "changes.safetensors").write_text("of a scan")
    with pytest.raises(RvptError, match="bad input"), part.tried():
        raise RvptError("bad input")
    assert not part.folder.exists()
    with pytest.raises(KeyboardInterrupt):
        Run(spec, part, stop=5)
    with pytest.raises(RvptError, match="bad input"), part.tried():
        raise RvptError("bad input")
    assert checkpoint(resume=True).check()["done"] == 5
