"""Rows in, tables out; knows rows, not torch."""

from rvpt.report.costs import costs
from rvpt.report.markdown import results
from rvpt.report.matrix import matrix

LAYOUTS = {"runs": results, "matrix": matrix, "costs": costs}
"""Tables of rows by name: a line for each run, attacks x defenses, or what defenses cost."""

__all__ = ["LAYOUTS", "costs", "matrix", "results"]
