"""Reports: tables and figures made from rows, without torch."""

from rvpt.report.costs import costs
from rvpt.report.markdown import results
from rvpt.report.matrix import matrix

LAYOUTS = {"runs": results, "matrix": matrix, "costs": costs}
"""Layouts of tables by name: one line per run, attacks x defenses, or the cost of defenses."""

__all__ = ["LAYOUTS", "costs", "matrix", "results"]
