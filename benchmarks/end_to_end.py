"""Time and memory of a whole cleaning, from files to rates, at the sizes of published models.

python benchmarks/end_to_end.py --models b32 --output rows.jsonl

Weights are random and images are generated JPEGs, because time does not depend on their content. The stages: load the
model, list the images, read the few-shot set, compute the constants, train the prompts, and evaluate on the test
images. Evaluation is also timed in two parts, reading alone and encoding alone: with enough cores they overlap. Then
two other ways of training and encoding, for comparison: "naive" is RVPT as in tests/reference.py (prompts are tokens,
nothing is computed once), "maple" has token prompts in both towers, as MaPLe has.

Only --steps training steps and --encoded images of the others are run, and only --measured epochs of ours; `seconds` is
what all would take, `measured_seconds` what was run. `cpu_seconds` is `seconds` in processor time, which others on the
machine change less: on the CPU, shares are of that.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import reference
from maple import TokenPrompts
from rvpt.data.dataset import Dataset
from rvpt.defenses.rvpt import PromptTuning, RVPTSpec
from rvpt.evaluation.classification import measure
from rvpt.models.cleaned import Cleaned
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.models.placement import mixed_precision
from rvpt.rows import append_rows
from rvpt.training.loop import count_steps, fit, frozen
from rvpt.training.losses import feature_repelling, zero_shot_logits
from sizes import MODELS, random_clip

DIFFERENT = 64  # images that are generated; files repeat them
JPEG = (500, 375)
ENCODE_BATCH = 128


@dataclass(frozen=True)
class Setting:
    model: str
    device: str
    precision: str
    classes: int
    shots: int
    test: int
    epochs: int
    measured: int
    steps: int
    encoded: int

    @property
    def names(self) -> list[str]:
        return [f"class{index}" for index in range(self.classes)]

    @property
    def spec(self) -> RVPTSpec:
        return RVPTSpec(precision=self.precision, epochs=self.epochs)


@dataclass
class Stages:
    """Seconds and peak memory of each stage, as rows."""

    setting: Setting
    rows: list[dict[str, Any]] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str, way: str = "rvpt", scale: float = 1.0) -> Iterator[None]:
        """Time what is done inside, which is 1 / `scale` of the stage."""
        reset_peak(self.setting.device)
        clocks = (time.perf_counter, time.process_time)
        start = [clock() for clock in clocks]
        yield
        if self.setting.device == "cuda":
            torch.cuda.synchronize()
        seconds, cpu = (clock() - then for clock, then in zip(clocks, start, strict=True))
        row = {"way": way, "stage": name, "seconds": scale * seconds, "measured_seconds": seconds}
        row["cpu_seconds"] = scale * cpu
        self.rows.append(row | {"peak_memory_bytes": peak(self.setting.device)})
        print(", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)

    def finished(self) -> list[dict[str, Any]]:
        """The rows, each with its share of the time of its way; parts of another stage have none."""
        totals: dict[str, float] = {}
        clock = "seconds" if self.setting.device == "cuda" else "cpu_seconds"
        for row in self.rows:
            if ":" not in row["stage"]:
                totals[row["way"]] = totals.get(row["way"], 0.0) + row[clock]
        facts = {**asdict(self.setting), "torch": torch.__version__, "threads": torch.get_num_threads()}
        if self.setting.device == "cuda":
            facts["device_name"] = torch.cuda.get_device_name()
        return [
            {**facts, **row, "share": None if ":" in row["stage"] else row[clock] / totals[row["way"]]}
            for row in self.rows
        ]


def reset_peak(device: str) -> None:
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
    elif Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")


def peak(device: str) -> int | None:
    """Bytes since the last `reset_peak`: of the GPU's allocator, or of the process where Linux tells."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.exists() else []
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def write_images(folder: Path, setting: Setting, per_class: int) -> None:
    """Class folders of JPEGs: smooth colors with noise."""
    generator = torch.Generator().manual_seed(0)
    contents = []
    for _ in range(DIFFERENT):
        coarse = torch.rand(1, 3, 12, 16, generator=generator)
        smooth = F.interpolate(coarse, JPEG[::-1], mode="bicubic")[0]
        noisy = (smooth + 0.05 * torch.randn(smooth.shape, generator=generator)).clamp(0, 1)
        buffer = BytesIO()
        Image.fromarray((noisy * 255).byte().permute(1, 2, 0).numpy()).save(buffer, "JPEG", quality=85)
        contents.append(buffer.getvalue())
    for number, name in enumerate(setting.names):
        (folder / name).mkdir(parents=True)
        for index in range(per_class):
            (folder / name / f"{index}.jpg").write_bytes(contents[(number + index * setting.classes) % DIFFERENT])


