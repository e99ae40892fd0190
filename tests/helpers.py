"""Small things that several test files build."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from rvpt.data.dataset import Dataset
from rvpt.data.preprocess import resize
from rvpt.models.clip import Clip
from rvpt.training.pretrain import VisionSpec, new_clip, train_tokenizer

MakeClip = Callable[..., Clip]
"""make_clip(seed=0, **vision), as `random_clip`."""
SMALL = {
    "image_size": 48, "patch_size": 16, "width": 32, "blocks": 4, "heads": 2,
    "text_width": 32, "text_blocks": 1, "projection": 24,
}  # fmt: skip
CAPTIONS = (
    "a photo of a umbrella.",
    "a red star on a striped blue background.",
    "a picture of a small green anchor in the middle.",
    "an image of a large heart on the left.",
)


@cache
def tokenizer() -> Any:
    return train_tokenizer(CAPTIONS, 300)


def random_clip(seed: int = 0, **vision: Any) -> Clip:
    """A new random CLIP; `vision` overrides SMALL."""
    clip = new_clip(VisionSpec(**{**SMALL, **vision}), tokenizer(), seed)
    _roughen(clip, seed)
    return clip.eval()


def _roughen(clip: Clip, seed: int) -> None:
    """Move every weight: fresh models have zero biases and unit norms, which would hide a forgotten one."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))


def random_pixels(n: int, side: int, seed: int = 0) -> Tensor:
    """Float images (n, 3, side, side) in [0, 1)."""
    return torch.rand(n, 3, side, side, generator=torch.Generator().manual_seed(seed))


def random_image(width: int, height: int, seed: int = 0) -> Image.Image:
    """An image of random colors."""
    values = torch.randint(256, (height, width, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    return Image.fromarray(values.numpy())


def assert_near(fast: Tensor, slow: Tensor, tolerance: float = 1e-5) -> None:
    """No entry differs by more than `tolerance` of the largest, so that small gradients are checked too."""
    assert fast.shape == slow.shape
    largest = slow.abs().max().item()
    assert largest > 0
    assert (fast - slow).abs().max().item() <= tolerance * largest


def changed_alike(change: Callable[[Tensor, Tensor], Tensor], pixels: Tensor, rows: Tensor) -> Tensor:
    """What `change` makes of images, after checking that it does so in any order and in batches of one."""
    whole, order = change(pixels, rows), torch.arange(len(rows)).roll(2).flip(0)
    torch.testing.assert_close(change(pixels[order], rows[order]), whole[order], rtol=0, atol=1e-6)
    single = torch.cat([change(pixels[i : i + 1], rows[i : i + 1]) for i in range(len(rows))])
    torch.testing.assert_close(single, whole, rtol=0, atol=1e-6)
    return whole


def memory_data(
    n: int,
    labels: Sequence[int] | None = None,
    classes: Sequence[str] = (),
    captions: Sequence[list[str]] | None = None,
    seed: int = 0,
) -> Dataset:
    """`n` random images of 16x16 in memory; all equal with the same seed."""
    store = (random_pixels(n, 16, seed) * 256).to(torch.uint8)
    return Dataset(
        "memory",
        lambda rows, size: resize(store[rows], size),
        torch.arange(n),
        None if labels is None else torch.tensor(labels),
        tuple(classes),
        None if captions is None else captions.__getitem__,
    )


def image_folder(folder: Path, split: str = "test", n: int = 2) -> Path:
    """A folder of images as SPLIT/CLASS/0.png, of the classes cat (red) and dog (blue), `n` each."""
    for name, color in (("cat", "red"), ("dog", "blue")):
        (folder / split / name).mkdir(parents=True)
        for number in range(n):
            Image.new("RGB", (20 + number, 30), color).save(folder / split / name / f"{number}.png")
    return folder


def broken_folder(folder: Path) -> Path:
    """Three images of each of two classes in each split, of which one of each class cannot be read."""
    for split in ("train", "test"):
        image_folder(folder, split, n=3)
        for name in ("cat", "dog"):
            (folder / split / name / "1.png").write_bytes(b"<html>404</html>")
    return folder


def contents(folder: Path) -> dict[str, bytes | None]:
    """All that is in a folder: the bytes of files, None for folders."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")
    }


def place_images(folder: Path, *places: str) -> Path:
    """Small images in a folder; returns the folder."""
    for place in places:
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(folder / place)
    return folder


def encoded(color: str = "red", kind: str = "PNG") -> bytes:
    """The bytes of a small image."""
    buffer = BytesIO()
    Image.new("RGB", (8, 8), color).save(buffer, kind)
    return buffer.getvalue()


def class_counts(data: Dataset) -> dict[str, int]:
    """How many images each class has."""
    return dict(zip(data.classes, data.labeled().bincount(minlength=len(data.classes)).tolist(), strict=True))
