"""Settings that can be varied in one program, and those that cannot."""

import re

import pytest

from tests import toys
from tests.test_toy_agents import TOYS
from utils.errors import UserError
from utils.varied_check import check_varied

BASE = """
from parts.actor_critic import ActorCritic, settings


class Agent(ActorCritic):
    def actor_loss(self, batch, params):
        loss, metrics = super().actor_loss(batch, params)
        {line}
        return loss, metrics

    @classmethod
    def networks(cls, observations, actions, config):
        networks = super().networks(observations, actions, config)
        {networks}
        return networks


def get_config():
    return settings(weight=0.5)
"""
LEAKY = """networks["actor"] = (Scaled(config["weight"], actions.shape[-1]), (observations,))"""
MODULE = """
import flax.linen as nn


class Scaled(nn.Module):
    weight: float
    output_dim: int

    @nn.compact
    def __call__(self, observations):
        return self.weight * nn.Dense(self.output_dim)(observations)
"""


def check(path, name, values, **keywords):
    agent_file = toys.load(path)
    check_varied(agent_file.agent_class, agent_file.config, name, values, **keywords)


@pytest.mark.parametrize("name", ["lr", "average_rate"])
def test_numbers_of_the_update_can_be_varied(name):
    check(TOYS / "averages.py", name, (0.1, 0.5))


def refusal(path, name, values, **keywords):
    with pytest.raises(UserError) as error:
        check(path, name, values, **keywords)
    begin, why = re.fullmatch(
        r"--vary agent\.(\w+): (.*), so its values do not fit into one program; python -m "
        r"utils\.sweep takes the same --vary, and trains each value in a run of its own",
        str(error.value),
    ).groups()
    assert begin == name
    return why


@pytest.mark.parametrize(
    ("toy", "name"), [("monte_carlo", "discount"), ("scaled_rewards", "reward_scale")]
)
def test_what_the_data_depend_on_is_refused(toy, name):
    assert "data that it learns from" in refusal(TOYS / f"{toy}.py", name, (0.1, 0.9))


@pytest.mark.parametrize(
    ("line", "networks", "why"),
    [
        ("loss = loss if self.config.weight else 2 * loss", "", "a branch, a shape or a constant"),
        ("loss = loss * float(self.config.weight)", "", "a branch, a shape or a constant"),
        ("loss = loss + batch['rewards'][: int(4 * self.config.weight)].sum()", "", "a branch"),
        ("", LEAKY, "what its networks compute"),
    ],
)
def test_what_the_program_depends_on_is_refused(tmp_path, line, networks, why):
    (tmp_path / "parts").symlink_to(TOYS / "parts")
    path = tmp_path / "mine.py"
    path.write_text(MODULE + BASE.format(line=line or "pass", networks=networks or "pass"))
    assert why in refusal(path, "weight", (0.25, 0.75))
    check(path, "lr", (1e-4, 1e-3))


def test_what_a_policy_of_evaluation_decides_by_is_refused():
    def policy(agent, observation, key):
        return agent.sample_actions(observation, key, 1.0 if agent.config.tau > 0.1 else 0.0)

    assert "a branch" in refusal(TOYS / "averages.py", "tau", (0.1, 0.5), policy=policy)


def test_settings_of_an_agent_of_another_repository_are_refused():
    """Its optimiser and its settings are made with it, and are no arrays."""
    lab = TOYS.parent / "fql_style" / "lab" / "agents" / "gaussian.py"
    assert refusal(lab, "lr", (1e-4, 1e-3))
