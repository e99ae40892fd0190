"""The synthetic dataset: reproducible, and labels, captions and images agree."""

import re
from dataclasses import replace
from itertools import permutations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rvpt.data.scenes import (
    ATTRIBUTES,
    CAPTIONS,
    COLORS,
    LEAST_CONTRAST,
    MOST_GRAIN,
    PLACES,
    SIZE,
    SIZES,
    SPOT_SIDES,
    SPOTS,
    Scenes,
    caption,
)

WORLD = Scenes.draw(60, seed=5)
IMAGES = WORLD.render(np.arange(60))
MANY = Scenes.draw(6000, seed=1)


def either(words):
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


COLOR = either(COLORS)
FIGURE = re.compile(
    rf"\b(?:(?P<size>{either(SIZES)}) )?(?:(?P<color>{COLOR}) )?(?P<shape>{either(ATTRIBUTES['shape'])})\b"
)
GROUND = re.compile(rf"\b(?:(?P<texture>{either(ATTRIBUTES['texture'])}) )?(?:(?P<background>{COLOR}) )?background\b")
PLACE = re.compile(rf"(?P<place>{either(PLACES)})\b")
SPOT = re.compile(rf" and a (?P<spot>(?:{COLOR}) square (?:{either(PLACES)}))\.$")
LOOK = re.compile(r"^a (?P<look>noisy|clear|faded|vivid) photo")


def named(text):
    """The attributes that a caption names, read without the code that wrote it; a spot has a place of its own."""
    text = SPOT.sub("", text)
    matches = [pattern.search(text) for pattern in (FIGURE, GROUND, PLACE)]
    return {name: word for match in matches if match for name, word in match.groupdict().items() if word}


def unworn(scenes):
    return replace(scenes, wear=np.zeros_like(scenes.wear))


def coverage(scenes, indices):
    """How much of each pixel the figures cover, float (B, 48, 48): white figures on plain black, rendered."""
    looks = {"color": "white", "background": "black", "texture": "plain"}
    same = {name: np.full(len(scenes), ATTRIBUTES[name].index(word)) for name, word in looks.items()}
    jitter = np.where(np.arange(scenes.jitter.shape[1]) < 6, scenes.jitter, 20)  # 20: the colors as they are
    plain = replace(unworn(scenes), attributes={**scenes.attributes, **same}, jitter=jitter)
    black, white = COLORS["black"][0], COLORS["white"][0]
    return (plain.render(indices)[:, 0].astype(float) - black) / (white - black)


def words_of(scenes, index):
    return {name: ATTRIBUTES[name][values[index]] for name, values in scenes.attributes.items()}


def one_scene(seed, **attributes):
    """A scene without wear, with some attributes set by their words."""
    drawn = unworn(Scenes.draw(1, seed))
    changed = {name: np.array([ATTRIBUTES[name].index(word)]) for name, word in attributes.items()}
    return replace(drawn, attributes={**drawn.attributes, **changed})


def plain_image(**attributes):
    plain = {"color": "white", "background": "black", "texture": "plain", "size": "medium", "place": PLACES[4]}
    return one_scene(3, **{**plain, **attributes}).render(np.array([0]))[0].astype(int)


def figure_pixels(pixels):
    """Where a plain scene's image is nearer to its extreme than to its background, its commonest color."""
    colors, counts = np.unique(pixels.reshape(3, -1).T, axis=0, return_counts=True)
    ground = colors[counts.argmax()]
    distance = np.abs(pixels - ground[:, None, None]).sum(0)
    return distance > distance.max() / 2, ground, pixels[:, distance == distance.max()].mean(1)


def test_the_same_seed_gives_the_same_scenes():
    again = Scenes.draw(60, seed=5)
    assert (again.render(np.arange(60)) == IMAGES).all()
    assert [again.captions(i) for i in range(60)] == [WORLD.captions(i) for i in range(60)]
    assert all((again.attributes[name] == values).all() for name, values in WORLD.attributes.items())


def test_another_seed_gives_other_scenes():
    other = Scenes.draw(60, seed=6)
    same = (other.render(np.arange(60)) == IMAGES).all(axis=(1, 2, 3))
    assert not same.any()
    assert [other.captions(i) for i in range(60)] != [WORLD.captions(i) for i in range(60)]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 59), min_size=1, max_size=12))
def test_an_image_is_the_same_in_any_order_and_batch(indices):
    assert (WORLD.render(np.array(indices)) == IMAGES[indices]).all()


def test_shapes_and_dtypes():
    assert IMAGES.shape == (60, 3, SIZE, SIZE)
    assert IMAGES.dtype == np.uint8
    assert WORLD.render(np.array([], dtype=np.int64)).shape == (0, 3, SIZE, SIZE)
    assert len(WORLD) == 60
    assert WORLD.attributes.keys() == ATTRIBUTES.keys()
    assert all(values.shape == (60,) and values.dtype == np.int64 for values in WORLD.attributes.values())
    assert all(len(WORLD.captions(i)) == CAPTIONS for i in range(60))


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_of_an_attribute_occurs_about_equally_often(name):
    counts = np.bincount(MANY.attributes[name], minlength=len(ATTRIBUTES[name]))
    expected = len(MANY) / len(ATTRIBUTES[name])
    assert len(counts) == len(ATTRIBUTES[name])
    assert (np.abs(counts - expected) < 5 * np.sqrt(expected)).all()