def clean_and_evaluate(setting: Setting, home: Path, stages: Stages) -> tuple[Clip, PromptTuning]:
    """All stages of rvpt."""
    with stages.stage("load"):
        clip = load_clip(home / "clip", device=setting.device)
    with stages.stage("list"):
        few = Dataset.from_folder(home / "train").few_shot(setting.shots)
        test = Dataset.from_folder(home / "test")
    with stages.stage("read"):
        few = few.cached(clip.image_size)
    spec = setting.spec
    with frozen(clip):
        with stages.stage("constants"):
            task = PromptTuning(clip, few, spec)
        with stages.stage("train", scale=setting.epochs / setting.measured):
            fit(task, len(few), spec.model_copy(update={"epochs": setting.measured}))
    cleaned = Cleaned(clip, task.prompts.requires_grad_(False))
    with stages.stage("evaluate"):
        measure(cleaned, test)
    with stages.stage("evaluate: read"):
        for _ in test.batches(256, clip.image_size):
            pass
    encode(stages, setting, clip, cleaned.encode_image, "rvpt", "evaluate: encode")
    return clip, task


@torch.inference_mode()
def encode(
    stages: Stages, setting: Setting, clip: Clip, features: Callable[[Tensor], Tensor], way: str, stage: str
) -> None:
    """Time of encoding the test images, without reading them."""
    pixels = torch.rand(min(ENCODE_BATCH, setting.encoded), 3, clip.image_size, clip.image_size, device=setting.device)
    rounds = max(1, setting.encoded // len(pixels))
    features(pixels)
    with stages.stage(stage, way, scale=setting.test / (rounds * len(pixels))):
        for _ in range(rounds):
            features(pixels)


def train_otherwise(
    stages: Stages, setting: Setting, clip: Clip, way: str, parameters: list[Tensor], loss: Callable[..., Tensor]
) -> None:
    """Time of training with another loss, called with images and labels."""
    spec, device = setting.spec, torch.device(setting.device)
    optimizer = torch.optim.SGD(parameters, lr=spec.lr, momentum=spec.momentum)
    scaler = torch.amp.GradScaler(setting.device, enabled=setting.precision == "fp16")
    pixels = torch.rand(spec.batch_size, 3, clip.image_size, clip.image_size, device=device)
    labels = torch.randint(setting.classes, (spec.batch_size,), device=device)

    def step() -> None:
        with mixed_precision(setting.precision, device):
            value = loss(pixels, labels)
        scaler.scale(value).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    step()
    steps = count_steps(setting.classes * setting.shots, spec)
    with stages.stage("train", way, scale=steps / setting.steps):
        for _ in range(setting.steps):
            step()


def compare(setting: Setting, clip: Clip, task: PromptTuning, stages: Stages) -> None:
    """The same training and encoding by the naive path and with token prompts in both towers."""
    blocks, table = task.prompts.blocks, task.prompts.table.detach().clone().requires_grad_(True)

    def naive(pixels: Tensor, labels: Tensor) -> Tensor:
        image, rows = reference.prompted(clip, blocks, table, pixels)
        logits = zero_shot_logits(image, task.text, clip.logit_scale)
        frozen_rows = reference.frozen(clip, pixels, blocks[0])[1]
        return F.cross_entropy(logits, labels) + setting.spec.alpha * feature_repelling(rows, frozen_rows)

    tokens = TokenPrompts(clip, setting.names)
    with frozen(clip):
        train_otherwise(stages, setting, clip, "naive", [table], naive)
        encode(stages, setting, clip, lambda x: reference.prompted(clip, blocks, table, x)[0], "naive", "encode")
        train_otherwise(stages, setting, clip, "maple", [*tokens.parameters()], lambda x, y: tokens.loss(clip, x, y))
        encode(stages, setting, clip, lambda x: tokens.features(clip, x), "maple", "encode")


def run(setting: Setting) -> Iterator[list[dict[str, Any]]]:
    """All rows of one model, those of rvpt first, so that they are written if the others take too long."""
    stages = Stages(setting)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        random_clip(setting.model, "cpu", setting.names).save_pretrained(home / "clip")
        write_images(home / "train", setting, setting.shots)
        write_images(home / "test", setting, max(1, setting.test // setting.classes))
        clip, task = clean_and_evaluate(setting, home, stages)
        yield stages.finished()
        others = Stages(setting)
        compare(setting, clip, task, others)
        yield others.finished()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="b32", help=f"a list of {','.join(MODELS)}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu", choices=("cpu", "cuda"))
    parser.add_argument("--precision", default="fp32", help="a list of fp32,bf16,fp16")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--shots", type=int, default=16)
    parser.add_argument("--test", type=int, default=10_000, help="test images")
    parser.add_argument("--epochs", type=int, default=50)
    parser.add_argument("--measured", type=int, default=2, help="epochs that are run")
    parser.add_argument("--steps", type=int, default=10, help="training steps of the other ways")
    parser.add_argument("--encoded", type=int, default=1024, help="images that are encoded without reading")
    parser.add_argument("--output", type=Path, help="JSONL file to append to")
    asked = parser.parse_args()
    sizes = (asked.classes, asked.shots, asked.test, asked.epochs, asked.measured, asked.steps, asked.encoded)
    for model in asked.models.split(","):
        for precision in asked.precision.split(","):
            for rows in run(Setting(model, asked.device, precision, *sizes)):
                if asked.output:
                    append_rows(asked.output, rows)


if __name__ == "__main__":
    main()
