"""Models of the Hugging Face hub: the files that are needed, in the hub's own cache; nothing else is downloaded."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from rvpt.data.hub import asking_hub, missing
from rvpt.errors import RvptError, first_line
from rvpt.files import read_json
from rvpt.models.formats.hf import INDEXES, WEIGHTS, is_transformers
from rvpt.models.formats.open_clip import CONFIG
from rvpt.models.formats.open_clip import WEIGHTS as OPEN_CLIP_WEIGHTS

COMMIT = re.compile("[0-9a-f]{40}")
SMALL = (
    "preprocessor_config.json", "processor_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json",
    "merges.txt", "spiece.model", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip


class NotFound(RvptError):
    """A file is not on the hub, or the hub does not answer and the file is not in the cache."""


def fetch(name: str, revision: str | None) -> tuple[Path, str | None]:
    """The folder with a hub model's files, and the commit that they are of.

    All files are of one commit, that of the configuration.

    Raises:
        RvptError: there is no such model, or the hub cannot be reached and its files are not in the cache.
    """
    with asking_hub() as silent:
        try:
            return _fetch(name, revision)
        except NotFound:
            if silent:
                what = f"{name} (revision {revision})" if revision else name
                raise RvptError(f"{what}: {missing(silent)}") from None
            raise


def _fetch(name: str, revision: str | None) -> tuple[Path, str | None]:
    config = _found(name, "config.json", revision) or _found(name, CONFIG, revision, required=True)
    folder = Path(str(config)).parent
    commit = folder.name if COMMIT.fullmatch(folder.name) else None
    wanted = commit or revision
    for file in (CONFIG, *SMALL):
        _found(name, file, wanted)
    _fetch_weights(name, folder, wanted)
    return folder, commit or revision


def _fetch_weights(name: str, folder: Path, revision: str | None) -> None:
    """The first kind of weights that there is, safetensors before pickled ones; those of the layout that is read."""
    kinds = (WEIGHTS[0], INDEXES[0], WEIGHTS[1], INDEXES[1]) if is_transformers(folder) else ()
    for file in dict.fromkeys((*kinds, *OPEN_CLIP_WEIGHTS)):
        if (found := _found(name, file, revision)) is not None:
            for shard in _shards(Path(found)) if file in INDEXES else ():
                _found(name, shard, revision, required=True)
            return


def _shards(index: Path) -> list[str]:
    facts: Any = read_json(index)
    names = facts.get("weight_map") if isinstance(facts, dict) else None
    return sorted({str(value) for value in names.values()}) if isinstance(names, dict) else []


def _found(name: str, file: str, revision: str | None, *, required: bool = False) -> str | None:
    """A file of a hub model in the cache, downloaded if it is not there; None if the model has none."""
    from transformers.utils import cached_file

    try:
        found: str | None = cached_file(
            name, file, revision=revision or "main", _raise_exceptions_for_missing_entries=required
        )
        return found
    except Exception as error:  # the hub's client and transformers raise many kinds
        if not required and file == "config.json":
            return None
        raise NotFound(
            f"{name}: not a folder here, and on the hub could not load its config ({first_line(error)})"
        ) from None
