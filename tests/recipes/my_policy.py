"""A policy for evaluation: the flow starts at 0, so that the agent acts without noise.

python main.py --env_name=./my_task.py --eval_policy=./my_policy.py
"""

import jax.numpy as jnp


def policy(agent, observation, key):
    """Return an action (a,) for an observation (o,)."""
    start = jnp.zeros(agent.config["action_dim"])
    return agent.refine(observation, agent.propose(observation, start))
