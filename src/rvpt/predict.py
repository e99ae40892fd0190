"""Using a model: what it takes images for."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from rvpt.config import TEMPLATE
from rvpt.evaluation import Encoder
from rvpt.readers import to_array


@torch.inference_mode()
def probabilities(model: Encoder, pixels: Tensor, classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
    """softmax_k(tau cos(f(x_i), t_k)) of images (B, 3, S, S) in [0, 1]: (B, K), each row adding up to 1."""
    text = model.class_features(classes, template)
    return (model.logit_scale * model.encode_image(pixels.to(model.device)) @ text.T).softmax(1)


def classify(model: Encoder, images: Sequence[Image.Image], classes: Sequence[str], template: str = TEMPLATE) -> Tensor:
    """The probability of each class for each image of any size: (n, K) float32 on the CPU."""
    pixels = torch.from_numpy(np.stack([to_array(image, model.image_size) for image in images])).float() / 255
    return probabilities(model, pixels, classes, template).float().cpu()
