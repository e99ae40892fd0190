"""What an encoder encodes: how well attributes of pictures can be read off its image features."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.data import ImageData
from rvpt.evaluation import Encoder
from rvpt.metrics import Rate


def linear_readability(features: Tensor, labels: Tensor, seed: int = 0) -> Rate:
    """Accuracy of logistic regression that reads labels off features, trained on one half, counted on the other.

    Args:
        features: (n, P) float.
        labels: (n,) int64.
        seed: which half is which.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    order = torch.randperm(len(features), generator=torch.Generator().manual_seed(seed))
    x, y = features[order].numpy(), labels[order].numpy()
    half = len(x) // 2
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x[:half], y[:half])
    return Rate(int((probe.predict(x[half:]) == y[half:]).sum()), len(x) - half)


@torch.inference_mode()
def encode_all(model: Encoder, data: ImageData, batch_size: int = 256) -> Tensor:
    """Unit image features (n, P) of a whole set, on the CPU."""
    batches = data.batches(batch_size, model.image_size)
    return torch.cat([model.encode_image(pixels.to(model.device)).cpu() for _, pixels in batches])


def attribute_readability(model: Encoder, data: ImageData) -> dict[str, Rate]:
    """Linear readability of every attribute that the data set is labelled with."""
    features = encode_all(model, data)
    return {name: linear_readability(features, labels) for name, labels in data.attributes.items()}
