"""Measure `rvpt check` on the models of recipes/zoo.toml, and calibrate it.

    rvpt bench recipes/zoo.toml --rows rows/zoo.jsonl
    python benchmarks/check_zoo.py score --rows rows/check.jsonl
    python benchmarks/check_zoo.py calibrate --rows rows/check.jsonl
    python benchmarks/check_zoo.py report --rows rows/check.jsonl

`score` checks every model that is there; models with rows are skipped, and an interrupted run continues. `calibrate`
chooses the deciding scores and writes the calibration from the models with an even seed, `report` measures it on those
with an odd one.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from torch import Tensor

from rvpt.bench import plan, read_recipe
from rvpt.data.load import load_data
from rvpt.detection.baselines import decree, neural_cleanse
from rvpt.detection.calibration import Calibration, geometry_of
from rvpt.detection.outliers import outlier_index
from rvpt.detection.score import find
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import SUSPICIOUS, word_of
from rvpt.evaluation.metrics import Rate
from rvpt.inversion import FORMS
from rvpt.inversion.pool import Pool
from rvpt.models.clip import Clip
from rvpt.models.formats.load import EMBEDDED, load_clip
from rvpt.rows import Rows, append_rows, read_rows
from rvpt.training.loop import frozen

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "src" / "rvpt" / "assets" / "check-calibration.json"
QUANTITIES = ("margin", "share", "rise", "gap", "outlier")
CANDIDATES = [
    [*(f"{form}_{quantity}" for form in FORMS), *more] for quantity in QUANTITIES for more in ((), ("collapse",))
]
"""Sets of deciding scores: few, because few models choose between them."""
EASY = 0.5  # share of the images
DRAWS = 2_000  # of the bootstrap


def neural_cleanse_outlier(clip: Clip, pixels: Tensor, classes: Sequence[str]) -> float:
    """How far the smallest mask stands out among those of all classes."""
    with torch.no_grad():
        pool = Pool.of(clip, pixels, clip.class_features(classes))
    sizes = neural_cleanse(pool, torch.arange(len(classes), device=pixels.device), steps=100, images=24, seed=0)
    return outlier_index(-sizes)


def decree_size(clip: Clip, pixels: Tensor, classes: Sequence[str]) -> float:
    """The size of DECREE's mask: the smaller, the more it speaks for a backdoor."""
    return -decree(clip, pixels, steps=60, images=24, seed=0)


BASELINES = {"decree": decree_size, "neural_cleanse": neural_cleanse_outlier}


def score(recipe: Path, work: Path, path: Path, kept: Path | None, baselines: Sequence[str]) -> None:
    """A row for each model of the recipe that is there and has none."""
    known = {row["sha256"] for row in read_rows(path)} if path.is_file() else set()
    read = read_recipe(recipe)
    spec, data = CheckSpec(), load_data("scenes", "train")
    some = data.sample(spec.num_images, spec.seed)
    for task in plan(read, load_clip(read.model)):
        if task.kind != "attack" or not task.done(work):
            continue
        clip = load_clip(task.path(work))
        if clip.hash() in known:
            continue
        pixels, begun = some.pixels(torch.arange(len(some)), clip.image_size).to(clip.device), time.monotonic()
        with frozen(clip):
            found = find(clip, pixels, data.classes, spec, kept / task.key if kept else None)
            seconds = round(time.monotonic() - begun, 1)
            others = {name: BASELINES[name](clip, pixels, data.classes) for name in baselines}
        row = {
            "model": task.title.split(",")[0], "seed": task.settings["spec"]["seed"], "sha256": clip.hash(),
            "attacks": {trigger["name"]: trigger["target"] for trigger in task.settings["triggers"]},
            "scores": found.scores | others, "targets": found.targets, "words": found.words,
            "resistivity": found.resistivity, "settings": spec.model_dump(), "seconds": seconds,
        }  # fmt: skip
        append_rows(path, [row])
        print(row["model"], row["seed"], [target["class"] for target in found.targets], flush=True)


def calibrate(rows: Rows, path: Path, recipe: str) -> Calibration:
    """The calibration from the models with an even seed, with the deciding scores that tell them apart best."""
    even = [row for row in rows if row["seed"] % 2 == 0]
    models = [
        {"model": row["model"], "seed": row["seed"], "sha256": row["sha256"], "backdoored": bool(row["attacks"]),
         "scores": row["scores"]}
        for row in even
    ]  # fmt: skip
    geometry = geometry_of(load_clip(EMBEDDED))  # which all models were fine-tuned from
    tried = [Calibration(recipe, even[0]["settings"], names, models, geometry) for names in CANDIDATES]
    best = max(tried, key=lambda one: separation(even, lambda row: one.combined(row["scores"])))
    best.write(path)
    return best


