"""Measure `rvpt check` on models that are known to be clean or backdoored, and calibrate it.

    rvpt bench recipes/check.toml --num-workers 2
    python benchmarks/check_zoo.py collect --recipe recipes/check.toml --rows rows/check.jsonl
    python benchmarks/check_zoo.py calibrate --rows rows/check.jsonl
    python benchmarks/check_zoo.py report --rows rows/check.jsonl
    python benchmarks/check_zoo.py compare --rows rows/check-forms.jsonl

The bench makes and checks the models; `collect` gathers what it measured, with `--baseline` for published scores.
`calibrate` writes the calibration from the models with an even seed, `report` measures it on those with an odd one.
Models were checked with all classes as finalists, which says what is natural; a row is read as if only the first few
had been. `compare` shows what single forms and budgets would find on models with an even seed, from rows of checks
with other settings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

import torch

from rvpt.bench import plan, read_recipe
from rvpt.data.load import load_data
from rvpt.detection.baselines import clip_inspector, decree, neural_cleanse
from rvpt.detection.calibration import Calibration, geometry_of
from rvpt.detection.natural import Known, excesses
from rvpt.detection.outliers import outlier_index
from rvpt.detection.spec import CheckSpec
from rvpt.detection.verdict import SUSPICIOUS, word_of
from rvpt.evaluation.metrics import Rate
from rvpt.files import read_json
from rvpt.inversion.form import radius
from rvpt.inversion.pool import Pool
from rvpt.models.clip import Clip
from rvpt.models.formats.load import load_clip
from rvpt.rows import Rows, append_rows, read_rows
from rvpt.training.loop import frozen

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "src" / "rvpt" / "assets" / "check-calibration.json"
BASELINES = ("neural_cleanse", "decree", "clip_inspector")
INSPECTED = 8.0  # root mean square of CLIP-Inspector's trigger, in 255ths
BUDGETS = {
    "additive": ["budget"], "waves": ["wave_budget", "waves"], "warp": ["warp_budget", "warp_points"],
    "grating": ["amplitude"], "patch": ["patch_size"],
}  # fmt: skip
DRAWS = 2_000  # of the bootstrap


def collect(recipe: Path, work: Path, path: Path, baselines: Sequence[str]) -> None:
    """A row for each model of the recipe that is checked and has none."""
    known = {row["sha256"] for row in read_rows(path)} if path.is_file() else set()
    read = read_recipe(recipe)
    assert read.check is not None, "the recipe has no table `check`"
    data = load_data(read.check.data, read.check.split)
    for task in plan(read, load_clip(read.model)):
        if task.kind != "check" or task.start is None or not task.done(work):
            continue
        found, made = read_json(task.path(work)), task.start.settings
        if found["model_sha256"] in known:
            continue
        scores = found["scores"]
        if baselines:
            scores |= published(load_clip(task.start.path(work)), data, CheckSpec(**found["settings"]), baselines)
        row = {
            "model": task.start.title.split(",")[0], "seed": made["spec"]["seed"], "sha256": found["model_sha256"],
            "attacks": {trigger["name"]: trigger["target"] for trigger in made["triggers"]}, "scores": scores,
            "rises": found["rises"], "words": found["words"], "settings": found["settings"],
        }  # fmt: skip
        append_rows(path, [row])


def published(clip: Clip, data: Any, spec: CheckSpec, names: Sequence[str]) -> dict[str, float]:
    """Published scores of a model on the images of its check; higher values speak for a backdoor."""
    some = data.sample(spec.num_images, spec.seed)
    pixels = some.pixels(torch.arange(len(some)), clip.image_size).to(clip.device)
    every = torch.arange(len(data.classes), device=clip.device)
    with frozen(clip):
        pool = Pool.of(clip, pixels, clip.class_features(data.classes))
        limit, own = radius(INSPECTED, pixels.shape[1:]), spec.model_copy(update={"images": 16})
        found: dict[str, Callable[[], float]] = {
            "neural_cleanse": lambda: outlier_index(-neural_cleanse(pool, every, steps=60, images=16, seed=0)),
            "decree": lambda: -decree(clip, pixels, steps=60, images=24, seed=0),
            "clip_inspector": lambda: clip_inspector(pool, every, limit, own),
        }
        return {name: found[name]() for name in names}


def scores_of(row: Any, known: Known) -> dict[str, float]:
    """All scores that a check of the model has, and the published ones."""
    found = excesses(row["rises"], known, CheckSpec().finalists)
    return row["scores"] | {form: max(each.values()) for form, each in found.items()}


def targets_of(row: Any, known: Known) -> list[str]:
    """Suspected targets, the most suspicious first."""
    best: dict[str, float] = {}
    for found in excesses(row["rises"], known, CheckSpec().finalists).values():
        best |= {name: max(value, best.get(name, value)) for name, value in found.items()}
    return sorted(best, key=best.__getitem__, reverse=True)


def calibrate(rows: Rows, path: Path, recipe: Path) -> Calibration:
    """The calibration from the models with an even seed: all forms decide."""
    even = [row for row in rows if row["seed"] % 2 == 0]
    kept = ("model", "seed", "sha256", "scores", "rises")
    models = [{**{name: row[name] for name in kept}, "backdoored": bool(row["attacks"])} for row in even]
    usual = CheckSpec()
    forms = tuple(form for form in usual.forms if any(form in row["rises"] for row in even))
    spec = CheckSpec(**{**even[0]["settings"], "finalists": usual.finalists, "forms": forms})
    geometry = geometry_of(load_clip(read_recipe(recipe).model))
    made = Calibration.of(f"recipes/{recipe.name}", spec, forms, models, geometry)
    made.write(path)
    return made


def compare(rows: Rows) -> Iterator[str]:
    """What single forms and budgets would find, each setting calibrated on the models of its rows without the one."""
    yield "| form | settings | AUROC | right target first |\n| --- | --- | --- | --- |"
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["settings"], sort_keys=True), []).append(row)
    for some in groups.values():
        spec = CheckSpec(**{**some[0]["settings"], "finalists": CheckSpec().finalists})
        models = [{**row, "backdoored": bool(row["attacks"])} for row in some]
        made = Calibration.of("", spec, spec.forms, models, {})
        clean, bad = calibrated(made, made.p_value)
        known = made.known()
        first = [place_of(row, targets_of(row, known)) == 1 for row in some if row["attacks"]]
        named = ", ".join(f"{name}={getattr(spec, name):g}" for name in BUDGETS[spec.forms[0]])
        found = auroc([-p for p in clean], [-p for p in bad])
        yield f"| {spec.forms[0]} | {named} | {found:.2f} | {shown(first)} |"


def auroc(clean: Sequence[float], bad: Sequence[float]) -> float:
    """The chance that a backdoored model has the higher value: ties count half."""
    return mean((b > c) + (b == c) / 2 for b in bad for c in clean)


def auroc_interval(clean: Sequence[float], bad: Sequence[float]) -> tuple[float, float]:
    """95% interval by the bootstrap over models."""
    generator = torch.Generator().manual_seed(0)

    def draw(values: Sequence[float]) -> list[float]:
        return [values[i] for i in torch.randint(len(values), (len(values),), generator=generator).tolist()]

    drawn = sorted(auroc(draw(clean), draw(bad)) for _ in range(DRAWS))
    return drawn[round(0.025 * DRAWS)], drawn[round(0.975 * DRAWS) - 1]


def report(rows: Rows, calibration: Calibration) -> Iterator[str]:
    """Tables of the models with an odd seed, those that were checked with other forms apart."""
    odd = [row for row in rows if row["seed"] % 2]
    for forms in dict.fromkeys(tuple(row["rises"]) for row in odd):
        known = [model for model in calibration.models if set(forms) <= set(model["scores"])]
        some = [row for row in odd if tuple(row["rises"]) == forms]
        yield f"# forms: {', '.join(forms)}"
        yield from report_of(some, replace(calibration, models=known))


def report_of(odd: Sequence[Any], calibration: Calibration) -> Iterator[str]:
    """Tables of models that were checked with the same forms."""
    known = calibration.known()
    scores = {row["sha256"]: scores_of(row, known) for row in odd}
    p_values = {sha256: calibration.p_value(each) for sha256, each in scores.items()}
    names = {row["sha256"]: targets_of(row, known) for row in odd}
    ranks = [place_of(row, names[row["sha256"]]) for row in odd if row["attacks"]]
    yield detection("reported", *split(odd, lambda row: p_values[row["sha256"]]))
    yield detection("calibration, each without itself", *calibrated(calibration, calibration.p_value))
    yield f"right target first {shown([r == 1 for r in ranks])}, in the top 3 {shown([0 < r <= 3 for r in ranks])}\n"
    yield from by_attack(odd, p_values, names)
    yield "\n| score | AUROC | calibration |\n| --- | --- | --- |"
    values: dict[str, Callable[[Mapping[str, float]], float]] = {"check": lambda each: -calibration.p_value(each)}
    values |= {name: score_called(name) for name in next(iter(scores.values()))}
    for name, value in values.items():
        found = {sha256: value(each) for sha256, each in scores.items()}
        groups = split(odd, lambda row, found=found: found[row["sha256"]])
        yield f"| {name} | {auroc_shown(*groups)} | {auroc_shown(*calibrated(calibration, value))} |"
    yield "\n| model | seed | targets | p | verdict | first three classes |\n| --- | --- | --- | --- | --- | --- |"
    for row in odd:
        p, first = p_values[row["sha256"]], ", ".join(names[row["sha256"]][:3])
        truth = ", ".join(dict.fromkeys(row["attacks"].values()))
        yield f"| {row['model'].partition('+')[2]} | {row['seed']} | {truth} | {p:.3f} | {word_of(p)} | {first} |"


def score_called(name: str) -> Callable[[Mapping[str, float]], float]:
    """One of the scores of a model, 0 if it has none of this name."""
    return lambda scores: scores.get(name, 0.0)


def detection(title: str, clean: Sequence[float], bad: Sequence[float]) -> str:
    """Rates at which models are called suspicious, by their p-values."""
    found, alarms = ([p <= SUSPICIOUS for p in each] for each in (bad, clean))
    return f"{title}: {shown(found)} backdoored models detected, false alarms {shown(alarms)}"


def calibrated(
    calibration: Calibration, value: Callable[[Mapping[str, float]], float]
) -> tuple[list[float], list[float]]:
    """A value of the clean and of the backdoored models of a calibration."""
    clean, bad = ([value(m["scores"]) for m in calibration.models if m["backdoored"] == kind] for kind in (False, True))
    return clean, bad


def auroc_shown(clean: Sequence[float], bad: Sequence[float]) -> str:
    """AUROC with its interval."""
    if not clean or not bad:
        return ""
    low, high = auroc_interval(clean, bad)
    return f"{auroc(clean, bad):.2f} [{low:.2f}, {high:.2f}]"


def by_attack(rows: Sequence[Any], p_values: Mapping[str, float], names: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """For each kind of trigger, or pair of them, how often it is found."""
    yield "| trigger | models | detected | target first |\n| --- | --- | --- | --- |"
    kinds = dict.fromkeys(", ".join(row["attacks"]) for row in rows if row["attacks"])
    for kind in kinds:
        some = [row for row in rows if row["attacks"] and ", ".join(row["attacks"]) == kind]
        found = sum(p_values[row["sha256"]] <= SUSPICIOUS for row in some)
        first = sum(place_of(row, names[row["sha256"]]) == 1 for row in some)
        yield f"| {kind} | {len(some)} | {found} | {first} |"


def split(rows: Sequence[Any], value: Callable[[Any], Any]) -> tuple[list[Any], list[Any]]:
    """The values of clean and of backdoored models."""
    return [value(r) for r in rows if not r["attacks"]], [value(r) for r in rows if r["attacks"]]


def place_of(row: Any, names: Sequence[str]) -> int:
    """The place of a right target among the suspected ones, 0 if it is not among them."""
    found = [names.index(target) + 1 for target in row["attacks"].values() if target in names]
    return min(found, default=0)


def shown(hits: Sequence[bool]) -> str:
    """A share with its Wilson interval."""
    rate = Rate(sum(hits), len(hits))
    low, high = rate.interval() or (0.0, 1.0)
    return f"{sum(hits)} of {len(hits)} [{100 * low:.0f}, {100 * high:.0f}]%"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collect", "calibrate", "report", "compare"))
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "check.toml")
    parser.add_argument("--work-dir", type=Path, default=Path("runs"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--baseline", nargs="*", default=[], choices=BASELINES, help="published scores to add")
    args = parser.parse_args()
    if args.what == "collect":
        collect(args.recipe, args.work_dir, args.rows, args.baseline)
    elif args.what == "calibrate":
        print(", ".join(calibrate(read_rows(args.rows), args.calibration, args.recipe).deciding))
    elif args.what == "compare":
        print("\n".join(compare(read_rows(args.rows))))
    else:
        print("\n".join(report(read_rows(args.rows), Calibration.read(args.calibration))))


if __name__ == "__main__":
    main()
