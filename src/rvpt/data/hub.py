"""The Hugging Face hub: asked once whether it answers, so that without a network nothing tries again for a minute."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock

from rvpt.errors import first_line

DOWN = (502, 503, 504)  # of a gateway without its server, which the client would ask again and again
_alone = RLock()  # threads that change the client's setting in turns could leave it changed


@contextmanager
def asking_hub() -> Iterator[str]:
    """Why the hub does not answer, or nothing; inside, its client uses only its cache if it does not.

    The client repeats each request that fails five times, with pauses that double. One request, with the client's own
    time limit (HF_HUB_ETAG_TIMEOUT), tells that there is no network.
    """
    from huggingface_hub import constants

    with _alone:
        silent, before = _silence(), constants.HF_HUB_OFFLINE
        constants.HF_HUB_OFFLINE = before or bool(silent)
        try:
            yield silent
        finally:
            constants.HF_HUB_OFFLINE = before


def _silence() -> str:
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        status = get_session().head(constants.ENDPOINT, timeout=constants.HF_HUB_ETAG_TIMEOUT).status_code
    except Exception as error:  # the client's own kinds differ between its versions
        return f"{constants.ENDPOINT} cannot be reached ({first_line(error)})"
    return f"{constants.ENDPOINT} answers with status {status}" if status in DOWN else ""


def missing(silent: str) -> str:
    """Where something that is neither a folder nor in the hub's cache may be, if the hub does not answer."""
    return f"no such folder here, and the hub cannot be asked ({silent}): check the name, or connect to the network"
