"""Reports: tables and figures made from rows, without torch."""

from rvpt.report.comparison import comparison
from rvpt.report.costs import costs
from rvpt.report.markdown import results
from rvpt.report.matrix import matrix
from rvpt.report.recovery import recovery

LAYOUTS = {"runs": results, "matrix": matrix, "costs": costs, "recovery": recovery, "paper": comparison}
"""Layouts of tables by name: one line per run, attacks x defenses, the cost of defenses, PA beside the clean model's,
and CA and ASR beside the paper's."""

__all__ = ["LAYOUTS", "comparison", "costs", "matrix", "recovery", "results"]
