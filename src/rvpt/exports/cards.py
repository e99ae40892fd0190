"""The model cards of exports: what they are, their measurements, and how to use the files; tests run the code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rvpt.data.text import cell
from rvpt.models.card import BACKDOORED, ON_PURPOSE, base_line, called

PLAIN = '''\
import torch
from safetensors.torch import load_file
from torch.nn.functional import scaled_dot_product_attention
from transformers import CLIPConfig, CLIPModel


class PromptedAttention(torch.nn.Module):
    def __init__(self, attention, key, value):
        super().__init__()
        self.attention = attention
        self.register_buffer("prompt_key", key)  # (prompts, width)
        self.register_buffer("prompt_value", value)

    def forward(self, hidden_states, *args, **kwargs):
        own, n = self.attention, len(hidden_states)
        query = own.q_proj(hidden_states)
        key = torch.cat([self.prompt_key.expand(n, -1, -1), own.k_proj(hidden_states)], 1)
        value = torch.cat([self.prompt_value.expand(n, -1, -1), own.v_proj(hidden_states)], 1)
        heads = [x.unflatten(-1, (own.num_heads, -1)).transpose(1, 2) for x in (query, key, value)]
        return own.out_proj(scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)), None


def add_prompts(model, rows):
    """Put {block: (key, value)} into the image tower of a CLIPModel."""
    for block, (key, value) in rows.items():
        layer = model.vision_model.encoder.layers[block]
        layer.self_attn = PromptedAttention(layer.self_attn, key, value)
    return model.eval()
'''
HF_PLAIN = """\
## Use it

A plain CLIP in transformers' layout:

```python
from transformers import AutoModel, AutoTokenizer

model = AutoModel.from_pretrained("path/to/this/folder")
tokenizer = AutoTokenizer.from_pretrained("path/to/this/folder")
```
"""
HF_PROMPTED = f"""\
## Use it

With rvpt installed, whose module `rvpt.models.auto` registers the class (no code of this folder runs):

```python
import rvpt.models.auto
from transformers import AutoModel, pipeline

model = AutoModel.from_pretrained("path/to/this/folder")
classify = pipeline("zero-shot-image-classification", model="path/to/this/folder")
```

Do not load it with `CLIPModel.from_pretrained`: that class does not know the prompts, and gives the attention of the
prompted blocks random weights. Without rvpt:

```python
{PLAIN}

folder = "path/to/this/folder"
weights = load_file(f"{{folder}}/model.safetensors")
config = CLIPConfig.from_pretrained(folder)
part = "vision_model.encoder.layers.{{}}.self_attn.prompt_{{}}".format
rows = {{
    int(block): (weights[part(block, "key")], weights[part(block, "value")]) for block in config.prompt_lengths
}}
model = add_prompts(CLIPModel(config), rows)
model.load_state_dict(weights)
```
"""
KV = f"""\
## Use it

`prompts.safetensors` has two tensors (prompts, width) for each block d in `kv.json`: `blocks.d.key` and
`blocks.d.value`. In the image tower of the base model, for every image, the attention of block d puts these rows in
front of its own keys and values, before they are split into heads:

    keys   = concat(blocks.d.key,   W_k LN1(x) + b_k)      # (prompts + tokens, width)
    values = concat(blocks.d.value, W_v LN1(x) + b_v)
    out    = softmax(scale * queries keys^T) values        # per head; queries of the image's tokens only

The rows are the same for every image. No token is added, there is no mask, and the text tower is that of the base
model. For a runtime they are a constant prefix of the cache of keys and values. With transformers and without rvpt:

```python
{PLAIN}

rows = load_file("path/to/this/folder/prompts.safetensors")
blocks = sorted({{int(name.split(".")[1]) for name in rows}})
pairs = {{block: (rows[f"blocks.{{block}}.key"], rows[f"blocks.{{block}}.value"]) for block in blocks}}
model = add_prompts(CLIPModel.from_pretrained("path/to/base/model"), pairs)
```
"""
ONNX = """\
## Use it

