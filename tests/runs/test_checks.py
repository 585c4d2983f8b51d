"""What a run looks for in its numbers: networks that nothing trains."""

import jax
import numpy as np

from tests import toys
from utils.runs.checks import UntouchedNetworks
from utils.training import create_agents


def untouched(capsys, stopped, frozen=()):
    """What is said of agents that are as they began, but for all networks that are not stopped."""
    agent_class, config = toys.tiny(**toys.SHALLOW)
    agents = create_agents(agent_class, np.arange(2), toys.batch(size=2), config)
    network = agents.network
    params = {
        name: tree if name in stopped else jax.tree.map(lambda x: x + 1e-3, tree)
        for name, tree in network.params.items()
    }
    checks = UntouchedNetworks(lambda: agents)
    moved = agents.replace(network=network.replace(params=params, frozen=tuple(frozen)))
    checks.warn(agents, updates=0)  # before the first update nothing can have moved
    assert capsys.readouterr().out == ""
    checks.warn(moved, updates=1)
    said = capsys.readouterr().out
    checks.warn(moved, updates=1)  # each network is looked at once
    assert capsys.readouterr().out == ""
    return said


def test_a_network_that_no_gradient_reached_is_named_once(capsys):
    said = untouched(capsys, ["refinement"])
    assert said.startswith("warning: no gradient has reached the network refinement")
    assert len(said.splitlines()) == 1


def test_networks_that_learn_or_are_frozen_are_not_spoken_of(capsys):
    assert untouched(capsys, []) == ""
    assert untouched(capsys, ["base_flow"], frozen=["base_flow"]) == ""


def test_a_network_that_was_frozen_is_looked_at_when_it_may_learn(capsys):
    agent_class, config = toys.tiny(**toys.SHALLOW)
    agents = create_agents(agent_class, np.arange(2), toys.batch(size=2), config)
    everything = agents.freeze(*agents.network.params)
    checks = UntouchedNetworks(lambda: agents)
    checks.warn(everything, updates=3)
    assert capsys.readouterr().out == ""
    others = [name for name in agents.network.params if name != "critic"]
    checks.warn(agents.freeze(*others), updates=0)
    assert capsys.readouterr().out == ""
    for _ in range(2):
        checks.warn(agents.freeze(*others), updates=3)
    said = capsys.readouterr().out
    assert said.count("warning: no gradient has reached the network") == 1
    assert "the network critic:" in said
