"""Other layouts in, Clip out. Weights come from safetensors only: nothing is unpickled, no code of a model's is run."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Any

import torch

from rvpt.clip import OPENAI_MEAN, OPENAI_STD, PREPROCESSOR, Clip
from rvpt.errors import RvptError, first_line
from rvpt.store import find_manifest, read_json

EMBEDDED = "scenes-clip"
"""Name of the model that ships with the package."""
PICKLES = (".pt", ".pth", ".bin", ".ckpt", ".pkl")
LAYOUTS = {"open_clip_config.json": "open_clip's layout", "adapter_config.json": "an adapter, not a whole model"}
PROCESSOR = "processor_config.json"  # where transformers 5 keeps it, one level down, with the tokenizer's
CONFIGS = ("config.json", "open_clip_config.json")
CONVERT = "convert it to safetensors with a tool that you trust"


def embedded_model() -> Path:
    """Folder of the pretrained scenes CLIP inside the package."""
    return Path(str(resources.files("rvpt") / "assets" / EMBEDDED))


def load_clip(source: str | Path) -> Clip:
    """A Clip from a folder in transformers' layout, a hub id, or the embedded model's name.

    Raises:
        RvptError: nothing there, no ViT CLIP, pickled weights only, or weights that are not finite.
    """
    name = str(source)
    path = embedded_model() if name == EMBEDDED else Path(source).expanduser()
    _refuse(path, name)
    find_manifest(path)  # refuses a model of ours that was changed
    place = str(path) if path.is_dir() else name
    config = _config(place, name)
    model, tokenizer = _model(place, name, config), _tokenizer(place, name, config)
    _refuse_wrong_end(tokenizer, config, name)
    _refuse_non_finite(model, name)
    mean, std = _geometry(place)
    clip = Clip(
        model.eval(),
        tokenizer,
        mean,
        std,
        source=name if name == EMBEDDED or not path.is_dir() else str(path.resolve()),
    )
    return clip.to(_device())


def _device() -> torch.device:
    """The GPU of this process, of those of a launch each its own; the CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())


def _refuse(path: Path, name: str) -> None:
    """Say what is wrong with a place that cannot hold a CLIP, before transformers does it less clearly."""
    if path.is_file():
        mend = f"it is never unpickled: {CONVERT}" if path.suffix in PICKLES else "give the model's folder"
        raise RvptError(f"{name} is a file; {mend}")
    if not path.exists():
        if name.startswith((".", "/", "~")) or name.count("/") != 1:
            raise RvptError(f"{name}: no such model folder (and no hub id, which is owner/name)")
        return
    files = {file.name for file in path.iterdir()}
    if any(_is_resnet(path / file) for file in CONFIGS if file in files):
        raise RvptError(f"{name} is a ResNet CLIP, which is not supported: only ViT CLIPs are")
    if not files:
        raise RvptError(f"{name} is empty: a model folder has config.json and model.safetensors")
    if "config.json" not in files:
        what = next((LAYOUTS[file] for file in LAYOUTS if file in files), "a folder without config.json")
        raise RvptError(f"{name} is {what}: give a CLIPModel in transformers' layout")
    if not any(file.endswith(".safetensors") for file in files):
        if any(file.endswith(PICKLES) for file in files):
            raise RvptError(f"{name} has pickled weights only, which are never loaded: {CONVERT}")
        raise RvptError(f"{name} has no model.safetensors: fetch the whole model again")


def _is_resnet(config: Path) -> bool:
    """Whether a configuration (timm's, open_clip's) tells a ResNet: by its name, or by blocks counted by stage."""
    facts = read_json(config)
    if not isinstance(facts, dict):
        return False
    vision = (facts.get("model_cfg") or facts).get("vision_cfg")
    stages = isinstance(vision, dict) and isinstance(vision.get("layers"), list)
    return stages or str(facts.get("architecture", "")).startswith("resnet")


def _config(place: str, name: str) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # the hub's client and transformers raise many kinds
        refuse_own_code(error, name)
        where = "" if Path(place).is_dir() else "no folder of that name here, and on the hub "
        raise RvptError(f"{name}: {where}no configuration to be had ({first_line(error)})") from None
    if config.model_type != "clip":
        raise RvptError(
            f"{name} is a {config.model_type!r} model: only ViT CLIPs (transformers' CLIPModel) are supported"
        )
    if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
        raise RvptError(f"{name} is one tower alone: a whole CLIPModel is needed")
    return config