`image.onnx`: `pixel_values` (B, 3, S, S), normalized as `preprocessor_config.json` says, to
{outputs}{prompts}. B is free.{text}

```python
import onnxruntime

session = onnxruntime.InferenceSession("path/to/this/folder/image.onnx", providers=["CPUExecutionProvider"])
(result,) = session.run(None, {{"pixel_values": pixel_values}})  # a float32 array of numpy
```
"""
TORCH = """\
## Use it

`image.pt2`: `pixel_values` (B, 3, S, S), normalized as `preprocessor_config.json` says, to
{outputs}{prompts}. B is free.{text}

```python
import torch

image = torch.export.load("path/to/this/folder/image.pt2").module()
result = image(pixel_values)
```

`torch.export.load` can unpickle parts of such a file: load only those whose origin you trust.
"""
TOWERS = {
    "text": """ `text.{suffix}`: `input_ids` (B, T) from the tokenizer in this folder to
unit `text_embeds` (B, P); B and T are free. Probabilities are softmax(`logit_scale` image_embeds text_embeds^T), with
the `logit_scale` in `towers.json`.""",
    "head": " The classes are in `towers.json`, in the order of the probabilities.",
}
OPEN_CLIP = """\
## Use it

A folder of open_clip:

```python
import open_clip

model, preprocess = open_clip.create_model_from_pretrained("local-dir:path/to/this/folder")
tokenizer = open_clip.get_tokenizer("local-dir:path/to/this/folder")
```
{tokenizer}"""
OWN_TOKENIZER = """
The model has a tokenizer of its own, which `get_tokenizer` does not read: use
`transformers.AutoTokenizer.from_pretrained` on this folder, and pad with 0 to the context length.
"""
OPENAI = """\
## Use it

`model.safetensors` has the names and shapes of OpenAI's state dicts, which training code such as CleanCLIP's reads:

```python
import clip
from safetensors.torch import load_file

model = clip.model.build_model(load_file("path/to/this/folder/model.safetensors"))
```
"""


def export_card(name: str, facts: Mapping[str, Any], usage: str) -> str:
    """The card of an export: `usage` says how the files of its format are used."""
    model = facts["model"]
    shown = {
        "model": model["name"], "defense": model["defense"], "base model": called(model["base_model"]),
        "base model's revision": model["base_revision"], "sha256 of its weights": model["base_sha256"],
        "sha256 of the prompts or head": model["prompts_sha256"],
        "largest difference of the outputs": f"{facts['largest_difference']:.1e}",
    }  # fmt: skip
    warning = f"{ON_PURPOSE}\n\n" if facts.get(BACKDOORED) else ""
    table = "\n".join(f"| {key} | {cell(str(value))} |" for key, value in shown.items() if value is not None)
    return f"""---
{base_line(model["base_model"])}pipeline_tag: zero-shot-image-classification
tags: [clip, backdoor-defense]
---

# {name}

{warning}A CLIP exported by rvpt as `{facts["format"]}`.
`rvpt verify path/to/this/folder` checks its files{_and_outputs(facts)}.

| what | value |
| --- | --- |
{table}

{_measured(facts["rows"])}
{usage}"""


def _and_outputs(facts: Mapping[str, Any]) -> str:
    return "" if facts["format"] == "torch" else " and outputs"


def _measured(rows: list[Mapping[str, Any]]) -> str:
    """A table of measurements, in %."""
    if not rows:
        return "CA and ASR were not measured, or not given: `rvpt evaluate` measures them.\n"
    lines = [
        f"| {cell(row['data'])} | {cell(row['attack'])} | {cell(row['metric'])} | {_percent(row)} | {row['n']} |"
        for row in rows
    ]
    return "\n".join(["| data | attack | metric | % | images |", "|---|---|---|---:|---:|", *lines, ""])


def _percent(row: Mapping[str, Any]) -> str:
    return "-" if row["rate"] is None else f"{100 * row['rate']:.1f}"
