"""The update as an agent's own main.py takes it."""

import inspect
from pathlib import Path

AGENTS = Path(__file__).resolve().parents[2] / "agents"
OTHER_NAMES = {"sac": "rlpd"}  # theirs and ours


def own_update(agent, batch, number):
    """Take an agent's own update as its main.py does; `number` counts from 1."""
    parameters = inspect.signature(agent.update).parameters
    keywords = {}
    if "full_update" in parameters:
        keywords["full_update"] = number % agent.config["actor_freq"] == 0
    if "current_step" in parameters:
        keywords["current_step"] = number
    return agent.update(batch, **keywords)


def our_file(path):
    """The file of this library's agent of the same algorithm, which may not exist."""
    return AGENTS / f"{OTHER_NAMES.get(path.stem, path.stem)}.py"
