"""The state of a training run, on disk as safetensors: nothing is pickled."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rvpt.errors import RvptError
from rvpt.files import disk_errors, read_json, write_json
from rvpt.progress import main_process
from rvpt.tensors import read_metadata, read_tensors, write_tensors
from rvpt.training.averaging import Average
from rvpt.training.differences import differences
from rvpt.training.opponent import Opponent
from rvpt.training.stages import Stages

STATE, RUN, PARTIAL = "state.safetensors", "run.json", "state.partial"
SLOTS = "optimizer/"  # how names of the optimizer's tensors begin
KEPT = "kept"
"""Folder of finished parts of a run, such as triggers that it crafted before its first step."""


@dataclass
class State:
    """The state of a run after `done` steps, with the sums of the current epoch.

    The values of the last steps may still be on the GPU: they are `unread`.
    """

    trained: Mapping[str, nn.Parameter]
    optimizer: Any
    steps_an_epoch: int
    buffers: Mapping[str, Tensor] = field(default_factory=dict)
    """What was found before the first step, and may be found otherwise when the run continues on a GPU."""
    average: Average | None = None
    scaler: Any = None
    """Of the loss, in fp16: what it has found must not be found again."""
    done: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: dict[str, float] = field(default_factory=dict)
    unread: list[Tensor] = field(default_factory=list)
    whole: bool = True
    """False during an update, when parameters and optimizer are not those of any step."""

    def advance(self, values: Tensor) -> None:
        """Update the parameters by their gradients, opponents by their own rules; keep the values for `read`."""
        self.whole = False
        self.optimizer.step()
        for parameter in self.trained.values():
            if isinstance(parameter, Opponent):
                parameter.oppose()
        self.unread.append(values)
        self.done += 1
        if self.average:
            self.average.add(self.done)
        self.whole = True

    def read(self, names: Sequence[str]) -> list[tuple[int, dict[str, float]]]:
        """(step, values by name) of the steps since the last call; they are added to the epoch's means."""
        if not self.unread:
            return []
        rows = torch.stack(self.unread).tolist()  # waits for the GPU
        self.whole = False
        start = self.done - len(rows)
        read = [(step, dict(zip(names, row, strict=True))) for step, row in enumerate(rows, start)]
        for step, values in read:
            self._add(step, values)
        self.unread.clear()
        self.whole = True
        return read

    def _add(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value / self.steps_an_epoch
        if (step + 1) % self.steps_an_epoch == 0:
            self.history.append(dict(self.sums))
            self.sums.clear()

    def tensors(self) -> dict[str, Tensor]:
        """Parameters, buffers, means and the optimizer's state by name."""
        found = {f"parameter/{name}": parameter.detach() for name, parameter in self.trained.items()}
        found |= {f"buffer/{name}": buffer for name, buffer in self.buffers.items()}
        found |= self.average.tensors() if self.average else {}
        for index, slots in self.optimizer.state_dict()["state"].items():
            found |= {f"{SLOTS}{index}/{name}": v for name, v in slots.items() if isinstance(v, Tensor)}
        return found

    @torch.no_grad()
    def load(self, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Restore a saved state."""
        for name, parameter in self.trained.items():
            parameter.copy_(tensors[f"parameter/{name}"])
        for name, buffer in self.buffers.items():
            buffer.copy_(tensors[f"buffer/{name}"])
        for name, mean in (self.average.tensors() if self.average else {}).items():
            mean.copy_(tensors[name])
        slots: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            if name.startswith(SLOTS):
                _, index, slot = name.split("/", 2)
                slots.setdefault(int(index), {})[slot] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": slots, "param_groups": groups})
        self.done, self.history, self.sums = int(facts["done"]), list(facts["history"]), dict(facts["sums"])
        if self.scaler:
            self.scaler.load_state_dict(facts["scaler"])


@dataclass
class Checkpoint:
    """Where a run keeps its state. `key` identifies the run: JSON that must be the same to resume it."""

    folder: Path
    key: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    seconds: float = 30.0
    begun: float = field(default_factory=time.monotonic)
    saved: float = field(default_factory=time.monotonic)
    earlier: float = 0.0
    """Seconds that the run took before it was interrupted."""

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.key, sort_keys=True).encode()).hexdigest()

    def due(self) -> bool:
        """Whether the last save was more than `seconds` ago."""
        return time.monotonic() - self.saved > self.seconds

    def save(self, state: State) -> None:
        """Write the state, whose values are all read, under a temporary name, then rename."""
        seconds = self.earlier + time.monotonic() - self.begun
        facts = {"done": state.done, "history": state.history, "sums": state.sums, "seconds": seconds}
        facts |= {"run": self.digest()} | ({"scaler": state.scaler.state_dict()} if state.scaler else {})
        temporary = self.folder / PARTIAL
        with disk_errors(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors(temporary, state.tensors(), {"facts": json.dumps(facts)})
            temporary.replace(self.folder / STATE)
        write_json(self.folder / RUN, self.key)
        self.saved = time.monotonic()

    @contextmanager
    def keeping(self) -> Iterator[Path]:
        """The folder for finished parts of a run that has no state; the run counts as begun.

        If it fails before a part is finished, as with bad input, nothing stays that a corrected command would find.
        """
        write_json(self.folder / RUN, self.key)
        kept = self.folder / KEPT
        try:
            yield kept
        except Exception:
            if not any(path.is_file() for path in kept.rglob("*")):
                self.drop()
            raise

    @contextmanager
    def tried(self) -> Iterator[None]:
        """A run: if it is refused before it has a state, as with bad input, what it kept goes too."""
        try:
            yield
        except RvptError:
            if not (self.folder / STATE).is_file():
                self.drop()
            raise

    def stages(self, device: torch.device) -> Stages:
        """Stages that come before the first step: a run that is resumed has those that were finished."""
        folder = self.folder / KEPT / self.digest()[:12]
        if not self.resume and main_process():
            shutil.rmtree(folder, ignore_errors=True)
        return Stages(folder, device)

    def check(self) -> dict[str, Any] | None:
        """The facts of the saved state; None if there is none.

        Raises:
            RvptError: `resume` is false, or what is there belongs to other settings.
        """
        if not any((self.folder / name).is_file() for name in (STATE, RUN)):
            return None
        if not self.resume:
            raise RvptError(
                f"{self.folder} holds an interrupted run: pass resume=True to continue it or overwrite=True"
            )
        if not (self.folder / STATE).is_file():
            self._refuse_other(same=read_json(self.folder / RUN) == self._stored())
            return None
        facts: dict[str, Any] = json.loads(read_metadata(self.folder / STATE)["facts"])
        self._refuse_other(same=facts["run"] == self.digest())
        return facts

    def _stored(self) -> Any:
        """The key as it is read from a file."""
        return json.loads(json.dumps(self.key))

    def _refuse_other(self, *, same: bool) -> None:
        if not same:
            changed = differences(read_json(self.folder / RUN), self._stored())
            raise RvptError(
                f"{self.folder} holds a run with other settings ({changed}): repeat those of {RUN}, "
                "or pass overwrite=True"
            )

    def drop(self) -> None:
        """Remove the state and the parts kept with it. If the folder holds other files, it stays with them."""
        if not main_process():
            return
        with suppress(OSError):
            for name in (STATE, RUN, PARTIAL):
                (self.folder / name).unlink(missing_ok=True)
            shutil.rmtree(self.folder / KEPT, ignore_errors=True)
            self.folder.rmdir()

    def restore(self, state: State) -> None:
        """Load the saved state, if there is one, into `state`. Starts the clock of the run.

        Raises:
            RvptError: as `check` does, or another version of rvpt saved it.
        """
        self.begun = self.saved = time.monotonic()
        if facts := self.check():
            self.earlier = float(facts.get("seconds", 0.0))
            tensors = read_tensors(self.folder / STATE)
            self._refuse_misfit(state, tensors)
            state.load(tensors, facts)

    def _refuse_misfit(self, state: State, tensors: Mapping[str, Tensor]) -> None:
        """Refuse tensors that are not those of the run, whose settings are the same."""
        asked = {name: tensor.shape for name, tensor in state.tensors().items() if not name.startswith(SLOTS)}
        found = {name: tensor.shape for name, tensor in tensors.items() if not name.startswith(SLOTS)}
        if asked != found:
            name = min(name for name in {*asked, *found} if asked.get(name) != found.get(name))
            raise RvptError(
                f"{self.folder} holds a run of another version of rvpt ({name} differs): continue it with that "
                "version, or pass overwrite=True"
            )
