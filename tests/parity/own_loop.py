"""The update as an agent's own main.py takes it."""

import inspect


def own_update(agent, batch, number):
    """Take an agent's own update as its main.py does; `number` counts from 1."""
    parameters = inspect.signature(agent.update).parameters
    keywords = {}
    if "full_update" in parameters:
        keywords["full_update"] = number % agent.config["actor_freq"] == 0
    if "current_step" in parameters:
        keywords["current_step"] = number
    return agent.update(batch, **keywords)
