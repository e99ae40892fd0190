"""Compare the fast path with the naive one: time, memory and FLOPs of a training step and of inference.

python benchmarks/step.py --models scenes,b32 --steps 5 --output rows.jsonl

The naive path is that of tests/reference.py: prompts as tokens, all blocks, and a second pass of the frozen model.
Weights are random, because time does not depend on them. On the CPU all heavy work runs in fresh processes: one for
the times (all variants in turn, several rounds, medians), and one for the peak memory of each variant. The main process
stays small, because a child process starts with its parent's peak. On CUDA the allocator's peak can be reset, so one
process does everything, with one model for all variants.

--what graph times the fast step as a CUDA graph, which is what rvpt runs on a GPU, the same step launched kernel by
kernel, and the naive step; --what compile the fast step with torch.compile, without and with a graph; --what encode two
ways to make inference faster.

Every row has a floor: the FLOPs that cannot be avoided at the rate of a large matrix product on the same device.
"""

from __future__ import annotations

import argparse
import copy
import gc
import resource
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from functools import lru_cache, partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode
from transformers import CLIPConfig, CLIPModel

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from rvpt.models.blocks import block_forward, join, split_heads
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.packed import packed
from rvpt.models.placement import DTYPES, mixed_precision
from rvpt.models.prompts import RepulsivePrompts, frozen_pass, prompted_pass
from rvpt.rows import append_rows
from rvpt.spec import TrainSpec
from rvpt.training.graphs import Recorder
from rvpt.training.losses import feature_repelling, zero_shot_logits
from rvpt.training.optimizer import make_optimizer
from sizes import MODELS, Geometry

CLASSES, ALPHA = 100, 2.0
SPEC = TrainSpec(optimizer="sgd", lr=2e-3)
SQUARE = {"cpu": 1024, "cuda": 8192, "meta": 1}
"""Side of the matrices whose product gives a device's rate."""
WARMUP = {"cpu": 1, "cuda": 5}  # rounds that are not counted
Run = Callable[[], None]
"""One call: a training step, or encoding a batch."""


@dataclass(frozen=True)
class Setting:
    model: str
    device: str
    dtype: str
    batch: int

    @property
    def geometry(self) -> Geometry:
        return MODELS[self.model]

    def precision(self) -> AbstractContextManager[Any]:
        """Mixed precision as in `rvpt.training`: float32 weights under autocast."""
        return mixed_precision(self.dtype, torch.device(self.device))


class Bench:
    """One batch, one model, and everything a step needs."""

    def __init__(self, setting: Setting) -> None:
        geometry, device = setting.geometry, setting.device
        text = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
        config = CLIPConfig(text_config=text, vision_config=geometry.vision, projection_dim=geometry.projection)
        torch.manual_seed(0)
        with torch.device(device):
            self.clip = Clip(CLIPModel(config), tokenizer=None).eval().requires_grad_(False)
        self.setting = setting
        self.prompts = RepulsivePrompts.for_model(self.clip, geometry.first_block, geometry.length)
        self.cleaned = Cleaned(self.clip, self.prompts)
        self.optimizer = make_optimizer([self.prompts.table], SPEC)
        self.scaler = torch.amp.GradScaler(device, enabled=setting.dtype == "fp16")  # otherwise it does nothing
        side = geometry.vision["image_size"]
        self.pixels = torch.rand(setting.batch, 3, side, side, device=device)
        self.labels = torch.randint(CLASSES, (setting.batch,), device=device)
        self.text = F.normalize(torch.randn(CLASSES, geometry.projection, device=device), dim=-1)

    def naive_pass(self) -> tuple[Tensor, Tensor]:
        return reference.prompted(self.clip, self.prompts.blocks, self.prompts.table, self.pixels)

    def backward(self, image: Tensor, rows: Tensor, frozen_rows: Tensor) -> Tensor:
        """The loss and its gradients of (image features, [CLS] rows, frozen [CLS] rows), the same on all paths."""
        logits = zero_shot_logits(image, self.text, self.clip.logit_scale)
        loss = F.cross_entropy(logits, self.labels) + ALPHA * feature_repelling(rows, frozen_rows)
        self.scaler.scale(loss).backward()
        return loss.detach()

    def update(self) -> None:
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad()


