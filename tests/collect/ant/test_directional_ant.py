import gymnasium
import numpy as np
import pytest

from utils.collect.ant.directional_ant import STEPS_PER_DIRECTION, DirectionalAnt, rotate


@pytest.fixture(scope="module")
def env():
    env = DirectionalAnt()
    yield env
    env.close()


def actions(number, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (number, 8)).astype(np.float32)


def rotate_world(env, angle):
    """Rotate the ant and its direction about the vertical through the origin."""
    qpos, qvel = env.unwrapped.data.qpos.copy(), env.unwrapped.data.qvel.copy()
    cos, sin = np.cos(angle), np.sin(angle)
    matrix = np.array([[cos, -sin], [sin, cos]])
    qpos[:2], qvel[:2] = matrix @ qpos[:2], matrix @ qvel[:2]
    env.direction = matrix @ env.direction
    a, b = np.cos(angle / 2), np.sin(angle / 2)
    w, x, y, z = qpos[3:7]
    qpos[3:7] = a * w - b * z, a * x - b * y, a * y + b * x, a * z + b * w
    env.unwrapped.set_state(qpos, qvel)


@pytest.mark.parametrize("angle", [0.3, 1.9, np.pi, 4.0, -0.001])
def test_rotating_the_whole_world_changes_neither_observations_nor_rewards(env, angle):
    def episode(rotation):
        env.reset(seed=1)
        rotate_world(env, rotation)
        steps = [env.step(action)[:2] for action in actions(15)]
        return [np.array(part) for part in zip(*steps, strict=True)]

    (observations, rewards), (rotated_observations, rotated_rewards) = episode(0.0), episode(angle)
    np.testing.assert_allclose(rotated_observations, observations, atol=1e-6)
    np.testing.assert_allclose(rotated_rewards, rewards, atol=1e-7)
    assert np.ptp(rewards) > 0.01


def test_rotating_by_known_angles_gives_known_numbers():
    observation = np.arange(27.0)
    observation[1:5] = 0.5, -0.5, 0.5, 0.5
    np.testing.assert_array_equal(rotate(observation, np.array([1.0, 0.0])), observation)
    left = rotate(observation, np.array([0.0, 1.0]))
    half = np.sqrt(0.5)
    np.testing.assert_allclose(left[1:5], [half, 0, half, 0], atol=1e-15)
    np.testing.assert_array_equal(left[13:15], [14, -13])
    back = rotate(observation, np.array([-1.0, 0.0]))
    np.testing.assert_array_equal(np.abs(back[1:5]), 0.5)
    np.testing.assert_array_equal(back[13:15], [-13, -14])
    rest = [0, *range(5, 13), *range(15, 27)]
    np.testing.assert_array_equal(left[rest], observation[rest])


def test_both_quaternions_of_an_orientation_are_one_state():
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(50, 27))
    directions = rng.normal(size=(50, 2))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    other = observations.copy()
    other[:, 1:5] *= -1
    result = rotate(observations, directions)
    np.testing.assert_array_equal(rotate(other, directions), result)
    assert (result[:, 1] >= 0).all()
    rows = [rotate(*pair) for pair in zip(observations, directions, strict=True)]
    np.testing.assert_array_equal(rows, result)


def test_rewards_observations_and_endings_are_those_of_ogbenchs_own_wrapper(env):
    from ogbench.online_locomotion.wrappers import GymXYWrapper

    state = np.random.get_state()
    official = GymXYWrapper(gymnasium.make("online-ant-v0", disable_env_checker=True))
    observation, _ = env.reset(seed=3)
    other, _ = official.reset(seed=3)
    for action in actions(STEPS_PER_DIRECTION + 5):
        # The official directions come from NumPy's global generator.
        official.z = env.direction
        np.testing.assert_array_equal(observation, rotate(other[:27], env.direction))
        observation, *outcome, _ = env.step(action)
        other, *official_outcome, _ = official.step(action)
        assert outcome == official_outcome
    official.close()
    np.random.set_state(state)


def test_the_direction_is_resampled_and_the_next_observation_already_has_it(env):
    env.reset(seed=5)
    first = env.direction
    for action in actions(STEPS_PER_DIRECTION - 1):
        env.step(action)
    np.testing.assert_array_equal(env.direction, first)
    before = env.unwrapped.data.qpos[:2].copy()
    observation, reward, *_ = env.step(actions(1)[0])
    second = env.direction
    assert not np.array_equal(second, first)
    assert np.linalg.norm(second) == pytest.approx(1.0)
    state = env.unwrapped.data
    plain = np.concatenate([state.qpos[2:], state.qvel])
    np.testing.assert_array_equal(observation, rotate(plain, second))
    assert reward == pytest.approx((state.qpos[:2] - before) @ first)


def test_an_episode_is_a_function_of_its_seed(env):
    def episode(seed):
        observation, _ = env.reset(seed=seed)
        return [observation, *(env.step(action)[0] for action in actions(105))], env.direction

    observations, direction = episode(7)
    episode(8)
    again, same = episode(7)
    np.testing.assert_array_equal(observations, again)
    np.testing.assert_array_equal(direction, same)


def test_the_time_limit_truncates_and_does_not_terminate(env):
    env.reset(seed=0)
    for step in range(1, 1001):
        _, _, terminated, truncated, _ = env.step(np.zeros(8, np.float32))
        assert not terminated
        assert truncated == (step == 1000)


def test_an_overturned_ant_goes_on_and_one_that_leaves_the_heights_does_not(env):
    env.reset(seed=0)
    assert not env.is_overturned()
    qpos, qvel = env.unwrapped.data.qpos.copy(), np.zeros(14)
    qpos[2:7] = 0.5, 0, 1, 0, 0
    env.unwrapped.set_state(qpos, qvel)
    for _ in range(20):
        _, _, terminated, _, _ = env.step(np.zeros(8, np.float32))
        assert not terminated
    assert env.is_overturned()
    qpos[2] = 1.6
    env.unwrapped.set_state(qpos, qvel)
    assert env.step(np.zeros(8, np.float32))[2]
