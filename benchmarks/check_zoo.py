"""Measure `rvpt check` on models that are known to be clean or backdoored, and calibrate it.

    rvpt bench recipes/check.toml --num-workers 2
    python benchmarks/check_zoo.py collect --recipe recipes/check.toml --rows rows/check.jsonl
    python benchmarks/check_zoo.py calibrate --rows rows/check.jsonl
    python benchmarks/check_zoo.py report --rows rows/check.jsonl --output docs/results/check.md
    python benchmarks/check_zoo.py compare --rows rows/check-forms.jsonl

The bench makes and checks the models; `collect` gathers what it measured, with `--baseline` for published scores, which
`--num-workers` processes compute. `calibrate` writes the calibration from the models with an even seed, and keeps those
for models of other sizes that the file has. `report` measures it on the models with an odd seed, and writes its tables
between the marks of a page. Models were checked with all classes as finalists, which says what is natural; a row is
read as if only the first few had been. `compare` shows what single forms and budgets would find on models with an even
seed, from rows of checks with other settings.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from check_collect import BASELINES, collect, latest
from check_tables import OF_A_ZOO, SECTIONS, Judged, auroc, line, shown, table, tables, without
from rvpt.bench import read_recipe
from rvpt.data.load import load_data
from rvpt.detection.calibration import Calibration, geometry_of
from rvpt.detection.spec import CheckSpec
from rvpt.files import write_text
from rvpt.models.formats.load import load_clip
from rvpt.report.markdown import between_marks
from rvpt.rows import Rows, read_rows

ROOT = Path(__file__).parents[1]
CALIBRATION = ROOT / "src" / "rvpt" / "assets" / "check-calibration.json"
BUDGETS = {
    "additive": ["budget"], "waves": ["wave_budget", "waves"], "warp": ["warp_budget", "warp_points"],
    "grating": ["amplitude"], "patch": ["patch_size"],
}  # fmt: skip


def calibrate(rows: Rows, path: Path, recipe: Path) -> Calibration:
    """The calibration from the models with an even seed: all forms decide."""
    even = [row for row in rows if row["seed"] % 2 == 0]
    kept = ("model", "seed", "sha256", "scores", "rises")
    models = [{**{name: row[name] for name in kept}, "backdoored": bool(row["attacks"])} for row in even]
    usual = CheckSpec()
    forms = tuple(form for form in usual.forms if any(form in row["rises"] for row in even))
    spec = CheckSpec(**{**even[0]["settings"], "finalists": usual.finalists, "forms": forms})
    check = read_recipe(recipe).check
    name = load_data(check.data, check.split).name if check else ""
    made = Calibration.of(f"recipes/{recipe.name}", spec, forms, models, geometry(recipe), name)
    made.write(path)
    return made


def geometry(recipe: Path) -> dict[str, int]:
    """That of the recipe's models."""
    return geometry_of(load_clip(read_recipe(recipe).model))


def compare(rows: Rows) -> Iterator[str]:
    """What single forms and budgets would find, each setting calibrated on the models of its rows without the one."""
    yield table("form", "settings", "AUROC", "right target first")
    groups: dict[str, list[Any]] = {}
    for row in rows:
        groups.setdefault(json.dumps(row["settings"], sort_keys=True), []).append(row)
    for some in groups.values():
        spec = CheckSpec(**{**some[0]["settings"], "finalists": CheckSpec().finalists})
        models = [{**row, "backdoored": bool(row["attacks"])} for row in some]
        made = Calibration.of("", spec, spec.forms, models, {})
        judged = [Judged.of(row, without(made, row)) for row in some]
        clean, bad = ([-m.p for m in judged if m.backdoored is kind] for kind in (False, True))
        named = ", ".join(f"{name}={getattr(spec, name):g}" for name in BUDGETS[spec.forms[0]])
        first = shown([m.place == 1 for m in judged if m.backdoored])
        yield line(spec.forms[0], named, f"{auroc(clean, bad):.2f}", first)


def show(made: dict[str, str], page: Path | None, prefix: str) -> None:
    """Print the tables by their names, or write each between its marks of a page."""
    if page is None:
        print("\n".join(f"## {prefix}{name}\n\n{text}" for name, text in made.items()))
        return
    text = page.read_text(encoding="utf-8")
    for name, tables_of_it in made.items():
        text = between_marks(text, tables_of_it, prefix + name)
    write_text(page, text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("collect", "calibrate", "report", "compare"))
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes" / "check.toml")
    parser.add_argument("--work-dir", type=Path, default=Path("runs"))
    parser.add_argument("--rows", type=Path, required=True)
    parser.add_argument("--calibration", type=Path, default=CALIBRATION)
    parser.add_argument("--baseline", nargs="*", default=[], choices=BASELINES, help="published scores to add")
    parser.add_argument("--device", help="where published scores are computed; by default the GPU if there is one")
    parser.add_argument("--num-workers", type=int, default=1, help="processes that compute them")
    parser.add_argument("--output", type=Path, help="page to write the tables into, between marks; by default printed")
    parser.add_argument("--tables", nargs="*", choices=tuple(SECTIONS), help="to report; by default those of a zoo")
    parser.add_argument("--prefix", default="", help="of the names of the tables' marks")
    args = parser.parse_args()
    if args.what == "collect":
        collect(args.recipe, args.work_dir, args.rows, args.baseline, args.device, args.num_workers)
    elif args.what == "calibrate":
        print(", ".join(calibrate(latest(args.rows), args.calibration, args.recipe).deciding))
    elif args.what == "compare":
        show({"forms": "\n".join(compare(read_rows(args.rows))) + "\n"}, args.output, args.prefix)
    else:
        calibration = Calibration.read(args.calibration, geometry(args.recipe))
        show(tables(latest(args.rows), calibration, args.tables or OF_A_ZOO), args.output, args.prefix)


if __name__ == "__main__":
    main()
