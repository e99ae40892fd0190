"""rvpt serve: what it refuses before it listens. tests/web/test_browser.py opens the page."""

import sys

import pytest

from commands import has, refused
from rvpt.cli.serve import is_local


def test_addresses_that_only_this_computer_reaches():
    assert [is_local(host) for host in ("127.0.0.1", "localhost", "::1", "0.0.0.0", "192.168.1.2")] == [
        True, True, True, False, False,
    ]  # fmt: skip


def test_what_is_no_address_is_refused():
    has(refused("serve", "a", "b", "--host", "example"), "--host example is not an address")


def test_it_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "gradio", None)
    has(refused("serve", "a", "b"), "the page needs gradio: pip install 'rvpt[web]'")


def test_a_missing_model_is_named():
    pytest.importorskip("gradio")
    has(refused("serve", "./nothing", "b"), "nothing")
