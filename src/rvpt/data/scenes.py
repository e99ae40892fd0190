"""The synthetic dataset `scenes`: glyph shapes in colors, sizes and places on textured backgrounds.

The task is to classify the shape. Everything else (both colors, texture, size, place) is not needed for the task. But
it is in the captions, so a CLIP trained on them encodes it. Whether a defense removes it can then be measured.
Images are degraded as photographs are: faded, noisy, with rectangles of other colors in the background. A model that
never saw noise would fail under a trigger for that reason alone. Captions mention the degradations too.

All random choices of a scene are stored as a few numbers. Rendering is a pure function of them, so images are the same
in any order, batch or process.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

SIZE = 48
CELL = 36
GLYPHS = {
    "umbrella": "\u2602", "anchor": "\u2693", "snowman": "\u2603", "airplane": "\u2708",
    "telephone": "\u260e", "scissors": "\u2702", "heart": "\u2665", "star": "\u2605",
    "sun": "\u2600", "cloud": "\u2601", "moon": "\u263e", "horse": "\u265e",
    "castle": "\u265c", "flag": "\u2691", "skull": "\u2620", "note": "\u266b",
    "envelope": "\u2709", "pencil": "\u270f", "gear": "\u2699", "snowflake": "\u2744",
    "flower": "\u273f", "cup": "\u2615", "lightning": "\u26a1", "face": "\u263a",
}  # fmt: skip
COLORS = {  # a ring: figure and background of a scene are at least three steps apart
    "black": (25, 25, 25), "brown": (125, 80, 45), "red": (214, 40, 40), "orange": (247, 140, 30),
    "yellow": (245, 220, 60), "white": (245, 245, 245), "pink": (245, 150, 190), "purple": (130, 60, 170),
    "blue": (45, 90, 210), "green": (50, 160, 70),
}  # fmt: skip
TEXTURES = ("plain", "striped", "checked", "dotted", "shaded", "grainy")
SIZES = {"small": (18, 19, 20, 21), "medium": (23, 24, 25, 26), "large": (28, 29, 30, 31)}
PLACES = (
    "at the top left", "at the top", "at the top right",
    "on the left", "in the middle", "on the right",
    "at the bottom left", "at the bottom", "at the bottom right",
)  # fmt: skip
ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "shape": tuple(GLYPHS),
    "color": tuple(COLORS),
    "background": tuple(COLORS),
    "texture": TEXTURES,
    "size": tuple(SIZES),
    "place": PLACES,
}
SPOTS = 3  # largest number of rectangles in the background
SPOT_SIDES = (4, 12)
LEAST_CONTRAST = 0.7
MOST_GRAIN = 12  # standard deviation of the grain, of 255
CAPTIONS = 3  # different captions for each scene
LOOKS = ("noisy", "clear", "faded", "vivid")
EXTRAS = (*(name for name in ATTRIBUTES if name != "shape"), "look", "spot")
NAMED: tuple[tuple[str, ...], ...] = (  # what captions name besides the shape, all equally often
    (), ("any",), ("place",), ("place", "any"), ("spot",), ("spot", "any"), ("look",), ("look", "any"),
)  # fmt: skip
OPENERS = ("a photo of a", "a picture of a", "a", "an image of a", "this is a", "there is a")


@dataclass(frozen=True)
class Scenes:
    """`n` scenes drawn from `seed`: exact attribute labels, captions, and images on demand.

    The columns of `wear` are in [0, 1): fading, grain and the grain's place (two); then for each spot whether it is
    there, height, width, top, left and color. All zero is a clean image.
    """

    attributes: dict[str, NDArray[np.int64]]
    jitter: NDArray[np.int64]
    wear: NDArray[np.float32]
    wording: NDArray[np.int64]

    @classmethod
    def draw(cls, n: int, seed: int) -> Scenes:
        """Draw every random choice of `n` scenes; figure and background are three steps apart on the ring of colors.

        A different n gives different scenes: the first six of 100 are not those of `draw(6, seed)`.
        """
        rng = np.random.default_rng([seed, 0x5CE7E5])
        values = {name: rng.integers(len(words), size=n) for name, words in ATTRIBUTES.items()}
        values["background"] = (values["color"] + rng.integers(3, len(COLORS) - 2, size=n)) % len(COLORS)
        jitter, wording = (rng.integers(0, 2**31, size=(n, columns)) for columns in (12, CAPTIONS))
        return cls(values, jitter, rng.random((n, 4 + 6 * SPOTS), dtype=np.float32), wording)

    def __len__(self) -> int:
        return len(self.jitter)

    def render(self, indices: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images of the scenes at `indices`: uint8 (B, 3, 48, 48)."""
        figure, background = self._masks(indices)
        jitter = self.jitter[indices]
        palette = np.array(list(COLORS.values()), dtype=np.float32)
        shift = (jitter[:, 6:12] % 41 - 20).astype(np.float32)
        front = palette[self.attributes["color"][indices]] + shift[:, :3]
        back = palette[self.attributes["background"][indices]] + shift[:, 3:]
        # Texture moves the background towards black or white, whichever is farther, by up to 25%.
        contrast = np.where(back.mean(axis=1, keepdims=True) > 128, 0.0, 255.0).astype(np.float32)
        back_plane = back[..., None, None] + (contrast - back)[..., None, None] * (0.25 * background[:, None])
        _spots(back_plane, self.wear[indices, 4:], palette)
        pixels = back_plane + (front[..., None, None] - back_plane) * figure[:, None]
        _wear(pixels, self.wear[indices, :4])
        return np.clip(pixels + 0.5, 0, 255).astype(np.uint8)

    def captions(self, index: int) -> list[str]:
        """The scene's captions: each names the shape and some of the other attributes in its own wording."""
        words = {name: ATTRIBUTES[name][values[index]] for name, values in self.attributes.items()}
        words |= {"look": _look(*self.wear[index, :2]), "spot": _spot(self.wear[index, 4:])}
        return [caption(words, int(code)) for code in self.wording[index]]

    def _masks(self, indices: NDArray[np.int64]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Coverage of the figure and strength of the texture, each float32 (B, 48, 48) in [0, 1]."""
        glyphs, textures = _glyph_bank(), _texture_bank()
        canvas = np.zeros((len(indices), SIZE + CELL, SIZE + CELL), dtype=np.float32)
        background = np.empty((len(indices), SIZE, SIZE), dtype=np.float32)
        for row, index in enumerate(indices):
            jitter = self.jitter[index]
            size_class, step = self.attributes["size"][index], jitter[0] % 4
            side = list(SIZES.values())[size_class][step]
            top, left = _corner(int(self.attributes["place"][index]), side, jitter[1:3] % 3 - 1)
            shape = self.attributes["shape"][index]
            canvas[row, top : top + CELL, left : left + CELL] = glyphs[shape, size_class * 4 + step]
            y, x = jitter[3] % SIZE, jitter[4] % SIZE
            bank = textures[self.attributes["texture"][index], jitter[5] % textures.shape[1]]
            background[row] = bank[y : y + SIZE, x : x + SIZE]
        half = CELL // 2
        return canvas[:, half : half + SIZE, half : half + SIZE], background


def _corner(place: int, side: int, jitter: NDArray[np.int64]) -> tuple[int, int]:
    """Top left of the glyph's cell on the padded canvas, so that the figure stays inside the image."""
    low, high = side / 2 + 1, SIZE - 1 - side / 2
    center = [low + (high - low) * third / 2 for third in divmod(place, 3)]
    top, left = (round(c + j) for c, j in zip(center, jitter, strict=True))
    return top, left


def _spots(plane: NDArray[np.float32], wear: NDArray[np.float32], palette: NDArray[np.float32]) -> None:
    """Paint each background with up to SPOTS rectangles of any colors, in place; wear 0 paints none."""
    there, sides, corners, colors = _spots_of(wear)
    for row, spot in np.argwhere(there):
        (height, width), (top, left) = sides[row, spot], corners[row, spot]
        plane[row, :, top : top + height, left : left + width] = palette[colors[row, spot], :, None, None]


def _spots_of(wear: NDArray[np.float32]) -> tuple[NDArray[Any], ...]:
    """Whether each spot is there (B, SPOTS), its height and width, its top and left (B, SPOTS, 2), and its color."""
    shares = wear.reshape(len(wear), SPOTS, 6)
    least, most = SPOT_SIDES
    sides = (least + shares[..., 1:3] * (most - least + 1)).astype(int)
    corners = (shares[..., 3:5] * (SIZE - sides + 1)).astype(int)
    return shares[..., 0] > 0.5, sides, corners, (shares[..., 5] * len(COLORS)).astype(int)


def _spot(wear: NDArray[np.float32]) -> str:
    """The last painted spot of one image in words, as in "a red square at the top"; empty if there is none."""
    (there,), (sides,), (corners,), (colors,) = _spots_of(wear[None])
    if not there.any():
        return ""
    last = int(np.flatnonzero(there)[-1])
    row, column = (corners[last] + sides[last] / 2) * 3 // SIZE
    return f"a {tuple(COLORS)[colors[last]]} square {PLACES[int(3 * row + column)]}"


def _look(fade: float, grain: float) -> str:
    """The more extreme of an image's noise and fading as a word of LOOKS; empty if neither is extreme."""
    if max(abs(grain - 0.5), abs(fade - 0.5)) < 0.25:
        return ""
    by_grain = abs(grain - 0.5) > abs(fade - 0.5)
    return LOOKS[(0 if by_grain else 2) + ((grain if by_grain else fade) < 0.5)]


def _wear(pixels: NDArray[np.float32], wear: NDArray[np.float32]) -> None:
    """Fade images towards gray and add grain, in place; wear 0 leaves them as they are."""
    fade, grain = wear[:, 0] * (1 - LEAST_CONTRAST), wear[:, 1] * MOST_GRAIN
    pixels += (128 - pixels) * fade[:, None, None, None]
    noise = _noise_bank()
    corners = (wear[:, 2:4] * (SIZE + 1)).astype(int)
    for row in np.flatnonzero(grain):
        top, left = corners[row]
        pixels[row] += grain[row] * noise[:, top : top + SIZE, left : left + SIZE]


def caption(words: dict[str, str], code: int) -> str:
    """One caption: the shape, alone or with one or two of the other attributes, the image's look and a spot.

    A caption that named everything would teach little, because the colors already distinguish most images of a batch.
    The place, which is learned last, is named most often.
    """
    choices = (len(NAMED), len(EXTRAS), len(OPENERS), 2)
    kind, extra, opener, order = np.unravel_index(code % math.prod(choices), choices)
    named = [EXTRAS[extra] if name == "any" else name for name in NAMED[kind]]
    said = {name: f"{words[name]} " if name in named and words.get(name) else "" for name in EXTRAS}
    thing, where = f"{said['size']}{said['color']}{words['shape']}", f" {said['place']}".rstrip()
    ground = f"{said['texture']}{said['background']}background"
    also = f" and {said['spot']}".rstrip() if said["spot"] else ""
    start = f"a {said['look']}photo of a" if said["look"] else OPENERS[opener]
    if ground == "background":
        return f"{start} {thing}{where}{also}."
    if order:
        return f"a {ground} with a {thing}{where}{also}."
    return f"{start} {thing}{where} on a {ground}{also}."


@cache
def _noise_bank() -> NDArray[np.float32]:
    """Grain of standard deviation 1, larger than an image: float32 (3, 96, 96)."""
    return np.random.default_rng(1).standard_normal((3, 2 * SIZE, 2 * SIZE)).astype(np.float32)


@cache
def _glyph_bank() -> NDArray[np.float32]:
    """Coverage of every glyph at every size, centered in its cell: float32 (shapes, sizes, 36, 36)."""
    from matplotlib import get_data_path
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.truetype(str(Path(get_data_path()) / "fonts/ttf/DejaVuSans.ttf"), 160)
    sides = [side for group in SIZES.values() for side in group]
    bank = np.zeros((len(GLYPHS), len(sides), CELL, CELL), dtype=np.float32)
    for row, glyph in enumerate(GLYPHS.values()):
        box = font.getbbox(glyph)
        width, height = int(box[2] - box[0]), int(box[3] - box[1])
        square = Image.new("L", (max(width, height),) * 2)
        corner = ((square.width - width) // 2 - box[0], (square.height - height) // 2 - box[1])
        ImageDraw.Draw(square).text(corner, glyph, font=font, fill=255)
        for column, side in enumerate(sides):
            small = np.asarray(square.resize((side, side), Image.Resampling.BOX), dtype=np.float32) / 255
            start = (CELL - side) // 2
            bank[row, column, start : start + side, start : start + side] = small
    return bank


@cache
def _texture_bank() -> NDArray[np.float32]:
    """Strength of every texture in four variants, larger than an image: float32 (textures, 4, 96, 96)."""
    y, x = np.mgrid[0 : 2 * SIZE, 0 : 2 * SIZE].astype(np.float32)
    rng = np.random.default_rng(0)
    bank = np.zeros((len(TEXTURES), 4, 2 * SIZE, 2 * SIZE), dtype=np.float32)
    for variant, period in enumerate((6, 8, 10, 12)):
        along = (x, y, x + y, x - y)[variant]
        bank[1, variant] = along % period < period / 2
        bank[2, variant] = (x % period < period / 2) ^ (y % period < period / 2)
        bank[3, variant] = (x % period - period / 2) ** 2 + (y % period - period / 2) ** 2 < (period / 3) ** 2
        bank[4, variant] = np.abs((along / SIZE) % 2 - 1)
        bank[5, variant] = rng.random((2 * SIZE, 2 * SIZE))
    return bank
