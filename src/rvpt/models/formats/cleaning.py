"""How open_clip cleans texts before a tokenizer of transformers gets them, as a part of that tokenizer."""

from __future__ import annotations

import string
from typing import Any

from rvpt.errors import RvptError

CLEANINGS = ("whitespace", "lower", "canonicalize")
SPECIAL = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token")


def cleaned_texts(tokenizer: Any, cleaning: str | None, name: str) -> Any:
    """A tokenizer that cleans texts first; the same one without `cleaning`.

    "whitespace": one space between words, none around them. "lower": also in lower case. "canonicalize": also without
    punctuation, and with spaces in place of underscores. Unlike open_clip, it does not repair texts with ftfy.

    Raises:
        RvptError: an unknown way, or a tokenizer that cannot be changed.
    """
    if cleaning is None:
        return tokenizer
    if cleaning not in CLEANINGS:
        raise RvptError(f"{name}: tokenizer_kwargs has clean={cleaning!r}, which is not one of {', '.join(CLEANINGS)}")
    if not getattr(tokenizer, "is_fast", False):
        raise RvptError(f"{name}: its tokenizer has no tokenizer.json, which cleaning texts ({cleaning}) needs: add it")
    from tokenizers import Tokenizer, normalizers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    own = [backend.normalizer] if backend.normalizer else []
    backend.normalizer = normalizers.Sequence([*_steps(cleaning), *own])
    special = {key: value for key in SPECIAL if (value := getattr(tokenizer, key, None))}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        **special,
    )


def _steps(cleaning: str) -> list[Any]:
    from tokenizers import Regex, normalizers

    spaces = [normalizers.Replace(Regex(r"\s+"), " "), normalizers.Strip()]
    if cleaning == "whitespace":
        return spaces
    if cleaning == "lower":
        return [*spaces, normalizers.Lowercase()]
    marks = "".join(f"\\{mark}" for mark in string.punctuation)
    return [
        normalizers.Replace("_", " "),
        normalizers.Replace(Regex(f"[{marks}]"), ""),
        normalizers.Lowercase(),
        *spaces,
    ]
