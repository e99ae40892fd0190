"""Protocols: each takes the settings that it has a use for and refuses those of others."""

from itertools import product

import pytest
from typer.main import get_command

from rvpt.cli.app import app
from rvpt.errors import RvptError
from rvpt.jobs import HeldOut
from rvpt.jobs.protocols import PROTOCOLS

VALUES = {"target": "owl", "template": "{}", "captioner": "llava", "prompt": "<image>?", "epsilon": 4.0}
NEEDED = {"captioning": {"captioner": "llava"}}


def test_every_option_of_a_protocol_is_tried_here():
    assert set(VALUES) == {option for protocol in PROTOCOLS.values() for option in protocol.options}


@pytest.mark.parametrize(("protocol", "option"), list(product(PROTOCOLS, VALUES)))
def test_a_protocol_takes_its_own_options_and_no_others(protocol, option):
    asked = {"data": "scenes", "protocol": protocol, **NEEDED.get(protocol, {}), option: VALUES[option]}
    if option in PROTOCOLS[protocol].options:
        assert getattr(HeldOut.build(**asked), option) == VALUES[option]
    else:
        with pytest.raises(RvptError, match=f"{option}: the protocol {protocol} has no use for it"):
            HeldOut.build(**asked)


def test_the_command_names_all_of_them():
    option = next(p for p in get_command(app).commands["evaluate"].params if p.name == "protocol")
    assert [name for name in PROTOCOLS if name not in option.help] == []