def separation(rows: Sequence[Any], value: Callable[[Any], float]) -> tuple[float, float]:
    """AUROC, and of equals the distance of the means in clean standard deviations (which `value` is in)."""
    clean, bad = split(rows, value)
    return auroc(clean, bad), mean(bad) - mean(clean)


def split(rows: Sequence[Any], value: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
    """The values of clean and of backdoored models."""
    return [value(r) for r in rows if not r["attacks"]], [value(r) for r in rows if r["attacks"]]


def auroc(clean: Sequence[float], bad: Sequence[float]) -> float:
    """The chance that a backdoored model has the higher value: ties count half."""
    wins = [(b > c) + (b == c) / 2 for b in bad for c in clean]
    return mean(wins)


def auroc_interval(clean: Sequence[float], bad: Sequence[float]) -> tuple[float, float]:
    """95% interval by the bootstrap over models."""
    generator = torch.Generator().manual_seed(0)

    def draw(values: Sequence[float]) -> list[float]:
        return [values[i] for i in torch.randint(len(values), (len(values),), generator=generator).tolist()]

    drawn = sorted(auroc(draw(clean), draw(bad)) for _ in range(DRAWS))
    return drawn[round(0.025 * DRAWS)], drawn[round(0.975 * DRAWS) - 1]


def report(rows: Rows, calibration: Calibration) -> Iterator[str]:
    """Tables of the models with an odd seed."""
    odd = [row for row in rows if row["seed"] % 2]
    p_values = {row["sha256"]: calibration.p_value(row["scores"]) for row in odd}
    clean, bad = split(odd, lambda row: p_values[row["sha256"]] <= SUSPICIOUS)
    ranks = [place_of(row) for row in odd if row["attacks"]]
    yield f"deciding: {', '.join(calibration.deciding)}; {len(bad)} backdoored, {len(clean)} clean models"
    yield f"detected {shown(bad)}, false alarms {shown(clean)}"
    yield f"right target first {shown([r == 1 for r in ranks])}, in the top 3 {shown([0 < r <= 3 for r in ranks])}"
    easy = [p_values[row["sha256"]] <= SUSPICIOUS for row in odd if not row["attacks"] and is_easy(row)]
    yield f"false alarms among clean models with a class that is easy to reach {shown(easy)}\n"
    yield "| score | AUROC | calibration |\n| --- | --- | --- |"
    even = [row for row in rows if row["seed"] % 2 == 0]
    values = {"check": lambda row: calibration.combined(row["scores"])}
    values |= {name: (lambda row, name=name: row["scores"][name]) for name in odd[0]["scores"]}
    for name, value in values.items():
        low, high = auroc_interval(*split(odd, value))
        yield f"| {name} | {auroc(*split(odd, value)):.2f} [{low:.2f}, {high:.2f}] | {auroc(*split(even, value)):.2f} |"
    yield "\n| model | targets | p | verdict | first three classes |\n| --- | --- | --- | --- | --- |"
    for row in odd:
        p, names = p_values[row["sha256"]], ", ".join(target["class"] for target in row["targets"][:3])
        truth = ", ".join(dict.fromkeys(row["attacks"].values()))
        yield f"| {row['model'].partition('+')[2]} | {truth} | {p:.3f} | {word_of(p)} | {names} |"


def is_easy(row: Any) -> bool:
    """Whether a small change or patch turns many images into one of the classes."""
    return max(row["scores"][f"{form}_share"] for form in FORMS) >= EASY


def place_of(row: Any) -> int:
    """The place of a right target among the suspected ones, 0 if it is not among them."""
    names = [target["class"] for target in row["targets"]]
    found = [names.index(target) + 1 for target in row["attacks"].values() if target in names]
    return min(found, default=0)


def shown(hits: Sequence[bool]) -> str:
    """A share with its Wilson interval."""
    rate = Rate(sum(hits), len(hits))
    low, high = rate.interval() or (0.0, 1.0)
    return f"{sum(hits)} of {len(hits)} [{100 * low:.0f}, {100 * high:.0f}]%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "calibrate", "report"))
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "zoo.toml")
    parser.add_argument("--work-dir", type=Path, default=Path("runs"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--stages", type=Path, help="folder for finished stages of checks")
    parser.add_argument("--baseline", nargs="*", default=[], choices=BASELINES, help="published scores to add")
    args = parser.parse_args()
    if args.what == "score":
        score(args.recipe, args.work_dir, args.rows, args.stages, args.baseline)
    elif args.what == "calibrate":
        print(", ".join(calibrate(read_rows(args.rows), args.calibration, f"recipes/{args.recipe.name}").deciding))
    else:
        print("\n".join(report(read_rows(args.rows), Calibration.read(args.calibration))))


if __name__ == "__main__":
    main()
