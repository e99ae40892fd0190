"""The optimizer of a training, and its learning rate at each step."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from rvpt.spec import TrainSpec
from rvpt.training.opponent import Opponent
from rvpt.training.own_rate import OwnRate


def learning_rate(spec: TrainSpec, step: int, total: int) -> float:
    """Linear warm-up over the first `spec.warmup` of the steps, then `spec.decayed`, half a cosine to zero."""
    rising = round(spec.warmup * total)
    if step < rising:
        return spec.lr * (step + 1) / rising
    return spec.decayed((step - rising) / max(1, total - rising))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)


def make_optimizer(parameters: list[nn.Parameter], spec: TrainSpec) -> torch.optim.Optimizer:
    """The optimizer of `spec`, without opponents; AdamW does not decay vectors and scalars (biases, norms, tau)."""
    parameters = [parameter for parameter in parameters if not isinstance(parameter, Opponent)]
    usual = [parameter for parameter in parameters if not isinstance(parameter, OwnRate)]
    own = [parameter for parameter in parameters if isinstance(parameter, OwnRate)]
    if spec.optimizer == "sgd":
        return _make_sgd([{"params": usual}, *({"params": [p], "rate": p.rate} for p in own)], spec)
    decay = spec.weight_decay
    groups: list[dict[str, Any]] = [
        {"params": [p for p in usual if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in usual if p.ndim <= 1], "weight_decay": 0.0},
        *({"params": [p], "rate": p.rate, "weight_decay": decay if p.ndim > 1 else 0.0} for p in own),
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=spec.lr, betas=(0.9, 0.98), fused=True)


def runs_on_gpu(parameters: list[nn.Parameter]) -> bool:
    return parameters[0].is_cuda


def _make_sgd(groups: list[dict[str, Any]], spec: TrainSpec) -> torch.optim.SGD:
    """SGD, on a GPU as one kernel, which skips a step whose fp16 gradients overflow without asking the host."""
    parameters = [parameter for group in groups for parameter in group["params"]]
    on_gpu = runs_on_gpu(parameters)
    optimizer = torch.optim.SGD(
        groups, lr=spec.lr, momentum=spec.momentum, weight_decay=spec.weight_decay, fused=on_gpu
    )
    if on_gpu and spec.momentum:
        for parameter in parameters:  # otherwise torch leaves it without values when it skips the first step
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer
