"""Environments that share their models play as those that do not, and share what is large."""

import mujoco
import numpy as np
import pytest

from utils.envs import sharing, tasks
from utils.envs.d4rl import simulation
from utils.envs.ogbench import environments

SLOW = pytest.mark.slow
ARMS = ["scene-play", pytest.param("cube-double-play", marks=SLOW)]
ARMS += [pytest.param("puzzle-3x3-play", marks=SLOW)]
HANDS = [f"{hand}-cloned" for hand in ("pen", "door", "hammer", "relocate")]
SEEDS = (3, 4)
STEPS = 12


def model_of(env):
    return env.unwrapped._model if hasattr(env.unwrapped, "_model") else env.unwrapped.model


def model_bytes(model):
    buffer = np.empty(mujoco.mj_sizeModel(model), np.uint8)
    mujoco.mj_saveModel(model, None, buffer)
    return buffer


def written(env):
    """What the environment writes to in its model."""
    arm = hasattr(env.unwrapped, "_model")
    names = environments._WRITTEN_BY_ARMS if arm else simulation._WRITTEN
    return [getattr(model_of(env), name) for name in names]


def step(env, t, seed):
    """A step of an episode: all that can be seen of it, and what the model holds."""
    if t == 5 + seed and hasattr(env.unwrapped, "_cur_button_states"):
        env.unwrapped._cur_button_states[0] ^= 1  # locks or unlocks a scene's drawer
    if t == 8 and "scene" in env.spec.id:
        env.unwrapped.data.joint("drawer_slide").qvel[0] = -1.0
    action = np.random.default_rng((seed, t)).uniform(-1, 1, env.action_space.shape)
    observation, reward, *_ = env.step(action.astype(np.float32))
    return [observation, reward, *(field.copy() for field in written(env))]


def assert_same(left, right):
    for a, b in zip(left, right, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", [*ARMS, *HANDS, "antmaze-umaze"])
def test_episodes_side_by_side_are_those_of_an_environment_alone(name):
    name = tasks.resolve(name)
    alone = tasks.make_env(name)
    expected = {}
    for seed in SEEDS:
        observation, _ = alone.reset(seed=seed)
        expected[seed] = [[observation], *(step(alone, t, seed) for t in range(STEPS))]
    with sharing.shared_models():
        envs = {seed: tasks.make_env(name) for seed in SEEDS}
        env, other = envs.values()
        model = model_of(env)
        before = model_bytes(model)
        first = [field.copy() for field in written(env)]
        found = {seed: [[env.reset(seed=seed)[0]]] for seed, env in envs.items()}
    for t in range(STEPS):
        for seed, env in envs.items():
            found[seed].append(step(env, t, seed))
    for seed in SEEDS:
        for a, b in zip(found[seed], expected[seed], strict=True):
            assert_same(a, b)

    # They share a model, and nothing else of it has changed.
    assert model is model_of(other)
    assert model is not model_of(alone)
    if hasattr(env.unwrapped, "_ik"):
        assert env.unwrapped._ik is other.unwrapped._ik
    for field, value in zip(written(env), first, strict=True):
        field[...] = value
    np.testing.assert_array_equal(model_bytes(model), before)


def test_environments_of_other_settings_share_nothing():
    with sharing.shared_models():
        models = [
            model_of(tasks.make_env(f"antmaze-{maze}-play-v2")) for maze in ("medium", "large")
        ]
    assert models[0] is not models[1]
    assert not sharing.is_sharing()
