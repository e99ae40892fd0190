"""The finished runs of a bench, which benchmarks measure further."""

from __future__ import annotations

import sys
from pathlib import Path

from rvpt.bench import Task, plan
from rvpt.bench.recipe import Recipe
from rvpt.models.formats.load import load_clip


def finished(recipe: Recipe, work: Path, kind: str) -> list[Task]:
    """The finished tasks of one kind that start from a model of the recipe; exits with a line where there are none."""
    found = [task for task in plan(recipe, load_clip(recipe.model)) if task.kind == kind and task.start]
    done = [task for task in found if task.done(work)]
    if not done:
        print(
            f"error: {work} holds no finished '{kind}' of the {len(found)} in the recipe: run 'rvpt bench' first, or "
            "give its folder as --work-dir",
            file=sys.stderr,
        )
        sys.exit(2)
    return done
