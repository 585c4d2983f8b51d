"""What is read from the folders of runs: logs, scores, curves, tables."""

from utils.report.paths import load

__all__ = ["load"]