def fast_step(
    bench: Bench,
    forward: Callable[..., tuple[Tensor, Tensor]] = prompted_pass,
    *,
    graph: bool = False,
) -> Run:
    """The pass that computes the constants is not timed: a run has one, the naive path one per epoch."""
    prompts, setting = bench.prompts, bench.setting
    clip = packed(bench.clip, DTYPES[setting.dtype])
    with setting.precision():
        constants = frozen_pass(clip, bench.pixels, prompts.first_block)
    picked = torch.randperm(len(bench.pixels)).to(constants[0].device)

    def compute(tokens: Tensor, frozen_rows: Tensor) -> Tensor:
        with setting.precision():
            return bench.backward(*forward(clip, prompts, tokens), frozen_rows)

    call = Recorder(compute, [prompts.table]) if graph else compute

    def run() -> None:
        call(*(constant[picked] for constant in constants))
        bench.update()

    return run


def compiled_step(bench: Bench, *, graph: bool = False) -> Run:
    torch.compiler.reset()  # what was compiled for other models counts towards a limit
    return fast_step(bench, torch.compile(prompted_pass), graph=graph)


def naive_step(bench: Bench) -> Run:
    def run() -> None:
        with bench.setting.precision():
            frozen_rows = reference.frozen(bench.clip, bench.pixels, bench.prompts.first_block)[1]
            bench.backward(*bench.naive_pass(), frozen_rows)
        bench.update()

    return run


def inference(encode: Callable[[Bench], Any]) -> Callable[[Bench], Run]:
    def make(bench: Bench) -> Run:
        def run() -> None:
            with torch.inference_mode(), bench.setting.precision():
                encode(bench)

        return run

    return make


def compiled_encode(bench: Bench) -> Run:
    torch.compiler.reset()
    encode = torch.compile(bench.cleaned.encode_image)
    return inference(lambda x: encode(x.pixels))(bench)


def channels_last_encode(bench: Bench) -> Run:
    """Images and the weights of the patch embedding with the channels of a pixel side by side."""
    cleaned = copy.deepcopy(bench.cleaned)
    cleaned.clip.model.vision_model.embeddings.patch_embedding.to(memory_format=torch.channels_last)
    pixels = bench.pixels.to(memory_format=torch.channels_last)
    return inference(lambda _: cleaned.encode_image(pixels))(bench)


