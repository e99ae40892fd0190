"""Linear probe: a classifier on the frozen image features."""

from __future__ import annotations

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.data.dataset import Dataset
from rvpt.defenses.base import Defense, Run
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.encode import encode_set
from rvpt.models.head import Head, with_one
from rvpt.spec import TrainSpec
from rvpt.training.loop import fit, frozen
from rvpt.training.losses import zero_shot_logits


class ProbeSpec(TrainSpec):
    """Settings of the linear probe: SGD, or scikit-learn's logistic regression; the defaults are the paper's."""

    optimizer: Literal["adamw", "sgd"] = Field("sgd", description="how the weights are updated")
    lr: float = Field(1e-2, gt=0, description="learning rate")
    schedule: Literal["constant", "cosine"] = Field("constant", description="learning rate after the warm-up")
    epochs: int = Field(40, ge=1, description="passes over the images")
    batch_size: int = Field(32, ge=1, description="images per training step")
    solver: Literal["sgd", "logistic"] = Field("sgd", description="the training loop, or logistic regression")
    inverse_penalty: float = Field(1.0, gt=0, description="C of logistic regression")

    def decayed(self, done: float) -> float:
        return self.lr if self.schedule == "constant" else super().decayed(done)


class ProbeTask(nn.Module):
    """Loss = CE(tau W [f, 1]) on the frozen image features f, computed once; W starts at zero."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int, logit_scale: Tensor) -> None:
        super().__init__()
        self.features, self.labels, self.scale = with_one(features), labels, logit_scale
        self.rows = nn.Parameter(features.new_zeros(classes, self.features.shape[1]))

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        logits = zero_shot_logits(self.features[indices], self.rows, self.scale)
        ce = F.cross_entropy(logits, self.labels[indices])
        return {"loss": ce, "CE": ce}


class LinearProbe(Defense):
    """A linear classifier on the frozen image features (Radford et al., ICML 2021)."""

    name = "probe"
    summary = "a linear classifier on frozen features, by cross-entropy"
    Spec = ProbeSpec
    small = {"lr": 0.02, "schedule": "cosine", "epochs": 50}
    has_head = True

    @classmethod
    def run(cls, clip: Clip, data: Dataset, spec: Any, run: Run) -> Cleaned:
        names, labels = data.present()
        with torch.no_grad(), frozen(clip):
            features, scale = encode_set(clip, data), clip.logit_scale
        if spec.solver == "logistic":
            rows, history = _logistic(features, labels, scale, spec)
        else:
            task = ProbeTask(features, labels.to(features.device), len(names), scale)
            history = fit(task, len(data), spec, checkpoint=run.checkpoint, report=run.report)
            rows = task.rows.detach()
        facts = {"history": history, "trained_parameters": rows.numel()}
        return Cleaned(clip, head=Head(names, rows), facts=facts)


def _logistic(
    features: Tensor, labels: Tensor, scale: Tensor, spec: ProbeSpec
) -> tuple[Tensor, list[dict[str, float]]]:
    """The rows W of scikit-learn's multinomial logistic regression on tau f, the bias divided by tau."""
    from sklearn.linear_model import LogisticRegression

    solver = LogisticRegression(C=spec.inverse_penalty, tol=1e-6, max_iter=1000)  # the default of 1e-4 stops too early
    fitted = solver.fit((scale * features).cpu().double(), labels)
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:  # for two classes scikit-learn returns only the row of the second
        weight, bias = torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    rows = torch.cat([weight, bias[:, None] / scale.cpu()], dim=1).to(features)
    ce = F.cross_entropy(zero_shot_logits(with_one(features), rows, scale), labels.to(features.device))
    return rows, [{"loss": float(ce), "CE": float(ce)}]
