"""How two runs differ, in words: settings with both values, written as in Python."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

WORDS = {
    "model": "another model", "start": "another model to start from",
    "classes": "other classes", "calibration": "another calibration", "reference": "another reference",
    "triggers": "other triggers or targets", "num_images": "another number of images",
    "skipped": "other unreadable images",
}  # fmt: skip
"""What a run depends on besides settings that users give, or with values that nobody could compare."""
NOTHING: tuple[Any, ...] = (None, "", [], {})
MOST = 6  # differences that are told


def differences(before: Any, now: Any) -> str:
    """The first differences between two runs, such as "lr=0.1 now, 0.03 before; another model".

    Args:
        before: what identifies a run: values by name, some of them in groups such as `spec`.
        now: the same of another run.
    """
    first, *more = dict.fromkeys(_different(before, now)) or ["unknown"]  # the seed is in several groups
    return "; ".join([first, *more[: MOST - 1], *(["..."] if len(more) >= MOST else [])])


def _different(before: Any, now: Any, name: str = "") -> Iterator[str]:
    if before == now:
        return
    if name in WORDS:
        yield WORDS[name]
    elif isinstance(before, dict) and isinstance(now, dict):
        for key in sorted({*before, *now}):
            yield from _different(before.get(key), now.get(key), key)
    else:
        yield _told(name, before, now)


def _told(name: str, before: Any, now: Any) -> str:
    if now in NOTHING:
        return f"{name}={before!r} before, not given now"
    words = ", ".join(map(str, before)) if isinstance(before, list) else before
    return f"{name}={now!r} now, {'not given' if before in NOTHING else words} before"
