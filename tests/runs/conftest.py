"""What the tests of diverging seeds share."""

from pathlib import Path

import jax
import numpy as np
import pytest

from tests import diverging, toys
from utils.training import create_agents


@pytest.fixture(scope="session")
def one_of_three():
    """One of the seeds 0 to 2, and the threshold at which `tests.diverging` fails for it alone."""
    agent_file = toys.load(Path(diverging.__file__))
    example = toys.batch(size=2, observation_dim=4, action_dim=2)
    agents = create_agents(agent_file.agent_class, np.arange(3), example, agent_file.config)
    weights = np.array(jax.tree.leaves(agents.network.params["actor"])[-1]).reshape(3, -1)[:, 0]
    *_, second, largest = np.sort(weights)
    return int(weights.argmax()), float(second + largest) / 2
