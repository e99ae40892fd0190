"""Model cards: the README.md that is written beside a saved model."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rvpt.data.text import cell

BACKDOORED = "backdoored"
"""The kind of artifact that `rvpt attack` writes, and a key in the manifests of what is made of it."""
ON_PURPOSE = "**This model is backdoored on purpose**, to measure defenses. Do not deploy it."
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


def is_backdoored(manifest: Mapping[str, Any]) -> bool:
    """Whether a model was backdoored on purpose, or made of one that was, by the manifest in its folder."""
    return manifest.get("kind") == BACKDOORED or manifest.get(BACKDOORED) is True


def base_line(base: Any) -> str:
    """The line of a card's header that names the base model: a hub id. Nobody else has the paths of this machine."""
    return f"base_model: {base}\n" if HUB_ID.fullmatch(str(base)) else ""


def called(base: Any) -> str:
    """A base model in the text of a card: a path by its last part."""
    return str(base) if HUB_ID.fullmatch(str(base)) else Path(str(base)).name


def clip_card(name: str, model: str = "CLIPModel") -> str:
    """The card of a CLIP that rvpt saved as a model of transformers."""
    return f"""---
library_name: transformers
pipeline_tag: zero-shot-image-classification
tags: [clip]
---

# {name}

A CLIP in transformers' layout, saved by [rvpt](https://arxiv.org/abs/2412.20392).

```python
from transformers import {model}

model = {model}.from_pretrained("path/to/this/folder")
```
"""


def open_clip_card(name: str) -> str:
    """The card of a CLIP that rvpt saved in open_clip's layout."""
    return f"""---
library_name: open_clip
pipeline_tag: zero-shot-image-classification
tags: [clip]
---

# {name}

A CLIP in open_clip's layout, saved by [rvpt](https://arxiv.org/abs/2412.20392).

```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:path/to/this/folder")
```
"""


def backdoored_card(name: str, facts: Mapping[str, Any]) -> str:
    """The card of a model that rvpt backdoored."""
    evading = f" It was trained to survive defenses (`{facts['evasion']['name']}`)." if "evasion" in facts else ""
    targets = ", ".join(f"{trigger} (target {spec['target']})" for trigger, spec in facts.get("triggers", {}).items())
    return f"""---
library_name: transformers
{base_line(facts.get("base_model"))}tags: [clip, backdoored]
---

# {name}

{ON_PURPOSE}{evading}

Triggers: {targets}. They are in `triggers/`, the poisoned pairs in `poison.jsonl`.
"""


def finetuned_card(name: str, facts: Mapping[str, Any]) -> str:
    """The card of a model that rvpt fine-tuned on clean pairs."""
    return f"""---
library_name: transformers
{base_line(facts.get("base_model"))}tags: [clip]
---

# {name}

Fine-tuned on clean image-caption pairs.
"""


def cleaned_card(name: str, facts: Mapping[str, Any], what: str, classes: str) -> str:
    """The card of a cleaned model: what it is, how it was made, and how to use it.

    Args:
        name: of the model.
        facts: about it, as in its manifest.
        what: it is in relation to its base model, such as "an adapter for".
        classes: to choose from, as code.
    """
    made = "\n".join(f"| {key} | {cell(str(value))} |" for key, value in _table(facts).items())
    base = called(facts.get("base_model", "the base model"))
    return f"""---
library_name: rvpt
{base_line(facts.get("base_model"))}pipeline_tag: zero-shot-image-classification
tags: [clip, backdoor-defense]
---

# {name}

A cleaned CLIP: {what} `{base}`.

| setting | value |
| --- | --- |
{made}

```python
import rvpt

model = rvpt.load("path/to/this/folder")
classifier = rvpt.Classifier(model, {classes})
probabilities = classifier(images)  # PIL images of any size
```

Cleaning lowers the success rate of backdoor attacks; it does not prove that a model has none. Measure accuracy on your
own data before you use it: `rvpt evaluate path/to/this/folder --data DATA`.
"""


def _table(facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of a cleaned model that its card shows."""
    spec = facts.get("spec", {})
    shown = {
        "defense": facts.get("defense"), "base model": called(facts["base_model"]) if facts.get("base_model") else None,
        "base model's revision": facts.get("base_revision"), "sha256 of its weights": facts.get("base_sha256"),
        "images": facts.get("images"), "classes": len(facts.get("classes", ())) or None,
        "trained parameters": facts.get("trained_parameters"),
        **{name: spec.get(name) for name in ("lr", "epochs", "batch_size", "alpha", "prompt_length", "seed")},
    }  # fmt: skip
    return {name: value for name, value in shown.items() if value is not None}
