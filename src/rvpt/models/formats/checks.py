"""Checks of a model to load: its layout, its own code, its weights and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rvpt.errors import RvptError
from rvpt.models.formats.isolated import LISTED
from rvpt.models.formats.weights import PICKLES

MAX_JSON = 64 * 2**20
READ = (".json", ".txt", ".safetensors", ".model", *PICKLES)
BESIDE = (
    "config.json", "open_clip_config.json", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt",
    "spiece.model",
)  # fmt: skip
"""What is read beside a single file of weights."""
BLOBS = "blobs"  # where the hub's cache keeps the files to which those of a snapshot are links


def refuse_missing(path: Path, name: str) -> None:
    """Refuse a path that does not exist and cannot be a hub id either, and an empty name.

    Raises:
        RvptError: it is one.
    """
    if not name:
        raise RvptError("the name of the model is empty: give a folder, a file of weights, or a hub id")
    if not path.exists() and (name.startswith((".", "/", "~")) or name.count("/") != 1):
        raise RvptError(f"{name}: no such model folder (and not a hub id, which is owner/name)")


def refuse_odd_files(path: Path, name: str) -> None:
    """Refuse links out of a folder, pipes, devices, and configurations of absurd size; contents are not read.

    Raises:
        RvptError: there is one.
    """
    folder = path if path.is_dir() else path.parent
    beside = [folder / name for name in BESIDE if (folder / name).is_symlink() or (folder / name).exists()]
    for file in sorted(path.iterdir()) if path.is_dir() else [path, *beside]:
        if file != path and file.is_symlink() and not _stays(file.resolve(), folder.resolve()):
            raise RvptError(f"{name}: {file.name} is a link to a file outside of the folder: put the file itself there")
        if file.is_dir() or file.suffix not in READ:
            continue
        if not file.is_file():
            raise RvptError(f"{name}: {file.name} is not a file with contents (a broken link, a pipe or a device)")
        if file.suffix in (".json", ".txt") and file.stat().st_size > MAX_JSON:
            raise RvptError(
                f"{name}: {file.name} has {file.stat().st_size >> 20} MiB, more than a model's: limit 64 MiB"
            )


def _stays(target: Path, root: Path) -> bool:
    """Whether a link's target is in the folder, or in the store of the hub's cache that the folder belongs to."""
    return target.is_relative_to(root) or (
        root.parent.name == "snapshots" and target.is_relative_to(root.parent.parent / BLOBS)
    )


def refuse_other_layouts(path: Path, name: str) -> None:
    """Refuse a folder of a layout that is known and not supported, or of none.

    Raises:
        RvptError: it is one.
    """
    files = {file.name for file in path.iterdir()}
    if not files:
        raise RvptError(f"{name} is empty: a model folder has config.json and model.safetensors")
    if "adapter_config.json" in files and "config.json" not in files:
        raise RvptError(
            f"{name} is an adapter of PEFT, not a whole model: merge it into its base model (merge_and_unload), save "
            f"that, and give its folder; {LISTED}"
        )


def refuse_own_code(error: Exception, name: str) -> None:
    """Raise a clear error if transformers failed because the model needs its own code, which is never run.

    Raises:
        RvptError: that is why it failed.
    """
    if "trust_remote_code" in str(error):
        raise RvptError(
            f"{name} needs its own code (auto_map), which is never run: give a model of one of transformers' classes"
        ) from None


def refuse_unfit_tokenizer(tokenizer: Any, config: Any, name: str) -> None:
    """Refuse a tokenizer without a vocabulary, or with more tokens than the model.

    Raises:
        RvptError: it is one of these.
    """
    if tokenizer("cat")["input_ids"] == tokenizer("dog")["input_ids"]:  # as transformers creates it from missing files
        raise RvptError(f"{name}: its tokenizer has no words: tokenizer.json, or vocab.json and merges.txt, is missing")
    known, size = len(tokenizer), config.text_config.vocab_size
    if known > size:
        raise RvptError(f"{name}: its tokenizer has {known} tokens, its model {size}: they do not belong together")


def refuse_wrong_end(tokenizer: Any, config: Any, name: str) -> None:
    """Refuse a model that does not read a text's feature at its end token: all texts could have the same feature.

    Raises:
        RvptError: it does not.
    """
    pooled, length = config.text_config.eos_token_id, config.text_config.max_position_embeddings
    pad = [] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id]
    for text in ("cat", "a photo of a zebra. " * length):  # the second is truncated, and must still have an end
        ids = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        if _pooled_at(ids + pad, pooled) != len(ids) - 1:
            raise RvptError(
                f"{name}: text features are read at token {pooled} (text_config.eos_token_id in its config.json), "
                f"but its tokenizer ends texts with {ids[-1]}: {_fix_end(ids[-1], tokenizer.eos_token_id)}"
            )


def refuse_unfit_padding(tokenizer: Any, config: Any, name: str) -> None:
    """Refuse a tokenizer that does not pad texts at their end, for a model that reads their features after the padding.

    Raises:
        RvptError: it does not.
    """
    length = config.text_config.max_position_embeddings
    if tokenizer.pad_token_id is None or tokenizer.padding_side != "right":
        raise RvptError(
            f"{name} reads texts padded to {length} tokens, and its tokenizer does not pad them at their end: set "
            "pad_token and padding_side='right' in tokenizer_config.json, as the model was trained with"
        )
    if len(tokenizer("cat", padding="max_length", truncation=True, max_length=length)["input_ids"]) != length:
        raise RvptError(
            f"{name}: its tokenizer does not pad texts to {length} tokens: give the one it was trained with"
        )


def _fix_end(last: int, end: int | None) -> str:
    """How to fix a model that does not read text features at the end token."""
    if last != end:  # for example, a tokenizer without its post-processor
        return "download tokenizer.json again, one that puts an end token after every text"
    if last == 2:
        return "transformers takes the highest id in place of 2, so make a tokenizer whose end token has another id"
    return f"set it to {end}"


def _pooled_at(ids: list[int], end: int | None) -> int:
    """The position at which transformers' CLIPTextModel reads a text's feature.

    Its first end token, or position 0 if there is none; with end id 2 (OpenAI's old configurations) the highest id.
    """
    wanted = max(ids) if end == 2 else end
    return ids.index(wanted) if wanted in ids else 0
