"""CLIP's preprocessing: from images of any mode and shape to square uint8 images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

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
BICUBIC = int(Image.Resampling.BICUBIC)


@dataclass(frozen=True)
class Resizing:
    """How an image of any shape becomes square.

    `mode`: "shortest", whose shorter side becomes `resized`, and whose center is cropped; "squash", of which both
    sides become `resized`; "longest", whose longer side becomes the side of the result, with the rest filled.
    `resized`: by default the side of the result. `resample`: Pillow's number of a filter. `rounding`: of half pixels
    at a crop's border, "down" as in transformers, or "even" as in torchvision, open_clip and OpenAI's code. `fill`: the
    gray value, 0 to 255, that images are padded with.
    """

    mode: Literal["shortest", "squash", "longest"] = "shortest"
    resized: int | None = None
    resample: int = BICUBIC
    rounding: Literal["down", "even"] = "down"
    fill: int = 0


CLIP_RESIZING = Resizing()


class ImageSize(int):
    """The side of a model's images, and how images of other shapes become so.

    It is a number, so whatever passes on a model's `image_size` passes on its preprocessing too.
    """

    resizing: Resizing

    def __new__(cls, side: int, resizing: Resizing = CLIP_RESIZING) -> ImageSize:
        size = super().__new__(cls, side)
        size.resizing = resizing
        return size

    def __reduce__(self) -> tuple[type[ImageSize], tuple[int, Resizing]]:
        return ImageSize, (int(self), self.resizing)


def resizing_of(size: int) -> Resizing:
    """How images become `size`: CLIP's way, unless it is an ImageSize that says another."""
    return size.resizing if isinstance(size, ImageSize) else CLIP_RESIZING


def to_array(image: Image.Image, size: int) -> NDArray[np.uint8]:
    """An image of any mode and shape as uint8 (3, size, size), as an ImageSize says.

    By default the shorter side is resized (bicubic), and the center is cropped.

    EXIF rotation is applied first. An alpha channel is dropped, not blended with a background, as CLIP's own
    preprocessing does.
    """
    image = _turned(image)
    if image.mode.startswith("I") or image.mode == "F":
        image = _scaled_gray(image)
    return np.asarray(_square(image.convert("RGB"), int(size), resizing_of(size))).transpose(2, 0, 1)


def _square(image: Image.Image, size: int, how: Resizing) -> Image.Image:
    """An RGB image as one of size x size."""
    filter_, resized = Image.Resampling(how.resample), how.resized or size
    if how.mode == "longest":
        ratio = max(image.size) / size
        width, height = (max(1, round(side / ratio)) for side in image.size)  # rounded as in timm
        padded = Image.new("RGB", (size, size), (how.fill,) * 3)
        padded.paste(image.resize((width, height), filter_), ((size - width) // 2, (size - height) // 2))
        return padded
    short = min(image.size)
    width, height = (resized if how.mode == "squash" else int(resized * side / short) for side in image.size)
    left, top = _margin(width - size, how), _margin(height - size, how)
    if max(width, height) > LONGEST * size:  # resize only the middle: the whole image could fill the memory
        x, y = image.width / width, image.height / height
        return image.resize((size, size), filter_, (left * x, top * y, (left + size) * x, (top + size) * y))
    if image.size != (width, height):
        image = image.resize((width, height), filter_)
    return image.crop((left, top, left + size, top + size))


def _margin(over: int, how: Resizing) -> int:
    """The pixels on the first side of a crop, of `over` that are too many; if too few, they are below 0."""
    return round(over / 2) if how.rounding == "even" and over > 0 else over // 2


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
    if not (np.isfinite(most) and gray.min() >= 0):
        raise RvptError(f"its values are from {gray.min():g} to {most:g}: an image has finite ones from 0 on")
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
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
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
    """Square uint8 images (B, 3, S, S) at another side, bicubic with antialiasing, or as an ImageSize says."""
    how = resizing_of(size)
    if how.resample != BICUBIC or how.resized not in (None, size):
        images = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in pixels]
        return torch.from_numpy(np.stack([to_array(image, size) for image in images]))
    if pixels.shape[-1] == size:
        return pixels
    out = F.interpolate(pixels.float(), (size, size), mode="bicubic", antialias=True)
    return out.round().clamp(0, 255).to(torch.uint8)
