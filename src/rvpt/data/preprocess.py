"""CLIP's preprocessing: from images of any mode and shape to square uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor
from torch.nn import functional as F

from rvpt.errors import RvptError, first_line

AnyImage = Image.Image | Tensor | NDArray[Any] | str | Path

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)
SLACK = 1e-3  # by which resampled floats may leave [0, 1]
LONGEST = 50  # aspect ratio from which only the middle of an image is resized


def to_array(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """An image of any mode and shape as uint8 (3, size, size): shorter side resized (bicubic), center cropped.

    EXIF rotation is applied first. An alpha channel is dropped, not blended with a background, as CLIP's own
    preprocessing does.
    """
    image = _turned(image)
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


def _turned(image: Image.Image) -> Image.Image:
    """The image as its EXIF rotation says; as it is if its EXIF data are damaged."""
    try:
        return ImageOps.exif_transpose(image)
    except MemoryError:
        raise
    except Exception:  # of the EXIF data; damaged pixels raise again when they are converted
        return image


def _scaled_gray(image: Image.Image) -> Image.Image:
    """A 16-bit or float image as 8 bits; Pillow would clip it instead of scaling."""
    gray = np.asarray(image, dtype=np.float64)
    most = gray.max()
    top = 65535 if image.mode.startswith("I;16") or most > 255 else 1 if image.mode == "F" and most <= 1 else 255
    return Image.fromarray((gray * (255 / top)).clip(0, 255).astype(np.uint8))


def to_pixels(images: Sequence[AnyImage] | AnyImage, size: int) -> Tensor:
    """Images of any size as float32 (n, 3, size, size) in [0, 1]: PIL images, files, tensors (3, H, W), or arrays.

    Tensors and arrays are uint8, or float in [0, 1]. A single image or a batch (n, 3, H, W) is accepted too.

    Raises:
        RvptError: an entry is no such image.
    """
    one = isinstance(images, Image.Image | str | Path) or getattr(images, "ndim", 4) < 4
    several: Any = [images] if one else images
    arrays = [to_array(to_image(image), size) for image in several]
    if not arrays:
        return torch.zeros(0, 3, size, size)
    return torch.from_numpy(np.stack(arrays)).float() / 255


def to_image(image: Any) -> Image.Image:
    """An image as `to_pixels` accepts it as a PIL image."""
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str | Path):
        return _opened(Path(image))
    if isinstance(image, Tensor) and image.ndim == 3 and image.shape[0] == 3:
        return Image.fromarray(_bytes(image.detach().cpu().permute(1, 2, 0).numpy()))
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[0] == 3 and image.shape[2] not in (1, 3, 4):
        image = image.transpose(1, 2, 0)
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.shape[2] == 1:
        image = image[:, :, 0]
    if isinstance(image, np.ndarray) and (image.ndim == 2 or (image.ndim == 3 and image.shape[2] in (3, 4))):
        return Image.fromarray(_bytes(image))
    shape = f" of shape {tuple(image.shape)}" if hasattr(image, "shape") else ""
    raise RvptError(
        f"{type(image).__name__}{shape} is not an image: give PIL images, files, tensors (3, H, W) or arrays (H, W, 3)"
    )


def _opened(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except (OSError, SyntaxError, ValueError) as error:
        raise RvptError(f"{path} is not an image that can be read: {first_line(error)}") from None


def _bytes(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Pixel values as uint8: floats are in [0, 1], whole numbers in 0 to 255.

    Raises:
        RvptError: others, such as normalized values, which would be clipped.
    """
    most = 1 if np.issubdtype(values.dtype, np.floating) else 255
    if values.dtype == np.bool_:
        values, most = values.astype(np.uint8), 1
    if values.size and not (values.min() >= -SLACK and values.max() <= most + SLACK):
        raise RvptError(
            f"pixel values from {values.min():.4g} to {values.max():.4g} in {values.dtype}: give floats from 0 to 1, "
            "before normalization, or whole numbers from 0 to 255"
        )
    scaled = values * (255 / most) if most == 1 else values
    return np.ascontiguousarray(np.round(scaled).clip(0, 255).astype(np.uint8))


def resize(pixels: Tensor, size: int) -> Tensor:
    """Square uint8 images (B, 3, S, S) at another side, bicubic with antialiasing."""
    if pixels.shape[-1] == size:
        return pixels
    out = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    return out.round().clamp(0, 255).to(torch.uint8)
