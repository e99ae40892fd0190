"""Linear probe: a classifier on the frozen image features."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from rvpt.checkpoint import Checkpoint
from rvpt.clip import Clip
from rvpt.config import ProbeSpec
from rvpt.data import ImageData
from rvpt.defenses.cleaned import Cleaned, Head, with_one
from rvpt.losses import zero_shot_logits
from rvpt.progress import Report
from rvpt.train import fit, frozen

ENCODE_BATCH = 256


class LinearProbe(nn.Module):
    """CE(tau W [f, 1]) on the image features f, which are constants of the few-shot set; W starts at zero."""

    def __init__(self, features: Tensor, labels: Tensor, classes: int, logit_scale: Tensor) -> None:
        super().__init__()
        self.features, self.labels, self.scale = with_one(features), labels, logit_scale
        self.rows = nn.Parameter(features.new_zeros(classes, self.features.shape[1]))

    def forward(self, indices: Tensor, generator: torch.Generator, done: float) -> dict[str, Tensor]:
        logits = zero_shot_logits(self.features[indices], self.rows, self.scale)
        ce = F.cross_entropy(logits, self.labels[indices])
        return {"loss": ce, "CE": ce}


def probe(clip: Clip, few_shot: ImageData, spec: ProbeSpec, checkpoint: Checkpoint | None, report: Report) -> Cleaned:
    """Fit a linear classifier to the frozen features of labeled images."""
    names, labels = few_shot.present()
    with torch.no_grad(), frozen(clip):
        batches = few_shot.batches(ENCODE_BATCH, clip.image_size)
        features = torch.cat([clip.encode_image(pixels) for _, pixels in batches])
        scale = clip.logit_scale
    if spec.solver == "logistic":
        rows, history = _logistic(features, labels, scale, spec)
    else:
        task = LinearProbe(features, labels.to(features.device), len(names), scale)
        history = fit(task, len(few_shot), spec, checkpoint=checkpoint, report=report)
        rows = task.rows.detach()
    facts = {"history": history, "trained_parameters": rows.numel()}
    return Cleaned(clip, head=Head(names, rows), facts=facts)


def _logistic(
    features: Tensor, labels: Tensor, scale: Tensor, spec: ProbeSpec
) -> tuple[Tensor, list[dict[str, float]]]:
    """The rows W of scikit-learn's multinomial logistic regression on tau f, the bias divided by tau."""
    from sklearn.linear_model import LogisticRegression

    solver = LogisticRegression(C=spec.inverse_penalty, tol=1e-6, max_iter=1000)  # 1e-4, the usual, stops short
    fitted = solver.fit((scale * features).cpu().double(), labels)
    weight, bias = torch.from_numpy(fitted.coef_), torch.from_numpy(fitted.intercept_)
    if len(weight) == 1:  # of two classes scikit-learn keeps the second alone
        weight, bias = torch.cat([torch.zeros_like(weight), weight]), torch.cat([torch.zeros_like(bias), bias])
    rows = torch.cat([weight, bias[:, None] / scale.cpu()], dim=1).to(features)
    ce = F.cross_entropy(zero_shot_logits(with_one(features), rows, scale), labels.to(features.device))
    return rows, [{"loss": float(ce), "CE": float(ce)}]