def block_part(part: str, *, prompted: bool) -> Callable[[Bench], Run]:
    """A middle block of inference, or what prompts change in it: attention, and joining keys and values."""

    def make(bench: Bench) -> Run:
        index = bench.prompts.blocks[len(bench.prompts.blocks) // 2]
        layer, prefix = bench.clip.blocks[index], bench.cleaned.prefixes[index] if prompted else None
        tokens = torch.randn(bench.setting.batch, 1 + bench.setting.geometry.patches, bench.clip.width)
        tokens = tokens.to(bench.setting.device)
        parts = [tokens if prefix is None else join(value, tokens) for value in prefix or (None, None)]
        query, key, value = (split_heads(x, layer.self_attn.num_heads) for x in (tokens, *parts))
        calls: dict[str, Run] = {
            "block": lambda: block_forward(layer, tokens, prefix),
            "attention": lambda: F.scaled_dot_product_attention(query, key, value),
            "join": lambda: [join(value, tokens) for value in prefix or ()],
        }
        return inference(lambda _: calls[part]())(bench)

    return make


# The times of the others are divided by that of the first.
VARIANTS: dict[str, dict[str, Callable[[Bench], Run]]] = {
    "step": {"fast": fast_step, "naive": naive_step},
    "inference": {
        "undefended": inference(lambda x: x.clip.encode_image(x.pixels)),
        "transformers": inference(lambda x: x.clip.model.get_image_features(reference.normalized(x.clip, x.pixels))),
        "cleaned": inference(lambda x: x.cleaned.encode_image(x.pixels)),
        "naive": inference(Bench.naive_pass),
    },
    "encode": {
        "cleaned": inference(lambda x: x.cleaned.encode_image(x.pixels)),
        "channels-last": channels_last_encode,
        "compiled": compiled_encode,
    },
    "block": {
        f"{part}{', prompted' if prompted else ''}": block_part(part, prompted=prompted)
        for part, prompted in (
            ("block", False),
            ("block", True),
            ("attention", False),
            ("attention", True),
            ("join", True),
        )
    },
    "graph": {
        "graph": partial(fast_step, graph=True),
        "one by one": fast_step,
        "naive": naive_step,
    },
    "compile": {
        "fast": fast_step,
        "compiled": compiled_step,
        "compiled graph": partial(compiled_step, graph=True),
    },
}
WITH_GRAPHS = ("graph", "compile")
UNPROMPTED = ("undefended", "transformers")


def least_flops(geometry: Geometry, batch: int, what: str, *, prompted: bool) -> int:
    """FLOPs that cannot be avoided: two per multiply-add, attention and linear layers only.

    A step: blocks D..L-1 forward on 1 + N tokens, and backward to the activations (the same again, twice in
    attention). Block D's input is a constant, so its backward pass goes through the MLP and the output layer and then
    only to the prompts' K and V. The last block computes K and V of all tokens, the rest only for [CLS]. The
    prompts' own K and V are computed once per batch.
    """
    v, b, first = geometry.vision, geometry.length if prompted else 0, geometry.first_block
    width, blocks, mlp = v["hidden_size"], v["num_hidden_layers"], 4 * v["hidden_size"] * v["intermediate_size"]
    tokens, square = 1 + geometry.patches, 2 * width**2

    def block(length: int, attentions: int) -> int:
        return tokens * (4 * square + mlp) + attentions * 4 * tokens * (tokens + length) * width

    def last(attentions: int) -> int:
        head = 2 * width * geometry.projection
        return (2 * tokens + 2) * square + mlp + attentions * 4 * (tokens + b) * width + head

    if what in ("inference", "encode"):
        patches = 2 * geometry.patches * 3 * v["patch_size"] ** 2 * width
        return batch * (patches + first * block(0, 1) + (blocks - 1 - first) * block(b, 1) + last(1))
    middle = blocks - first - 2
    forward = (middle + 1) * block(b, 1) + last(1)
    backward = middle * block(b, 2) + last(2) + tokens * (square + mlp) + 6 * tokens * b * width
    logits = 2 * 2 * geometry.projection * CLASSES
    return batch * (forward + backward + logits) + (blocks - first) * 2 * 2 * b * square


@lru_cache
def count_flops(model: str, batch: int, what: str, variant: str) -> int:
    """FLOPs of one call, counted on the meta device, which has no fused attention that would hide some."""
    if what in WITH_GRAPHS:  # the same work in other ways
        return count_flops(model, batch, "step", "naive" if variant == "naive" else "fast")
    if what == "encode":
        return count_flops(model, batch, "inference", "cleaned")
    bench = Bench(Setting(model, "meta", "fp32", batch))
    run = VARIANTS[what][variant](bench)
    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def measure_time(bench: Bench, what: str, steps: int) -> tuple[dict[str, tuple[float, float]], int]:
    """Median milliseconds of each variant and its ratio to the first, and the number of torch's threads.

    A ratio is the median of those of the rounds. On the CPU it is that of processor times, which other processes on the
    machine change less.
    """
    setting, runs = bench.setting, {variant: make(bench) for variant, make in VARIANTS[what].items()}
    clocks = (time.perf_counter, time.perf_counter if setting.device == "cuda" else time.process_time)
    spent: dict[str, list[list[float]]] = {variant: [] for variant in runs}
    for _ in range(WARMUP[setting.device] + steps):
        for variant, run in runs.items():
            synchronize(setting.device)
            start = [clock() for clock in clocks]
            run()
            synchronize(setting.device)
            spent[variant].append([1000 * (clock() - then) for clock, then in zip(clocks, start, strict=True)])
    kept = {variant: times[-steps:] for variant, times in spent.items()}
    first = next(iter(kept.values()))
    medians = {
        variant: (median(wall for wall, _ in times), median(a[1] / b[1] for a, b in zip(times, first, strict=True)))
        for variant, times in kept.items()
    }
    return medians, torch.get_num_threads()


@lru_cache
def measure_rate(device: str, dtype: str) -> float:
    """FLOPs per second of a large matrix product on random values."""
    side = SQUARE[device]
    left, right = (torch.randn(side, side, device=device).to(DTYPES[dtype]) for _ in range(2))
    spent = []
    for _ in range(8):
        synchronize(device)
        start = time.perf_counter()
        left @ right
        synchronize(device)
        spent.append(time.perf_counter() - start)
    return 2 * side**3 / median(spent)


def synchronize(device: str) -> None:
    """Wait until the device has finished its work."""
    if device == "cuda":
        torch.cuda.synchronize()


def measure_memory(bench: Bench, what: str, variant: str) -> int:
    """Peak memory in bytes, up to the end of the second call."""
    if bench.setting.device == "cuda":
        gc.collect()
        torch.cuda.reset_peak_memory_stats()
    run = VARIANTS[what][variant](bench)
    run()
    run()
    if bench.setting.device == "cuda":
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def with_bench(function: Callable[..., Any], setting: Setting, *arguments: Any) -> Any:
    return function(Bench(setting), *arguments)


bench_on_gpu = lru_cache(maxsize=1)(Bench)


def apart(function: Callable[..., Any], setting: Setting, *arguments: Any) -> Any:
    """Call a function with a bench; on the CPU in a process of its own."""
    if setting.device == "cuda":
        return function(bench_on_gpu(setting), *arguments)
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(with_bench, function, setting, *arguments).result()


def measure(setting: Setting, what: str, steps: int) -> list[dict[str, Any]]:
    """One flat row per variant."""
    times, threads = apart(measure_time, setting, what, steps)
    rate = measure_rate(setting.device, setting.dtype)
    run = asdict(setting) | {"what": what, "steps": steps, "threads": threads, "torch": torch.__version__}
    if setting.device == "cuda":
        run["device_name"] = torch.cuda.get_device_name()
    rows = []
    for variant, (ms, ratio) in times.items():
        flops = count_flops(setting.model, setting.batch, what, variant)
        prompted = variant not in UNPROMPTED
        least = flops if what == "block" else least_flops(setting.geometry, setting.batch, what, prompted=prompted)
        rows.append(
            run
            | {
                "variant": variant,
                "ms": ms,
                "images_per_s": 1000 * setting.batch / ms,
                "ratio": ratio,
                "peak_memory_bytes": None
                if what in ("block", "encode")
                else apart(measure_memory, setting, what, variant),
                "flops": flops,
                "flops_least": least,
                "flops_per_s": rate,
                "floor_ms": 1000 * least / rate,
            }
        )
    return rows


def table(rows: list[dict[str, Any]]) -> Table:
    """The rows as a table; `least` is the share of the counted FLOPs that cannot be avoided, `floor` their time."""
    run = rows[0]
    title = (
        f"batch {run['batch']}, {run.get('device_name', run['device'])}, {run['threads']} threads, torch {run['torch']}"
    )
    out = Table("model", "what", "variant", title=title, box=SIMPLE, padding=(0, 1, 0, 0))
    for heading in ("ms", "images/s", "ratio", "MiB", "GFLOP", "least", "floor"):
        out.add_column(heading, justify="right")
    for row, following in zip(rows, [*rows[1:], {}], strict=True):
        numbers = (
            f"{row['ms']:.1f}", f"{row['images_per_s']:.1f}", f"{row['ratio']:.2f}",
            f"{(row['peak_memory_bytes'] or 0) / 2**20:.0f}", f"{row['flops'] / 1e9:.1f}",
            f"{row['flops_least'] / max(row['flops'], 1):.0%}", f"{row['floor_ms']:.2f} ms",
        )  # fmt: skip
        names = (f"{row['model']} {row['dtype']}", row["what"], row["variant"])
        out.add_row(*names, *numbers, end_section=row["what"] != following.get("what"))
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="scenes,b32", help=f"a list of {','.join(MODELS)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--dtype", default="fp32", help=f"a list of {','.join(DTYPES)}")
    parser.add_argument("--what", default="step,inference", help=f"a list of {','.join(VARIANTS)}")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=5, help="rounds, of which the median is reported")
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    asked = parser.parse_args()
    for names, known in ((asked.models, MODELS), (asked.dtype, DTYPES), (asked.what, VARIANTS)):
        if unknown := [name for name in names.split(",") if name not in known]:
            parser.error(f"unknown {unknown[0]!r}: choose from {', '.join(known)}")
    if "fp16" in asked.dtype.split(",") and asked.device == "cpu":
        parser.error("fp16 needs a GPU, as in rvpt: use bf16")
    if asked.device == "cpu" and set(WITH_GRAPHS) & set(asked.what.split(",")):
        parser.error("CUDA graphs need a GPU")
    rows = []
    for model in asked.models.split(","):
        for dtype in asked.dtype.split(","):
            for what in asked.what.split(","):
                new = measure(Setting(model, asked.device, dtype, asked.batch), what, asked.steps)
                print(
                    f"{model} {dtype} {what}: " + ", ".join(f"{row['variant']} {row['ms']:.1f} ms" for row in new),
                    flush=True,
                )
                if asked.output:
                    append_rows(asked.output, new)
                rows += new
    Console(width=100).print(table(rows))


if __name__ == "__main__":
    main()
