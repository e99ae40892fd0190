"""The Python in README.md, the guides, the package's docstring and the model cards runs, on tiny data."""

import re
import shutil
from pathlib import Path

import pytest
from PIL import Image

import rvpt
from rvpt.attacks import TRIGGERS
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.metrics import CLASSIFICATION
from rvpt.modifications import MODIFICATIONS

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)  # not those marked "python no-run"
REGISTRIES = (TRIGGERS, DEFENSES, PROTOCOLS, CLASSIFICATION, SHIFTS, MODIFICATIONS)
IMAGES = {"train": 20, "test": 6}  # per class


@pytest.fixture
def registries():
    """What examples register is removed again."""
    before = [set(registry) for registry in REGISTRIES]
    yield
    for registry, names in zip(REGISTRIES, before, strict=True):
        for name in set(registry) - names:
            registry.unregister(name)


@pytest.fixture
def world(tiny, tmp_path, monkeypatch, registries):
    """A folder with path/to/clip, a tiny model, and path/to/images, a few images of two classes."""
    shutil.copytree(tiny.clip, tmp_path / "path" / "to" / "clip")
    for split, count in IMAGES.items():
        for name, color in (("cat", (200, 60, 40)), ("dog", (40, 60, 200))):
            folder = tmp_path / "path" / "to" / "images" / split / name
            folder.mkdir(parents=True)
            for number in range(count):
                Image.new("RGB", (50 + number, 48), tuple(c + number for c in color)).save(folder / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def python(page):
    return BLOCK.findall(page.read_text(encoding="utf-8"))


def run(blocks, name, **namespace):
    """Run blocks of code one after the other, with the same names."""
    for number, block in enumerate(blocks, 1):
        exec(compile(block, f"{name}, block {number}", "exec"), namespace)
    return namespace


@pytest.mark.parametrize("page", [page for page in PAGES if python(page)], ids=lambda page: page.stem)
def test_the_python_of_a_page_runs(page, world):
    run(python(page), page.name)
    for kind in (*TRIGGERS.values(), *DEFENSES.values(), *PROTOCOLS.values()):
        assert kind.summary  # the line in lists of the command line, also of what a guide adds


def test_the_readme_has_python():
    assert python(PAGES[0])


def test_the_example_in_the_docstring_of_the_package_runs(world):
    example = rvpt.__doc__[rvpt.__doc__.index("import rvpt\n") :]
    made = run([example], "rvpt.__doc__")
    assert (world / "cleaned" / "rvpt_config.json").is_file()
    assert {row["metric"] for row in made["rows"]} >= {"CA"}


@pytest.mark.parametrize("kind", ["clip", "cleaned"])
def test_the_example_in_a_model_card_runs(kind, tiny):
    folder = getattr(tiny, kind)
    blocks = [block.replace("path/to/this/folder", str(folder)) for block in python(folder / "README.md")]
    assert str(folder) in blocks[0]
    made = run(blocks, "README.md", images=[Image.new("RGB", (60, 50))])
    assert type(made["model"]).__name__ == {"clip": "CLIPModel", "cleaned": "Cleaned"}[kind]
