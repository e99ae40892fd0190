"""Registries: names without imports, entries imported when they are used, and new ones from outside."""

import sys

import pytest

from rvpt.attacks import TRIGGERS
from rvpt.data.shifts import SHIFTS
from rvpt.defenses import DEFENSES
from rvpt.errors import RvptError
from rvpt.evaluation import PROTOCOLS
from rvpt.evaluation.metrics import CLASSIFICATION
from rvpt.registry import Registry
from rvpt.training.pretrain import PRESETS

ALL = {registry.kind: registry for registry in (TRIGGERS, DEFENSES, PROTOCOLS, CLASSIFICATION, SHIFTS, PRESETS)}


@pytest.fixture
def lazy(tmp_path, monkeypatch):
    """A registry with one entry in a module that was not imported, and one that is there."""
    (tmp_path / "some_plugin.py").write_text("class Thing: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield Registry("thing", {"there": int, "later": "some_plugin:Thing"})
    sys.modules.pop("some_plugin", None)


def test_names_are_known_without_imports(lazy):
    assert list(lazy) == ["there", "later"]
    assert len(lazy) == 2
    assert "later" in lazy
    assert "never" not in lazy
    assert "some_plugin" not in sys.modules


def test_an_entry_is_imported_once_when_it_is_used(lazy):
    found = lazy["later"]
    assert found is sys.modules["some_plugin"].Thing
    del sys.modules["some_plugin"]
    assert lazy.find("later") is found
    assert lazy["there"] is int


def test_an_unknown_name_is_refused_with_those_that_are_known(lazy):
    with pytest.raises(RvptError, match=r"^unknown thing 'never': choose from there, later$"):
        lazy.find("never")
    with pytest.raises(KeyError):
        lazy["never"]
    assert lazy.get("never") is None


def test_entries_are_added_replaced_and_removed(lazy):
    lazy.register("new", str)
    lazy.register("there", "some_plugin:Thing")
    assert list(lazy) == ["there", "later", "new"]
    assert (lazy.find("new"), lazy["there"].__name__) == (str, "Thing")
    lazy.unregister("new")
    assert "new" not in lazy
    with pytest.raises(KeyError):
        lazy.unregister("new")


def test_two_registries_share_no_entries():
    entries = {"one": 1}
    first, second = Registry("thing", entries), Registry("thing", entries)
    first.register("two", 2)
    assert list(second) == list(entries) == ["one"]


@pytest.mark.parametrize("kind", ALL)
def test_every_entry_of_the_package_can_be_imported(kind):
    registry = ALL[kind]
    assert all(registry[name] is not None for name in registry)


@pytest.mark.parametrize("registry", [TRIGGERS, DEFENSES, PROTOCOLS], ids=lambda registry: registry.kind)
def test_every_class_has_the_name_that_it_is_registered_by(registry):
    assert [entry.name for entry in registry.values()] == list(registry)
