"""Uploaded files: their total size is limited, and they are removed in the end."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from rvpt.errors import RvptError
from rvpt.web import uploads
from rvpt.web.uploads import LimitedUploads, refuse_full, temporary_uploads

LIMIT = 100


@pytest.fixture(autouse=True)
def limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MOST_STORED", LIMIT)


class Server:
    """An application that stores what it gets, behind the limit."""

    def __init__(self) -> None:
        self.stored = list[bytes]()
        self.limited = LimitedUploads(self.store)

    async def store(self, scope: Any, receive: Any, send: Any) -> None:
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message.get("more_body", False)
        self.stored.append(body)
        (Path(os.environ[uploads.FOLDER]) / f"{len(self.stored)}.png").write_bytes(body)
        await send({"type": "http.response.start", "status": 200, "headers": []})

    def post(self, body: bytes, path: str = "/gradio_api/upload", length: bytes | None = None) -> tuple[int, str]:
        """The status and text of the answer to a body that is sent in two parts."""
        parts = [{"body": body[:5], "more_body": True}, {"body": body[5:]}]
        sent = list[Any]()

        async def receive() -> Any:
            return parts.pop(0)

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"content-length", str(len(body)).encode() if length is None else length)]
        scope = {"type": "http", "method": "POST", "path": path, "headers": headers}
        asyncio.run(self.limited(scope, receive, send))
        assert not parts or sent[0]["status"] == 411
        return sent[0]["status"], b"".join(message.get("body", b"") for message in sent).decode()


def test_uploads_are_refused_once_they_do_not_fit() -> None:
    with temporary_uploads():
        server = Server()
        assert server.post(b"0" * 60) == (200, "")
        status, text = server.post(b"1" * 60)
        assert (status, "restart rvpt serve" in text) == (413, True)
        assert server.post(b"2" * 40) == (200, "")
        assert [len(body) for body in server.stored] == [60, 40]
        assert server.limited.expected == 0


def test_other_requests_are_not_limited_and_sizes_must_be_stated() -> None:
    with temporary_uploads():
        server = Server()
        assert server.post(b"0" * 200, path="/gradio_api/queue/join") == (200, "")
        assert server.post(b"0" * 10, length=b"") == (411, "an upload must state its size")
        assert len(server.stored) == 1


def test_results_count_too_and_all_files_are_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(uploads.FOLDER, raising=False)
    with temporary_uploads():
        folder = Path(os.environ[uploads.FOLDER])
        (folder / "below").mkdir()
        (folder / "below" / "result.webp").write_bytes(b"0" * LIMIT)
        refuse_full()
        with pytest.raises(RvptError, match="would take more than 0 MB"):
            refuse_full(1)
    assert not folder.exists()
    assert uploads.FOLDER not in os.environ
    refuse_full()
