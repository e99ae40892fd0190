"""One training loop for everything that is trained, on Accelerate.

What is random in a step depends on (seed, step) alone, so a run that was cut goes on from its checkpoint
to the same bits. Checkpoints are safetensors: nothing is pickled.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from rvpt.config import TrainSpec
from rvpt.errors import RvptError
from rvpt.progress import Report, silent
from rvpt.store import disk_errors, read_tensors, write_json

CHECKPOINT_SECONDS = 30.0


@dataclass
class Checkpoint:
    """Where a run keeps its state, and which run it is: `key` is anything JSON that must not differ."""

    folder: Path
    key: Mapping[str, Any] = field(default_factory=dict)
    resume: bool = False
    seconds: float = CHECKPOINT_SECONDS

    def digest(self) -> str:
        return hashlib.sha256(json.dumps(self.key, sort_keys=True, default=str).encode()).hexdigest()


def step_seed(seed: int, step: int) -> int:
    """A seed for one step of one run, far from those of its neighbours."""
    digest = hashlib.sha256(f"{seed} {step}".encode()).digest()
    return int.from_bytes(digest[:7], "big")


def learning_rate(spec: TrainSpec, step: int, total: int) -> float:
    """Linear warm-up over the first `spec.warmup` of the steps, then half a cosine to zero."""
    rising = round(spec.warmup * total)
    if step < rising:
        return spec.lr * (step + 1) / rising
    return spec.lr * 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, total - rising)))


def index_batches(n: int, spec: TrainSpec) -> Iterator[Tensor]:
    """The indices of every step of a run: each epoch is one permutation of n, drawn from (seed, epoch)."""
    for epoch in range(spec.epochs):
        generator = torch.Generator().manual_seed(step_seed(spec.seed, -1 - epoch))
        yield from torch.randperm(n, generator=generator).split(spec.batch_size)


def count_steps(n: int, spec: TrainSpec) -> int:
    """Steps of a run on n examples; the last batch of an epoch may be smaller."""
    return spec.epochs * math.ceil(n / spec.batch_size)


def make_optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimiser of `spec`; AdamW leaves vectors and scalars (biases, norms, tau) undecayed."""
    if spec.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay)
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": spec.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=(0.9, 0.98), fused=True)


def fit(
    task: nn.Module,
    n: int,
    spec: TrainSpec,
    *,
    checkpoint: Checkpoint | None = None,
    report: Report = silent,
) -> list[dict[str, float]]:
    """Train the parameters of `task` that require gradients.

    Args:
        task: called as `task(indices, generator, done)` with the share of the steps that is done; returns named
            scalars, "loss" among them.
        n: how many examples the indices choose from.
        checkpoint: where to keep the state; the run resumes from it if it says so.

    Returns:
        The mean of every named scalar, one dict an epoch.

    Raises:
        RvptError: the loss is not finite, or the checkpoint belongs to another run.
    """
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    accelerator = _accelerator(spec.precision, next(iter(trained.values())).device)
    optimizer = make_optimizer(list(trained.values()), spec)
    wrapped, optimizer = accelerator.prepare(task, optimizer)
    total = count_steps(n, spec)
    history: list[dict[str, float]] = []
    sums: dict[str, float] = {}
    done = _restore(checkpoint, trained, optimizer, history, sums) if checkpoint else 0
    per_epoch, saved = total // spec.epochs, time.monotonic()
    whole = True  # parameters, optimiser and sums are all those after `done` steps
    try:
        for step, batch in enumerate(index_batches(n, spec)):
            if step < done:
                continue
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(spec, step, total)
            values = _gradients(accelerator, wrapped, optimizer, batch, step, total, spec)
            whole = False
            optimizer.step()
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + value / per_epoch
            if (step + 1) % per_epoch == 0:
                history.append(dict(sums))
                sums.clear()
            done, whole = step + 1, True
            report(done, total, values)
            if checkpoint and time.monotonic() - saved > checkpoint.seconds:
                _save(accelerator, checkpoint, done, trained, optimizer, history, sums)
                saved = time.monotonic()
    except KeyboardInterrupt:
        if checkpoint and whole:  # an update that was cut half-way must not be kept
            _save(accelerator, checkpoint, done, trained, optimizer, history, sums)
        raise
    accelerator.wait_for_everyone()
    return history