def test_the_figure_stands_out_from_the_background():
    step = (MANY.attributes["background"] - MANY.attributes["color"]) % len(COLORS)
    assert step.min() == 3
    assert step.max() == len(COLORS) - 3


def test_wear_fades_adds_grain_and_spots_and_spares_the_figure():
    clean = unworn(MANY).render(np.arange(300)).astype(int)
    worn = MANY.render(np.arange(300)).astype(int)
    assert (worn != clean).any(axis=(1, 2, 3)).mean() > 0.9
    grain = replace(MANY, wear=MANY.wear * (np.arange(MANY.wear.shape[1]) < 4))  # no spots
    difference = np.abs(grain.render(np.arange(300)) - clean)
    assert difference.max() <= (1 - LEAST_CONTRAST) * 128 + 5 * MOST_GRAIN
    spots = np.where(np.arange(MANY.wear.shape[1]) < 4, 0, MANY.wear).astype(np.float32)
    changed = (replace(MANY, wear=spots).render(np.arange(300)) != clean).any(axis=1)
    figure = coverage(MANY, np.arange(300))
    assert changed.any(axis=(1, 2)).mean() == pytest.approx(1 - 0.5**SPOTS, abs=0.1)
    assert not changed[figure == 1].any()
    assert changed.sum(axis=(1, 2)).max() <= SPOTS * SPOT_SIDES[1] ** 2


@given(
    st.fixed_dictionaries({name: st.sampled_from(words) for name, words in ATTRIBUTES.items()}),
    st.integers(0, 2**31 - 1),
)
def test_what_a_caption_names_is_true_and_the_shape_is_always_named(words, code):
    text = caption(words, code)
    found = named(text)
    assert found.items() <= words.items(), text
    assert "shape" in found, text


def test_captions_name_their_own_scene_and_each_attribute_now_and_then():
    found = [(index, named(text)) for index in range(600) for text in MANY.captions(index)]
    assert all(words.items() <= words_of(MANY, index).items() for index, words in found)
    for name in ATTRIBUTES.keys() - {"shape"}:
        assert 0.05 < np.mean([name in words for _, words in found]) < 0.9, name


def test_a_spot_that_a_caption_names_is_there():
    spots = np.where(np.arange(MANY.wear.shape[1]) < 4, 0, MANY.wear).astype(np.float32)
    pixels, figure = replace(MANY, wear=spots).render(np.arange(400)), coverage(MANY, np.arange(400))
    told = [(i, spot["spot"]) for i in range(400) for text in MANY.captions(i) if (spot := SPOT.search(text))]
    assert len(told) > 200
    for index, text in told:
        color, place = text.split(" square ")
        row, column = divmod(PLACES.index(place), 3)
        third = np.s_[..., 16 * row : 16 * row + 16, 16 * column : 16 * column + 16]
        seen = (pixels[index] == np.array(COLORS[color])[:, None, None]).all(0)
        assert seen[third].any() or figure[index][third].any(), (index, text)


def test_the_look_that_a_caption_names_is_strong():
    told = [(i, look["look"]) for i in range(900) for text in MANY.captions(i) if (look := LOOK.match(text))]
    for word, column, low, high in (
        ("noisy", 1, 0.75, 1), ("clear", 1, 0, 0.25), ("faded", 0, 0.75, 1), ("vivid", 0, 0, 0.25),
    ):  # fmt: skip
        strengths = [MANY.wear[index, column] for index, found in told if found == word]
        assert len(strengths) > 30
        assert low <= min(strengths) <= max(strengths) <= high


@pytest.mark.parametrize(("name", "other"), list(permutations(sorted(ATTRIBUTES.keys() - {"shape"}), 2)))
def test_an_attribute_may_be_named_without_another(name, other):
    found = (named(text) for index in range(600) for text in MANY.captions(index))
    assert any(name in words and other not in words for words in found)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_value_of_an_attribute_looks_different(name):
    taken = {"background": "white", "color": "black"}.get(name)
    values = [value for value in ATTRIBUTES[name] if value != taken]
    images = [plain_image(**{name: value}).tobytes() for value in values]
    assert len(set(images)) == len(values)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("size", SIZES)
def test_the_whole_figure_is_in_its_place(place, size):
    mask, *_ = figure_pixels(plain_image(place=place, size=size, shape="heart"))
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    assert 0 < rows[0] <= rows[-1] < SIZE - 1
    assert 0 < columns[0] <= columns[-1] < SIZE - 1
    third = PLACES.index(place)
    margin = SIZE - (columns[-1] - columns[0])
    down, right = (rows[0] / margin, columns[0] / margin)
    assert [int(np.clip(share * 3, 0, 2)) for share in (down, right)] == list(divmod(third, 3))


def test_larger_figures_cover_more():
    covered = [figure_pixels(plain_image(size=size))[0].sum() for size in ("small", "medium", "large")]
    assert covered[0] < covered[1] < covered[2]


@pytest.mark.parametrize("color", COLORS)
def test_colors_are_those_named(color):
    other = "white" if color == "black" else "black"
    _, ground, front = figure_pixels(plain_image(color=color, background=other, shape="heart"))
    assert np.abs(front - COLORS[color]).max() <= 21
    assert np.abs(ground - COLORS[other]).max() <= 21
