import jax
import numpy as np
import pytest

from tests import toys
from tests.small_runs import REPOSITORY, train
from utils.load_agent import LoadedAgents

ON_THE_LINE = {
    "env_name": str(REPOSITORY / "tests" / "recipes" / "my_task.py"),
    "seed": 3,
    "num_seeds": 2,
    "eval_episodes": 4,
}


@pytest.fixture(scope="session")
def line_run(tmp_path_factory, dataset_dir):
    """A run of seeds 3 and 4 on the line, where an action shows in the return."""
    return train(tmp_path_factory.mktemp("evaluated"), dataset_dir, **ON_THE_LINE)


@pytest.fixture
def loaded_as(monkeypatch):
    """Have a module find one seed of a small agent, by its name, in whatever folder."""

    def load_as(module, name):
        observations = toys.batch(size=2)["observations"]
        loaded = LoadedAgents(
            agents=jax.tree.map(lambda leaf: leaf[None], toys.make(name)),
            seeds=np.array([0]),
            step=40,
            settings={
                "flags": {"eval_episodes": 4},
                "example": {"observations": (observations.shape, str(observations.dtype))},
            },
            failed={},
        )
        monkeypatch.setattr(module, "load_agents", lambda *_: loaded)

    return load_as
