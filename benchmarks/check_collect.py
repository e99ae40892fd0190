"""Rows of checked models: what a bench measured, and published scores, which several processes can compute."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from check_baselines import clip_inspector, decree, neural_cleanse, outlier_index
from finished import finished
from rvpt.bench import Task, read_recipe
from rvpt.data.load import load_data
from rvpt.detection.spec import CheckSpec
from rvpt.files import read_json
from rvpt.inversion.form import radius
from rvpt.inversion.pool import Pool
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.progress import bar
from rvpt.rows import Rows, append_rows, read_rows
from rvpt.training.loop import frozen

BASELINES = ("neural_cleanse", "decree", "clip_inspector")
INSPECTED = 8.0  # root mean square of CLIP-Inspector's trigger, in 255ths


@dataclass(frozen=True)
class Job:
    """One checked model: its row without published scores, and what is still to be computed."""

    row: dict[str, Any]
    folder: Path
    source: tuple[str, str]
    baselines: tuple[str, ...]
    device: str | None


def collect(
    recipe: Path, work: Path, path: Path, baselines: Sequence[str], device: str | None = None, workers: int = 1
) -> None:
    """Append a row for each checked model of a recipe, unless the file has one with all of the baselines.

    Rows are appended as they come, so an interrupted run continues where it was. A model that has a row without some of
    the baselines gets another one, which `latest` prefers.

    Args:
        recipe: with a table `check`.
        work: work folder of the bench.
        path: of the rows.
        baselines: names of published scores.
        device: where they are computed.
        workers: processes; those on a GPU share it.
    """
    jobs = list(_jobs(recipe, work, path, baselines, device))
    with bar("models") as report:
        for place, row in enumerate(_computed(jobs, workers), 1):
            append_rows(path, [row])
            report(place, len(jobs), {})


def latest(path: Path) -> Rows:
    """The last row of each model in a file, which has all of its scores."""
    return Rows({row["sha256"]: row for row in read_rows(path)}.values())


def _jobs(recipe: Path, work: Path, path: Path, baselines: Sequence[str], device: str | None) -> Iterator[Job]:
    read = read_recipe(recipe)
    assert read.check is not None, "the recipe has no table `check`"
    known = {row["sha256"]: row for row in latest(path)} if path.is_file() else {}
    for task in finished(read, work, "check"):
        assert task.start is not None
        found = read_json(task.path(work))
        earlier = known.get(found["model_sha256"], {"scores": {}, "seconds": {}})
        missing = tuple(name for name in baselines if name not in earlier["scores"])
        if missing or "rises" not in earlier:
            row = _row(task.start, found, earlier, _usual_seconds(work))
            yield Job(row, task.start.path(work), (read.check.data, read.check.split), missing, device)


def _row(made: Task, found: dict[str, Any], earlier: dict[str, Any], usual: dict[str, float]) -> dict[str, Any]:
    """What the check of one model measured, and the published scores that an earlier row has."""
    seconds = {"check": found["seconds"]} if "seconds" in found else usual
    return {
        "model": made.title.split(",")[0], "seed": made.settings["spec"]["seed"], "sha256": found["model_sha256"],
        "attacks": {trigger["name"]: trigger["target"] for trigger in made.settings["triggers"]},
        "scores": {**earlier["scores"], **found["scores"]}, "rises": found["rises"], "words": found["words"],
        "settings": found["settings"], "seconds": {**earlier.get("seconds", {}), **seconds},
    }  # fmt: skip


def _usual_seconds(work: Path) -> dict[str, float]:
    """The median time of a check in this work folder, for checks that do not tell their own."""
    path = work / "times.jsonl"
    known = [row["seconds"] for row in (read_rows(path) if path.is_file() else []) if row["kind"] == "check"]
    return {"check": median(known)} if known else {}


def _computed(jobs: Sequence[Job], workers: int) -> Iterable[dict[str, Any]]:
    """The rows of all jobs, as they are ready."""
    if workers == 1 or not any(job.baselines for job in jobs):
        yield from map(_with_baselines, jobs)
        return
    threads = max(1, torch.get_num_threads() // workers)
    context = get_context("spawn")  # CUDA does not survive a fork
    with ProcessPoolExecutor(workers, context, initializer=torch.set_num_threads, initargs=(threads,)) as pool:
        for done in as_completed([pool.submit(_with_baselines, job) for job in jobs]):
            yield done.result()


def _with_baselines(job: Job) -> dict[str, Any]:
    if not job.baselines:
        return job.row
    clip, spec = load_clip(job.folder, device=job.device), CheckSpec(**job.row["settings"])
    pixels, classes = _images(*job.source, spec.num_images, spec.seed, clip.image_size)
    scores, seconds = published(clip, pixels.to(clip.device), classes, spec, job.baselines)
    return {**job.row, "scores": job.row["scores"] | scores, "seconds": job.row["seconds"] | seconds}


@lru_cache(maxsize=1)
def _images(source: str, split: str, count: int, seed: int, side: int) -> tuple[Tensor, list[str]]:
    """The images that checks draw, and the names of the classes; read once per process."""
    data = load_data(source, split)
    some = data.sample(count, seed)
    return some.pixels(torch.arange(len(some)), side), list(data.classes)


def published(
    clip: Clip, pixels: Tensor, classes: Sequence[str], spec: CheckSpec, names: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Published scores of a model on the images of its check, and their seconds; higher scores speak for a backdoor."""
    every = torch.arange(len(classes), device=clip.device)
    with frozen(clip):
        pool = Pool.of(clip, pixels, clip.class_features(classes))
        limit, own = radius(INSPECTED, pixels.shape[1:]), spec.model_copy(update={"images": 16})
        how: dict[str, Callable[[], float]] = {
            "neural_cleanse": lambda: outlier_index(-neural_cleanse(pool, every, steps=60, images=16, seed=0)),
            "decree": lambda: -decree(clip, pixels, steps=60, images=24, seed=0),
            "clip_inspector": lambda: clip_inspector(pool, every, limit, own),
        }
        scores, seconds = {}, {}
        for name in names:
            begun = time.perf_counter()
            scores[name] = how[name]()  # a number on the CPU, so all work is done
            seconds[name] = round(time.perf_counter() - begun, 2)
    return scores, seconds
