"""What is read from the folders of runs: logs, scores, curves, tables."""
