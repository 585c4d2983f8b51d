"""What a run looks for in its numbers: rewards that are all equal, networks that nothing trains."""

import jax
import numpy as np
import pytest

from tests import toys
from tests.small_runs import REPOSITORY, make_run
from utils.runs.checks import UntouchedNetworks
from utils.runs.setup import prepare_data
from utils.training import create_agents

LAB = REPOSITORY / "tests" / "fql_style" / "lab"  # its agents take the range of rewards


def said_of_rewards(capsys, tmp_path, rewards, **settings):
    """What a run says when its settings are taken from data with these rewards."""
    run = make_run(tmp_path, tmp_path, LAB / "agents" / "gaussian.py", **settings)
    data = toys.transitions(len(rewards)) | {"terminals": np.zeros(len(rewards), np.float32)}
    data["rewards"] = np.array(rewards, np.float32)
    prepare_data(run.settings, run.agent_class, data, data)
    return capsys.readouterr().out


def test_an_empty_range_of_rewards_is_warned_of_with_a_remedy(capsys, tmp_path):
    said = said_of_rewards(capsys, tmp_path, [-1] * 20)
    assert said.startswith("warning: all rewards in the data are -1, and so are agent.min_reward")
    assert "by --agent.min_reward or --agent.max_reward" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("rewards", "settings"),
    [([-1] * 19 + [0], {}), ([-1] * 20, {"max_reward": 0.0}), ([-1] * 20, {"min_reward": -1.0})],
)
def test_a_range_that_is_not_empty_or_was_given_is_not_spoken_of(
    capsys, tmp_path, rewards, settings
):
    assert said_of_rewards(capsys, tmp_path, rewards, **settings) == ""


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


def test_a_network_that_stands_still_by_intent_is_looked_at_when_it_learns(capsys):
    agent_class, config = toys.tiny(**toys.SHALLOW)

    class Later(agent_class):
        @classmethod
        def learns(cls, config, network, step):
            return network != "critic" or step >= 10

    agents = create_agents(Later, np.arange(2), toys.batch(size=2), config)
    moved = {
        name: tree if name == "critic" else jax.tree.map(lambda x: x + 1e-3, tree)
        for name, tree in agents.network.params.items()
    }
    checks = UntouchedNetworks(lambda: agents)

    def said_after(steps):
        network = agents.network.replace(params=moved, step=np.full(2, steps))
        checks.warn(agents.replace(network=network), updates=5)
        return capsys.readouterr().out

    assert said_after(10) == ""  # the last update was the tenth, whose number is 9
    assert "the network critic:" in said_after(11)
