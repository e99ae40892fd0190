"""Each test of a command has an empty working directory."""

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The working directory, empty."""
    monkeypatch.chdir(tmp_path)
    return tmp_path
