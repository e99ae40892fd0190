"""Where the page keeps uploaded files: a temporary folder of limited size."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rvpt.errors import RvptError

MOST_STORED = 2**30  # bytes of all files of the page, together
FOLDER = "GRADIO_TEMP_DIR"  # the variable from which gradio reads the folder
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


@contextmanager
def temporary_uploads() -> Iterator[None]:
    """A folder for the files of pages that are built inside the block; it is deleted in the end."""
    with TemporaryDirectory(prefix="rvpt-serve-") as folder, environment(**{FOLDER: folder}):
        yield


@contextmanager
def environment(**values: str) -> Iterator[None]:
    """Environment variables while the block runs."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def refuse_full(more: int = 0) -> None:
    """Refuse to keep more files, of `more` bytes, than the folder may have.

    Raises:
        RvptError: they do not fit.
    """
    folder = os.environ.get(FOLDER)
    stored = sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file()) if folder else 0
    if stored + more > MOST_STORED:
        raise RvptError(
            f"the files of this page would take more than {MOST_STORED >> 20} MB: "
            "give fewer, or restart rvpt serve, which removes them"
        )


class LimitedUploads:
    """An ASGI application that refuses uploads which do not fit, before they are stored."""

    def __init__(self, app: Callable[[Message, Receive, Send], Awaitable[None]]) -> None:
        self.app = app
        self.expected = 0  # bytes of the uploads that are being read

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].endswith("/upload"):
            await self.app(scope, receive, send)
            return
        size = dict(scope["headers"]).get(b"content-length", b"")
        if not size.isdigit():
            await _answer(send, 411, "an upload must state its size")
            return
        try:
            refuse_full(self.expected + int(size))
        except RvptError as error:
            while (await receive()).get("more_body"):  # browsers read the answer only then
                pass
            await _answer(send, 413, str(error))
            return
        self.expected += int(size)
        try:
            await self.app(scope, receive, send)
        finally:
            self.expected -= int(size)


async def _answer(send: Send, status: int, text: str) -> None:
    headers = [(b"content-type", b"text/plain; charset=utf-8")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text.encode()})
