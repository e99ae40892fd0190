"""What an encoder encodes: how well attributes of pictures can be read off its image features."""

from __future__ import annotations

import torch
from torch import Tensor

from rvpt.data import ImageData
from rvpt.evaluation import Encoder
from rvpt.metrics import Rate


def linear_readability(seen: tuple[Tensor, Tensor], held_out: tuple[Tensor, Tensor]) -> Rate:
    """Accuracy of logistic regression that reads labels off features, trained on `seen`, counted on `held_out`.

    Args:
        seen, held_out: features (n, P) float and labels (n,) int64.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    (x, y), (features, labels) = ([part.numpy() for part in pair] for pair in (seen, held_out))
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)).fit(x, y)
    return Rate(int((probe.predict(features) == labels).sum()), len(labels))


@torch.inference_mode()
def encode_all(model: Encoder, data: ImageData, batch_size: int = 256) -> Tensor:
    """Unit image features (n, P) of a whole set, on the CPU."""
    batches = data.batches(batch_size, model.image_size)
    return torch.cat([model.encode_image(pixels.to(model.device)).cpu() for _, pixels in batches])


def attribute_readability(model: Encoder, seen: ImageData, held_out: ImageData) -> dict[str, Rate]:
    """Linear readability of every attribute that the sets are labelled with, learnt on one and counted on the other."""
    features, others = encode_all(model, seen), encode_all(model, held_out)
    return {
        name: linear_readability((features, labels), (others, held_out.attributes[name]))
        for name, labels in seen.attributes.items()
    }
