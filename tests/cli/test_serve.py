"""rvpt serve: what it refuses before it listens. tests/web/test_browser.py opens the page."""

import socket
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


@pytest.fixture
def port():
    """A free port."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = server.getsockname()[1]
    return free


def test_it_names_the_extra(monkeypatch, port):
    monkeypatch.setitem(sys.modules, "gradio", None)
    has(refused("serve", "a", "b", "--port", port), "the page needs gradio: pip install 'rvpt[web]'")


def test_a_missing_model_is_named(port):
    pytest.importorskip("gradio")
    has(refused("serve", "./nothing", "b", "--port", port), "nothing")


def test_a_port_that_is_taken_is_refused_before_models_are_loaded():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        has(refused("serve", "./nothing", "b", "--port", port), f"--port {port} of 127.0.0.1 cannot be used (Address")
