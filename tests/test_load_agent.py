"""The agent of a run's folder: of which checkpoint, seed and source it is."""

import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import toys
from tests.small_runs import REPOSITORY, networks, train
from utils.errors import UserError
from utils.load_agent import load_agent, load_agents

RECIPES = REPOSITORY / "tests" / "recipes"


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory, dataset_dir):
    """A run of seeds 3 and 4."""
    folder = tmp_path_factory.mktemp("two_seeds")
    return train(folder, dataset_dir, seed=3, num_seeds=2, eval_interval=0)


def params_of(agent):
    return jax.tree.map(np.asarray, agent.network.params)


def test_it_is_the_last_checkpoints(two_seeds):
    loaded = load_agents(two_seeds.folder.path)
    assert loaded.step == 40
    np.testing.assert_array_equal(loaded.seeds, [3, 4])
    saved = networks(two_seeds)
    for name in ("params", "target_params"):
        chex.assert_trees_all_equal(getattr(loaded.agents.network, name), saved[name])
    assert (np.asarray(loaded.agents.network.step) == 40).all()


def test_a_seed_is_that_seeds_row(two_seeds):
    saved = networks(two_seeds)["params"]
    for index, seed in enumerate((3, 4)):
        expected = jax.tree.map(lambda x, i=index: x[i], saved)
        agent = load_agent(two_seeds.folder.path, seed)
        chex.assert_trees_all_equal(params_of(agent), expected)
    chex.assert_trees_all_equal(
        params_of(load_agent(two_seeds.folder.path)), jax.tree.map(lambda x: x[0], saved)
    )
    observation = jnp.zeros(agent.config["ob_dims"])
    action = jax.jit(agent.sample_actions)(observation, jax.random.key(0))
    assert action.shape == (agent.config["action_dim"],)
    assert np.isfinite(action).all()


@pytest.mark.parametrize("seed", [0, 2, 5, -1])
def test_another_seed_is_refused(two_seeds, seed):
    with pytest.raises(UserError, match=rf"^{seed} is not a seed of the run in .*; it has 3, 4$"):
        load_agent(two_seeds.folder.path, seed)


def test_the_kept_source_is_executed_unless_a_file_is_given(two_seeds, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(two_seeds.folder.path, folder)
    source = (folder / "source/agent/deflow.py").read_text()
    (folder / "source/agent/deflow.py").write_text(f"{source}\n\nDeFlowAgent.ORIGIN = 'kept'\n")
    other = tmp_path / "other.py"
    other.write_text(f"{source}\n\nDeFlowAgent.ORIGIN = 'given'\n")
    kept, given = load_agent(folder), load_agent(folder, agent_file=other)
    assert (kept.ORIGIN, given.ORIGIN) == ("kept", "given")
    chex.assert_trees_all_equal(params_of(kept), params_of(given))


def test_a_file_of_other_networks_is_refused(two_seeds):
    with pytest.raises(UserError, match="give the agent's file that the run was trained with"):
        load_agent(two_seeds.folder.path, agent_file=toys.AGENTS / "fql.py")


def test_a_tuple_from_the_data_is_a_tuple_again(tmp_path, dataset_dir):
    agent = tmp_path / "scaled.py"
    agent.write_text(
        "import jax.numpy as jnp\n"
        "from agents import deflow\n\n"
        "class Scaled(deflow.DeFlowAgent):\n"
        "    @classmethod\n"
        "    def settings_from_data(cls, data, config):\n"
        "        return {'mean': tuple(data['observations'].mean(0).tolist())}\n\n"
        "def get_config():\n"
        "    config = deflow.get_config()\n"
        "    config.mean = ()\n"
        "    return config\n"
    )
    run = train(tmp_path, dataset_dir, agent=agent, eval_interval=0)
    mean = load_agent(run.folder.path).config["mean"]
    assert isinstance(mean, tuple)
    assert len(mean) > 1
    assert mean == run.settings.agent["mean"]


def test_an_encoder_by_path_is_the_copy_that_the_run_keeps(tmp_path, dataset_dir):
    encoder = tmp_path / "my_encoder.py"
    shutil.copy(RECIPES / "my_encoder.py", encoder)
    run = train(
        tmp_path,
        dataset_dir,
        env_name=str(RECIPES / "my_images.py"),
        encoder=str(encoder),
        eval_interval=0,
    )
    encoder.unlink()
    agent = load_agent(run.folder.path)
    assert agent.config["encoder"] == str(run.folder.path / "source/encoder/my_encoder.py")
    expected = jax.tree.map(lambda x: x[0], networks(run)["params"])
    chex.assert_trees_all_equal(params_of(agent), expected)
    assert "encoder" in expected["critic"]
    images = jnp.zeros((3, 8, 8, 1), jnp.uint8)
    assert agent.sample_actions(images, jax.random.key(0)).shape == (3, 1)


def test_what_is_no_run_is_named(two_seeds, tmp_path):
    with pytest.raises(UserError, match=r"is not the folder of a run \(no readable config\.json"):
        load_agent(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"flags": {}}))
    with pytest.raises(UserError, match=r"is not the folder of a run \(no readable config\.json"):
        load_agent(tmp_path)
    folder = tmp_path / "run"
    shutil.copytree(two_seeds.folder.path, folder)
    shutil.rmtree(folder / "checkpoints")
    with pytest.raises(UserError, match="has no checkpoint yet; wait for its first"):
        load_agent(folder)
