"""Comparisons with other people's code: D4RL's environments, and agents of other repositories.

`python -m tests.parity` installs the original d4rl into a folder of its own, runs both sides in
another process and prints what it found as a Markdown table. `python -m tests.parity fql_style
PATH ...` runs agents' files of other repositories in both loops.
"""
