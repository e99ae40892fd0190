"""One image before and after cleaning: predictions, attention maps, and whether the monitor flags it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image
from torch import Tensor

from rvpt.attacks.trigger import Trigger
from rvpt.data.preprocess import to_image, to_pixels
from rvpt.detection.monitor import Monitor
from rvpt.errors import RvptError
from rvpt.insight.attention import as_maps, attention_weights, cls_attention
from rvpt.models.classifier import Classifier
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip

NONE, PATCH = "no trigger", "patch"
BEST = 5  # classes
MOST_CLASSES = 1_000
SHOWN = 384  # pixels, the side of images in the page


@dataclass(frozen=True)
class Patch:
    """A square of one color (red, green, blue): its side and the place of its center, as shares of the image."""

    side: float = 0.15
    across: float = 0.9
    down: float = 0.9
    color: tuple[float, float, float] = (1.0, 0.0, 1.0)

    def __call__(self, pixels: Tensor) -> Tensor:
        """Images (B, 3, S, S) with the patch, as far as it is inside of them."""
        size, changed = pixels.shape[-1], pixels.clone()
        half = max(1, round(self.side * size)) / 2
        places = self.down, self.across
        spans = [slice(max(0, round(at * size - half)), max(0, round(at * size + half))) for at in places]
        changed[:, :, spans[0], spans[1]] = pixels.new_tensor(self.color).view(3, 1, 1)
        return changed


@dataclass(frozen=True)
class Side:
    """What one model says: the most probable classes, and a map of its attention if it has one."""

    best: dict[str, float]
    attention: Image.Image | None


@dataclass(frozen=True)
class Compared:
    """The image as the models see it, what both say, and whether the monitor flags it (None without a monitor)."""

    shown: Image.Image
    before: Side
    after: Side
    flagged: bool | None


@dataclass
class Comparison:
    """A suspect and its cleaned model.

    Args:
        suspect: the model before.
        cleaned: the model after.
        triggers: by name, which can be stamped on images.
        monitor: already fitted, if images are to be flagged.
    """

    suspect: Clip | Cleaned
    cleaned: Clip | Cleaned
    triggers: Mapping[str, Trigger] = field(default_factory=dict)
    monitor: Monitor | None = None

    def stamped(self, image: Image.Image, trigger: str = NONE, patch: Patch | None = None) -> Tensor:
        """The image as pixels (1, 3, S, S) in [0, 1], with a trigger or a patch."""
        pixels = to_pixels([image], self.suspect.image_size)
        if trigger == PATCH:
            return (patch or Patch())(pixels)
        return pixels if trigger == NONE else self.triggers[trigger](pixels)

    def compare(
        self, image: Image.Image, classes: Sequence[str], trigger: str = NONE, patch: Patch | None = None
    ) -> Compared:
        """Both models on one image."""
        pixels = self.stamped(image, trigger, patch)
        before, after = (self._side(model, pixels, classes) for model in (self.suspect, self.cleaned))
        flagged = None if self.monitor is None else bool(self.monitor([pixels[0]])[0])
        return Compared(enlarged(to_image(pixels[0])), before, after, flagged)

    def _side(self, model: Clip | Cleaned, pixels: Tensor, classes: Sequence[str]) -> Side:
        values, places = Classifier(model, classes).probabilities(pixels)[0].topk(min(BEST, len(classes)))
        best = {classes[place]: float(value) for place, value in zip(places.tolist(), values, strict=True)}
        return Side(best, attention_image(model, pixels))


def attention_image(model: Clip | Cleaned, pixels: Tensor) -> Image.Image | None:
    """The last block's [CLS] attention over an image (1, 3, S, S) in gray; None for models without blocks."""
    from matplotlib import colormaps

    try:
        weights = attention_weights(model, pixels.to(model.device))
    except RvptError:  # it has no transformer blocks
        return None
    maps = as_maps(cls_attention(weights[-1])).cpu()
    shares = (maps - maps.amin()) / (maps.amax() - maps.amin()).clamp(min=1e-12)
    heat = Image.fromarray((255 * colormaps["inferno"](shares[0].numpy())[..., :3]).astype("uint8"))
    gray = enlarged(to_image(pixels[0]).convert("L").convert("RGB"))
    return Image.blend(gray, heat.resize(gray.size, Image.Resampling.NEAREST), 0.6)


def enlarged(image: Image.Image) -> Image.Image:
    """A small image large enough to be looked at, with its pixels as they are."""
    factor = max(1, SHOWN // image.width)
    return image.resize((factor * image.width, factor * image.height), Image.Resampling.NEAREST)


def class_names(text: str) -> list[str]:
    """The class names in a text, one on each line.

    Raises:
        RvptError: fewer than two different names, or more than `MOST_CLASSES`.
    """
    names = list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise RvptError(f"give 2 to {MOST_CLASSES} different class names, one on each line; these are {len(names)}")
    return names
