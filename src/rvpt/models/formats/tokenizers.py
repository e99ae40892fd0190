"""The tokenizer of a model: the one in its folder, or CLIP's own byte-level BPE."""

from __future__ import annotations

import gzip
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from rvpt.data.hub import asking_hub
from rvpt.errors import RvptError, first_line
from rvpt.models.formats.base import Parts
from rvpt.models.formats.checks import refuse_own_code
from rvpt.models.formats.cleaning import cleaned_texts
from rvpt.models.quiet import quiet_transformers

FILES = ("tokenizer.json", "vocab.json", "tokenizer_config.json", "spiece.model")
MERGES, WORDS = 48_894, 49_408
HUB = "openai/clip-vit-base-patch32"
INSTALL = (
    "CLIP's own tokenizer is not on this machine: pip install 'rvpt[open-clip]', or put vocab.json and merges.txt of "
    f"{HUB} beside the weights"
)


def has_tokenizer(folder: Path) -> bool:
    """Whether there are files of a tokenizer in a folder."""
    return any((folder / file).is_file() for file in FILES)


def find_tokenizer(parts: Parts, vocabulary: int, name: str) -> Any:
    """The tokenizer in a model's folder, or the one that it names; or CLIP's, if the model has CLIP's vocabulary.

    Args:
        parts: of the model; one of transformers must have its tokenizer in its folder.
        vocabulary: how many tokens the model has.
        name: what messages call the model.

    Raises:
        RvptError: there is none.
    """
    folder = parts.folder
    if folder and (parts.whole or has_tokenizer(folder)):
        return cleaned_texts(_folder_tokenizer(folder, name), parts.cleaning, name)
    if parts.tokenizer:
        return cleaned_texts(_named_tokenizer(parts.tokenizer, name), parts.cleaning, name)
    if vocabulary != WORDS:
        raise RvptError(
            f"{name}: its model has {vocabulary} tokens and CLIP's tokenizer {WORDS}: put its own tokenizer.json, or "
            "vocab.json and merges.txt, beside the weights"
        )
    return clip_tokenizer(name)


def _named_tokenizer(tokenizer: str, name: str) -> Any:
    """A tokenizer of the hub, or in its cache."""
    from transformers import AutoTokenizer

    try:
        with quiet_transformers(), asking_hub():
            return AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    except Exception as error:  # of the hub's client, which raises many kinds
        raise RvptError(
            f"{name}: could not load its tokenizer, {tokenizer} on the hub ({first_line(error)}): put its "
            "tokenizer.json and tokenizer_config.json beside the weights"
        ) from None


def clip_tokenizer(name: str) -> Any:
    """CLIP's tokenizer, from the files of an installed open_clip or clip, or from transformers' cache or the hub.

    Raises:
        RvptError: none of them has it.
    """
    found = [spec.origin for package in ("open_clip", "clip") if (spec := find_spec(package)) and spec.origin]
    files = [Path(origin).parent / "bpe_simple_vocab_16e6.txt.gz" for origin in found]
    for file in files:
        if file.is_file():
            return tokenizer_of_merges(file)
    from transformers import CLIPTokenizer

    try:
        with asking_hub():
            tokenizer = CLIPTokenizer.from_pretrained(HUB)
    except Exception:  # of the hub's client, which raises many kinds
        tokenizer = None
    if tokenizer is None or len(tokenizer) != WORDS:  # transformers makes one without words, if there are no files
        raise RvptError(f"{name} has no tokenizer, and {INSTALL}")
    return tokenizer


def tokenizer_of_merges(path: Path) -> Any:
    """CLIP's tokenizer by its list of merges, as OpenAI published it."""
    from transformers import CLIPTokenizer

    with gzip.open(path, "rt", encoding="utf-8") as file:
        merges = [tuple(line.split()) for line in file.read().split("\n")[1 : MERGES + 1]]
    letters = _letters()
    words = [*letters, *(letter + "</w>" for letter in letters), *map("".join, merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={word: place for place, word in enumerate(words)}, merges=merges)


def _letters() -> list[str]:
    """The characters that stand for the 256 bytes, in OpenAI's order: printable ones first."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return [chr(byte) for byte in printable] + [chr(256 + place) for place in range(len(others))]


def _folder_tokenizer(folder: Path, name: str) -> Any:
    from transformers import AutoTokenizer, CLIPTokenizer

    stated = (folder / "tokenizer_config.json").is_file() or (folder / "config.json").is_file()
    kind = AutoTokenizer if stated else CLIPTokenizer  # files of CLIP's tokenizer alone
    try:
        with quiet_transformers():
            options = {"trust_remote_code": False} if stated else {}
            tokenizer = kind.from_pretrained(str(folder), local_files_only=True, **options)
            if tokenizer.pad_token is None:  # what follows a text's end is never read
                tokenizer.pad_token = tokenizer.convert_ids_to_tokens(tokenizer("cat")["input_ids"][-1])
            tokenizer(["cat", "a dog"], padding=True)
    except Exception as error:
        refuse_own_code(error, name)
        raise RvptError(f"{name}: could not load its tokenizer ({first_line(error)})") from None
    return tokenizer
