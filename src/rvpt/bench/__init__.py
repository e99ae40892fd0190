"""Recipes as resumable matrices of runs."""

from rvpt.bench.checks import check_data
from rvpt.bench.engine import processes, ray_cluster
from rvpt.bench.execute import measured
from rvpt.bench.plan import Task, plan
from rvpt.bench.recipe import Recipe, read_recipe
from rvpt.bench.run import Outcome, estimate, missing, run_all

__all__ = [
    "Outcome", "Recipe", "Task", "check_data", "estimate", "measured", "missing", "plan", "processes", "ray_cluster",
    "read_recipe", "run_all",
]  # fmt: skip