def _accelerator(precision: str, device: torch.device) -> Any:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    # A process may train several things, in other precisions and on other devices; a launched one keeps its group.
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    return Accelerator(mixed_precision=precision, cpu=device.type == "cpu")


def _gradients(
    accelerator: Any, task: nn.Module, optimizer: Any, batch: Tensor, step: int, total: int, spec: TrainSpec
) -> dict[str, float]:
    """Gradients of this process's share of the batch; the shares' gradients add up to the whole batch's."""
    mine = batch[accelerator.process_index :: accelerator.num_processes]
    share = len(mine) * accelerator.num_processes / len(batch)
    values = task(mine, torch.Generator().manual_seed(step_seed(spec.seed, step)), step / total)
    loss = values["loss"]
    if not torch.isfinite(loss):
        raise RvptError(f"the loss became {loss.item()} at step {step}: lower the learning rate ({spec.lr:g})")
    optimizer.zero_grad()
    accelerator.backward(loss * share)
    if spec.clip_norm:
        accelerator.clip_grad_norm_(task.parameters(), spec.clip_norm)
    return {name: float(value.detach()) for name, value in values.items()}


def _save(
    accelerator: Any,
    checkpoint: Checkpoint,
    done: int,
    trained: Mapping[str, nn.Parameter],
    optimizer: Any,
    history: list[dict[str, float]],
    sums: Mapping[str, float],
) -> None:
    """Write the state under a temporary name, then rename; tensors first, so the JSON never runs ahead."""
    if not accelerator.is_main_process:
        return
    tensors = {f"parameter/{name}": p.detach().cpu().contiguous() for name, p in trained.items()}
    for index, state in optimizer.state_dict()["state"].items():
        for name, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer/{index}/{name}"] = value.cpu().contiguous()
    facts = {"done": done, "history": history, "sums": dict(sums), "run": checkpoint.digest()}
    temporary = checkpoint.folder / "state.partial"
    with disk_errors(checkpoint.folder):
        checkpoint.folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, temporary, metadata={"facts": json.dumps(facts)})
        temporary.replace(checkpoint.folder / "state.safetensors")
    write_json(checkpoint.folder / "run.json", checkpoint.key)


def _restore(
    checkpoint: Checkpoint,
    trained: Mapping[str, nn.Parameter],
    optimizer: Any,
    history: list[dict[str, float]],
    sums: dict[str, float],
) -> int:
    """Load the state if there is one; returns the number of steps that are done."""
    path = checkpoint.folder / "state.safetensors"
    if not path.is_file():
        return 0
    if not checkpoint.resume:
        raise RvptError(f"{checkpoint.folder} holds an interrupted run: give --resume to go on or --force to drop it")
    facts, tensors = _read_state(path)
    if facts["run"] != checkpoint.digest():
        raise RvptError(
            f"{checkpoint.folder} holds a run with other settings (run.json has them): repeat those, or give --force"
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(tensors[f"parameter/{name}"])
    state: dict[int, dict[str, Tensor]] = {}
    for name, value in tensors.items():
        kind, _, rest = name.partition("/")
        if kind == "optimizer":
            index, _, slot = rest.partition("/")
            state.setdefault(int(index), {})[slot] = value
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    history.extend(facts["history"])
    sums.update(facts["sums"])
    return int(facts["done"])


def _read_state(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    from safetensors import safe_open

    tensors = read_tensors(path)
    with safe_open(path, framework="pt") as file:
        return json.loads(file.metadata()["facts"]), tensors
