"""The table of layouts in the docs names tests that exist, and every layout of the registry is read in it."""

import re
from pathlib import Path

import pytest

from rvpt.models.formats import FORMATS

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "guides" / "models.md").read_text(encoding="utf-8")
CODE = {path: path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py")}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+\.py)`", PAGE))))
def test_a_file_of_tests_that_the_docs_name_is_there(name):
    assert name in {path.name for path in CODE}


@pytest.mark.parametrize("name", sorted(set(re.findall(r"`(test_\w+)[`\[]", PAGE))))
def test_a_test_that_the_docs_name_is_there(name):
    assert any(f"def {name}(" in code for code in CODE.values())


def test_every_layout_has_the_two_methods():
    assert [name for name, layout in FORMATS.items() if not (layout.recognizes and layout.open)] == []
    assert list(FORMATS) == ["open_clip-name", "file", "transformers", "open_clip"]