def _model(place: str, name: str, config: Any) -> Any:
    from transformers import CLIPModel

    try:
        model, info = CLIPModel.from_pretrained(
            place, config=config, use_safetensors=True, output_loading_info=True, dtype=torch.float32,
            trust_remote_code=False, ignore_mismatched_sizes=True,  # they are refused below, by their names
        )  # fmt: skip
    except Exception as error:
        raise RvptError(f"{name}: its weights cannot be loaded ({first_line(error)})") from None
    wrong = sorted({*info["missing_keys"], *(key for key, *_ in info["mismatched_keys"])})
    if wrong:
        raise RvptError(
            f"{name}: {len(wrong)} weights are missing or of another shape than config.json says, {wrong[0]} for one: "
            "is it a ViT CLIP?"
        )
    return model


def _tokenizer(place: str, name: str, config: Any) -> Any:
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=False)
        known, apart = len(tokenizer), tokenizer("cat")["input_ids"] != tokenizer("dog")["input_ids"]
    except Exception as error:
        refuse_own_code(error, name)
        raise RvptError(f"{name}: its tokenizer cannot be loaded ({first_line(error)})") from None
    if not apart:  # transformers makes one without any words where the files are missing
        raise RvptError(
            f"{name}: its tokenizer knows no words: tokenizer.json, or vocab.json and merges.txt, is missing"
        )
    if known > config.text_config.vocab_size:
        size = config.text_config.vocab_size
        raise RvptError(f"{name}: its tokenizer has {known} tokens, its model {size}: they do not belong together")
    return tokenizer


def refuse_own_code(error: Exception, name: str) -> None:
    """Say so where transformers failed for want of code that the model brings: a suspect's code is never run."""
    if "trust_remote_code" in str(error):
        raise RvptError(
            f"{name}: it needs its own code (auto_map), which is never run: give a model of a class of transformers"
        ) from None


def _refuse_wrong_end(tokenizer: Any, config: Any, name: str) -> None:
    """Refuse a model that does not read a text's feature at the text's end: all captions could have the same one."""
    pooled, length = config.text_config.eos_token_id, config.text_config.max_position_embeddings
    pad = [] if tokenizer.pad_token_id is None else [tokenizer.pad_token_id]
    for text in ("cat", "a photo of a zebra. " * length):  # the second is cut, which must leave an end
        ids = tokenizer(text, truncation=True, max_length=length)["input_ids"]
        if _pooled_at(ids + pad, pooled) != len(ids) - 1:
            raise RvptError(
                f"{name}: text features are read at token {pooled} (text_config.eos_token_id in its config.json), "
                f"but its tokenizer ends texts with {ids[-1]}: {_mend_end(ids[-1], tokenizer.eos_token_id)}"
            )


def _mend_end(last: int, end: int | None) -> str:
    """What to do where features are not read at the end of texts."""
    if last != end:  # as of a tokenizer without its post-processor
        return "fetch tokenizer.json again, one that puts an end token behind every text"
    if last == 2:
        return "transformers takes the highest id in place of 2, so make a tokenizer whose end token has another id"
    return f"set it to {end}"


def _pooled_at(ids: list[int], end: int | None) -> int:
    """The place that transformers' CLIPTextModel reads a text's feature at: its first end token, or the first place
    where there is none; where the end's id is 2, as in OpenAI's old configurations, the highest id."""
    wanted = max(ids) if end == 2 else end
    return ids.index(wanted) if wanted in ids else 0


def _refuse_non_finite(model: torch.nn.Module, name: str) -> None:
    for weight, value in model.state_dict().items():
        if value.is_floating_point() and not torch.isfinite(value).all():
            raise RvptError(f"{name}: {weight} holds values that are not finite: fetch the model again")


def _geometry(place: str) -> tuple[list[float], list[float]]:
    """Mean and standard deviation that the model's pictures are normalised with."""
    from transformers.utils import cached_file

    files = [
        cached_file(place, name, _raise_exceptions_for_missing_entries=False) for name in (PREPROCESSOR, PROCESSOR)
    ]
    found = next(filter(None, files), None)
    facts = read_json(Path(found)) if found else {}
    try:
        facts = facts.get("image_processor", facts)
        mean = [float(value) for value in facts.get("image_mean", OPENAI_MEAN)]
        std = [float(value) for value in facts.get("image_std", OPENAI_STD)]
    except (AttributeError, TypeError, ValueError):
        mean, std = [], []
    if len(mean) != 3 or len(std) != 3 or not min(std) > 0:
        raise RvptError(f"{found}: image_mean and image_std must be three numbers each, std above 0")
    return mean, std
