"""CLIP's preprocessing: from images of any mode and shape to square uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from rvpt.errors import RvptError

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
LONGEST = 50  # aspect ratio from which only the middle of an image is resized


def to_array(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """An image of any mode and shape as uint8 (3, size, size): shorter side resized (bicubic), center cropped.

    EXIF rotation is applied first.
    """
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled_gray(image)
    image = image.convert("RGB")
    short = min(image.size)
    width, height = (int(size * side / short) for side in image.size)  # rounded as in transformers
    left, top = (width - size) // 2, (height - size) // 2
    if max(width, height) > LONGEST * size:  # resize only the middle: the whole image could fill the memory
        x, y = image.width / width, image.height / height
        box = (left * x, top * y, (left + size) * x, (top + size) * y)
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box)).transpose(2, 0, 1)
    if image.size != (width, height):
        image = image.resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image.crop((left, top, left + size, top + size))).transpose(2, 0, 1)


def _scaled_gray(image: Image.Image) -> Image.Image:
    """A 16-bit or float image as 8 bits; Pillow would clip it instead of scaling."""
    gray = np.asarray(image, dtype=np.float64)
    most = gray.max()
    top = 65535 if image.mode.startswith("I;16") or most > 255 else 1 if image.mode == "F" and most <= 1 else 255
    return Image.fromarray((gray * (255 / top)).clip(0, 255).astype(np.uint8))


def to_pixels(images: Sequence[Image.Image | Tensor] | Image.Image | Tensor, size: int) -> Tensor:
    """Images of any size as float32 (n, 3, size, size) in [0, 1]: PIL images, or tensors (3, H, W).

    Tensors are uint8, or float in [0, 1]. A single image or a batch (n, 3, H, W) is accepted too.

    Raises:
        RvptError: an entry is neither a PIL image nor such a tensor.
    """
    one = isinstance(images, Image.Image) or (isinstance(images, Tensor) and images.ndim == 3)
    several: Any = [images] if one else images
    arrays = [to_array(to_image(image), size) for image in several]
    if not arrays:
        return torch.zeros(0, 3, size, size)
    return torch.from_numpy(np.stack(arrays)).float() / 255


def to_image(image: Image.Image | Tensor) -> Image.Image:
    """A PIL image, or a tensor as `to_pixels` accepts it, as a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
        raise RvptError(f"{type(image).__name__} is not an image: give PIL images or tensors (3, H, W)")
    pixels = image.detach().cpu()
    if pixels.is_floating_point():
        pixels = (pixels * 255).round().clamp(0, 255)
    return Image.fromarray(pixels.to(torch.uint8).permute(1, 2, 0).contiguous().numpy())


def resize(pixels: Tensor, size: int) -> Tensor:
    """Square uint8 images (B, 3, S, S) at another side, bicubic with antialiasing."""
    if pixels.shape[-1] == size:
        return pixels
    out = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    return out.round().clamp(0, 255).to(torch.uint8)
