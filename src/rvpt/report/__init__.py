"""Rows in, tables out; knows rows, not torch."""

from rvpt.report.markdown import results

__all__ = ["results"]
