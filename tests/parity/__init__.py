"""Comparison of the D4RL environments with the original package's own code.

`python -m tests.parity` installs the original into a folder of its own, runs both sides in another
process and prints what it found as a Markdown table.
"""
