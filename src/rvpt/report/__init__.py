"""Rows in, tables out; knows rows, not torch."""

from rvpt.report.markdown import results
from rvpt.report.matrix import matrix

__all__ = ["matrix", "results"]
