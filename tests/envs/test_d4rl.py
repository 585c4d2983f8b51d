"""The D4RL environments; `tests.parity` compares them with the original's own code."""

import hashlib

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from scipy.spatial.transform import Rotation

from tests.processes import run_python
from utils.envs import rendering
from utils.envs.d4rl import adroit, antmaze, names, simulation
from utils.envs.d4rl.environments import REFERENCE_SCORES, make_env
from utils.errors import UserError

HANDS = ("pen-human-v1", "door-human-v1", "hammer-human-v1", "relocate-human-v1")
GOAL_CELLS = {
    "antmaze-umaze-v2": (0, 8),
    "antmaze-medium-play-v2": (20, 20),
    "antmaze-large-play-v2": (32, 24),
}
EVERY_CLASS = (*GOAL_CELLS, *HANDS)


@pytest.fixture(scope="module")
def make():
    """Returns environments, each made once."""
    made = {}

    def get(name):
        if name not in made:
            made[name] = make_env(name)
        return made[name]

    yield get
    for env in made.values():
        env.close()


# Interface ---------------------------------------------------------------------------------------


def test_there_are_eighteen_tasks_registered_under_their_own_ids():
    expected = [
        f"antmaze-{data}-v2"
        for data in (
            "umaze",
            "umaze-diverse",
            "medium-play",
            "medium-diverse",
            "large-play",
            "large-diverse",
        )
    ]
    expected += [
        f"{hand}-{data}-v1"
        for hand in ("pen", "door", "hammer", "relocate")
        for data in ("human", "cloned", "expert")
    ]
    assert set(expected) == names.TASKS.keys() == REFERENCE_SCORES.keys()
    for name in expected:
        assert gymnasium.spec(name).max_episode_steps == names.TASKS[name].horizon


@pytest.mark.parametrize("name", names.TASKS)
def test_spaces_and_types(name):
    task, env = names.TASKS[name], make_env(name)
    assert env.observation_space.shape == (task.observation_size,)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (task.action_size,), np.float32)
    observation, _ = env.reset(seed=0)
    assert observation.dtype == np.float64
    following, reward, terminated, truncated, info = env.step(env.action_space.sample())
    assert following.shape == observation.shape
    assert not np.shares_memory(following, observation)
    assert [type(value) for value in (reward, terminated, truncated)] == [float, bool, bool]
    assert info == {"success": False}
    env.close()


@pytest.mark.filterwarnings("ignore")  # It would rather have bounded observations.
@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "pen-human-v1"])
def test_gymnasium_finds_no_fault(name):
    check_env(gymnasium.make(name).unwrapped, skip_render_check=True)


@pytest.mark.parametrize(
    ("name", "horizon"), [("antmaze-umaze-v2", 700), ("door-human-v1", 200), ("pen-human-v1", 100)]
)
def test_time_limit_truncates(make, name, horizon):
    env = make(name)
    env.reset(seed=0)
    if name.startswith("pen"):  # The hand would drop it by then.
        env.unwrapped.model.opt.gravity[:] = 0
    action = np.zeros(env.action_space.shape, np.float32)
    ends = [env.step(action)[2:4] for _ in range(horizon)]
    assert ends == [(False, False)] * (horizon - 1) + [(False, True)]
    env.unwrapped.model.opt.gravity[:] = 0, 0, -9.81


@pytest.mark.parametrize("shape", [(), (1,), (7,), (8, 1), (1, 8)])
def test_action_of_another_shape(make, shape):
    env = make("antmaze-umaze-v2")
    env.reset(seed=0)
    with pytest.raises(ValueError, match=r"has shape \(8,\), not"):
        env.step(np.zeros(shape))


def test_actions_beyond_the_bounds_count_as_the_bounds(make):
    for name in EVERY_CLASS:
        env, results = make(name), []
        for scale in (1, 3):
            env.reset(seed=0)
            action = np.full(env.action_space.shape, -scale, np.float32)
            results.append(env.step(action)[0])
        np.testing.assert_array_equal(*results)


@pytest.mark.parametrize(
    ("name", "episode_return", "score"),
    [
        ("antmaze-large-diverse-v2", 1.0, 100.0),
        ("antmaze-umaze-v2", 0.5, 50.0),
        ("pen-cloned-v1", 3076.8331017826877, 100.0),
        ("pen-cloned-v1", 96.262799, 0.0),
        ("door-expert-v1", 1412.0283, 50.0),
        ("hammer-human-v1", 12794.134825156867, 100.0),
        ("hammer-human-v1", 0.0, 2.10312),
        ("relocate-human-v1", -6.425911, 0.0),
    ],
)
def test_normalised_score_in_percent(name, episode_return, score):
    env = make_env(name)
    assert env.unwrapped.get_normalized_score(episode_return) == pytest.approx(score, abs=1e-4)


def test_what_is_imported():
    code = (
        "import sys; from utils.envs import tasks; tasks.resolve('pen-human');"
        "before = 'mujoco' in sys.modules;"
        "[tasks.make_env(name) for name in ('antmaze-umaze-v2', 'pen-human-v1')];"
        "print(before, {'jax', 'ogbench', 'gymnasium_robotics'} & set(sys.modules))"
    )
    result = run_python(code)
    assert result.stdout.strip() == "False set()", result.stderr


# Episodes ----------------------------------------------------------------------------------------

_EPISODE = """
def play(env, seed):
    digest = hashlib.sha256(env.reset(seed=seed)[0].tobytes())
    random = np.random.default_rng(seed)
    for _ in range(40):
        action = random.uniform(-1, 1, env.action_space.shape).astype(np.float32)
        observation, reward, *_ = env.step(action)
        digest.update(observation.tobytes() + np.float64(reward).tobytes())
    return digest.hexdigest()
"""


def test_episodes_depend_on_seed_and_actions_alone(make):
    scope = {"hashlib": hashlib, "np": np}
    exec(_EPISODE, scope)
    play = scope["play"]
    elsewhere = run_python(
        "import hashlib; import numpy as np; from utils.envs import tasks\n"
        f"{_EPISODE}\nfor name in {EVERY_CLASS}: print(play(tasks.make_env(name), 3))"
    ).stdout.split()
    for name, expected in zip(EVERY_CLASS, elsewhere, strict=True):
        env = make(name)
        assert play(env, 4) != expected
        env.reset()  # One that is seeded by chance.
        env.step(env.action_space.sample())
        assert play(env, 3) == expected


@pytest.mark.parametrize("name", EVERY_CLASS)
def test_a_state_can_be_put_back(make, name):
    env = make(name)
    first, _ = env.reset(seed=1)
    state = env.unwrapped.get_state()
    action = np.full(env.action_space.shape, 0.1, np.float32)
    following = [env.step(action)[0] for _ in range(5)]
    env.reset(seed=2)
    np.testing.assert_array_equal(env.unwrapped.set_state(state), first)
    np.testing.assert_allclose([env.step(action)[0] for _ in range(5)], following, atol=1e-12)
    assert env.unwrapped.get_state()["qpos"].tolist() != state["qpos"].tolist()


# Antmaze -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "cell"), GOAL_CELLS.items())
def test_goals_and_initial_states(make, name, cell):
    env = make(name)
    offsets, positions, velocities = [], [], []
    for seed in range(500):
        env.reset(seed=seed)
        state = env.unwrapped.get_state()
        offsets.append(state["goal"] - cell)
        positions.append(state["qpos"])
        velocities.append(state["qvel"])
    offsets, velocities = np.array(offsets), np.array(velocities)
    assert offsets.min() >= 0
    assert 1.3 < offsets.max() < 1.5
    # The sum of uniform numbers up to 1 and up to 0.5.
    np.testing.assert_allclose(offsets.mean(axis=0), 0.75, atol=0.06)
    np.testing.assert_allclose(offsets.var(axis=0), (1 + 0.25) / 12, atol=0.02)
    # The quaternion is normalised by MuJoCo.
    noise = np.delete(np.array(positions), slice(3, 7), axis=1) - ([0, 0, 0.75] + [0] * 8)
    assert np.abs(noise).max() <= 0.1
    np.testing.assert_allclose(noise.std(axis=0), 0.2 / np.sqrt(12), atol=0.006)
    np.testing.assert_allclose(velocities.mean(axis=0), 0, atol=0.02)
    np.testing.assert_allclose(velocities.std(axis=0), 0.1, atol=0.015)


def test_the_goal_is_drawn_anew_without_a_seed(make):
    env = make("antmaze-large-play-v2")
    env.reset(seed=0)
    first = env.unwrapped.get_state()["goal"]
    env.reset()
    assert not np.array_equal(env.unwrapped.get_state()["goal"], first)


@pytest.mark.parametrize(
    ("offset", "reached"),
    [
        ((0, 0), True),
        ((0.5, 0), True),
        ((0.25, -0.375), True),
        ((0, 0.501), False),
        ((4, 0), False),
    ],
)
def test_antmaze_reward_and_end(make, offset, reached):
    env = make("antmaze-umaze-v2")
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    state["goal"] = np.array([0.5, 8.5])
    state["qpos"][:2] = state["goal"] + offset
    observation = env.unwrapped.set_state(state)
    np.testing.assert_array_equal(observation, np.concatenate([state["qpos"], state["qvel"]]))
    _, reward, terminated, truncated, info = env.unwrapped.outcome()
    assert (reward, terminated, truncated) == (float(reached), reached, False)
    assert info == {"success": reached}


def test_an_episode_ends_at_the_goal_and_not_by_its_time(make):
    env = make("antmaze-umaze-v2")
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    state["qpos"][:2] = state["goal"]
    env.unwrapped.set_state(state)
    assert env.step(np.zeros(8, np.float32))[1:] == (1.0, True, False, {"success": True})


def test_legs_weigh_what_they_did_then_unless_told_otherwise():
    corrected = make_env("antmaze-umaze-v2").unwrapped.model
    modern = make_env("antmaze-umaze-v2", inertia_correction=False).unwrapped.model
    upper, lower = [2, 3, 5, 6, 8, 9, 11, 12], [4, 7, 10, 13]
    np.testing.assert_allclose(corrected.body_mass[upper], 0.03647693, rtol=1e-6)
    np.testing.assert_allclose(corrected.body_mass[lower], 0.06491138, rtol=1e-6)
    np.testing.assert_allclose(modern.body_mass[upper], 0.03915775, rtol=1e-6)
    np.testing.assert_allclose(modern.body_mass[lower], 0.0675922, rtol=1e-6)
    # A cylinder's inertia: m (3 r^2 + L^2) / 12 across and m r^2 / 2 along.
    length = 0.2 * np.sqrt(2) + 0.08
    across = 0.03647693 * (3 * 0.08**2 + length**2) / 12
    along = 0.03647693 * 0.08**2 / 2
    np.testing.assert_allclose(corrected.body_inertia[2], [across, across, along], rtol=1e-6)
    # And what follows from the masses.
    assert corrected.body_mass[1] == modern.body_mass[1]
    assert corrected.body_subtreemass[1] == pytest.approx(corrected.body_mass[1:].sum())
    assert corrected.stat.meaninertia != modern.stat.meaninertia


# Adroit ------------------------------------------------------------------------------------------


def outcome(env, **changes):
    """Resets, changes entries of the state and returns observation, reward, end and success."""
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    for key, value in changes.items():
        value(state[key]) if callable(value) else state.update({key: np.asarray(value, float)})
    env.unwrapped.set_state(state)
    observation, reward, terminated, truncated, info = env.unwrapped.outcome()
    assert not truncated
    return observation, reward, terminated, info["success"]


def entry(index, value):
    """Returns a change of one or several entries."""

    def change(array):
        array[index] = value

    return change


@pytest.mark.parametrize(
    ("hinge", "bonus", "success"),
    [
        (0.0, 0, False),
        (0.2, 0, False),
        (0.21, 2, False),
        (1.0, 2, False),
        (1.01, 10, False),
        (1.35, 10, True),
        (1.36, 20, True),
    ],
)
def test_door_reward(make, hinge, bonus, success):
    qvel = np.full(30, 2.0)
    observation, reward, *ends = outcome(
        make("door-human-v1"), qpos=entry([-2, -1], [hinge, 0.4]), qvel=qvel
    )
    palm, handle = observation[29:32], observation[32:35]
    smooth = -0.1 * np.linalg.norm(palm - handle) - 0.1 * (hinge - 1.57) ** 2 - 1e-5 * 30 * 4
    assert reward == pytest.approx(smooth + bonus, abs=1e-12)
    assert ends == [False, success]
    assert observation[27:29].tolist() == [0.4, hinge]
    np.testing.assert_allclose(observation[35:38], palm - handle)
    assert observation[38] == (1 if hinge > 1 else -1)


@pytest.mark.parametrize(
    ("nail", "lifted", "bonus", "success"),
    [
        (0.05, 0.0, 0, False),
        (0.05, 0.2, 2, False),
        (0.0705, 0.0, 0, False),
        (0.0715, 0.0, 25, False),
        (0.0805, 0.0, 25, False),
        (0.0815, 0.0, 100, True),
        (0.09, 0.2, 102, True),
    ],
)
def test_hammer_reward(make, nail, lifted, bonus, success):
    # Slides of the hammer are in its own frame, whose y is the world's z.
    env = make("hammer-human-v1")
    qvel = np.zeros(33)
    qvel[[0, -1]] = 3, -4
    observation, reward, *ends = outcome(
        env, qpos=entry([-7, -5], [nail, lifted]), qvel=qvel, board_height=[0.2]
    )
    palm, hammer, target = observation[33:36], observation[36:39], observation[42:45]
    assert hammer[2] == pytest.approx(0.035 + lifted, abs=1e-3)
    head = env.unwrapped.data.site("tool").xpos
    smooth = -0.1 * np.linalg.norm(palm - hammer) - np.linalg.norm(head - target)
    # The nail's head and the hole, whose centres are 0.091 apart when it is out.
    smooth -= 10 * (0.091 - nail) + 0.01 * 5
    assert reward == pytest.approx(smooth + bonus, abs=1e-9)
    assert ends == [False, success]
    assert observation[32] == -1  # Velocities are clipped.
    assert -1 <= observation[45] <= 1


@pytest.mark.parametrize(
    ("offset", "height", "bonus", "success"),
    [
        ((0.3, 0, 0), 0.3, 0, False),
        ((0.11, 0, 0), 0.3, 0, False),
        ((0, 0.09, 0), 0.3, 10, True),
        ((0, 0, 0.04), 0.3, 30, True),
        ((0.2, 0, 0), 0.03, 0, False),
        ((0.04, 0, 0), 0.03, 30, True),
    ],
)
def test_relocate_reward(make, offset, height, bonus, success):
    target = np.array([0.1, 0.1, height])
    start = np.array([0.02, 0.03, 0.035])
    observation, reward, *ends = outcome(
        make("relocate-human-v1"),
        qpos=entry(slice(-6, None), [*(target + offset - start), 0, 0, 0]),
        ball_pos=start,
        target_pos=target,
    )
    to_ball, to_target, between = observation[30:33], observation[33:36], observation[36:39]
    np.testing.assert_allclose(between, offset, atol=1e-12)
    np.testing.assert_allclose(to_target, to_ball + between, atol=1e-12)
    expected = -0.1 * np.linalg.norm(to_ball) + bonus
    if height + offset[2] > 0.04:
        expected += 1 - 0.5 * np.linalg.norm(to_target) - 0.5 * np.linalg.norm(between)
    assert reward == pytest.approx(expected, abs=1e-12)
    assert ends == [False, success]


@pytest.mark.parametrize(
    ("tilt", "shift", "bonus", "dropped", "success"),
    [
        (0.0, 0.0, 60, False, True),
        (0.30, 0.0, 60, False, True),
        (0.35, 0.0, 10, False, False),
        (0.43, 0.0, 10, False, False),
        (0.48, 0.0, 0, False, False),
        (0.0, 0.074, 60, False, True),
        (0.0, 0.076, 0, False, False),
        (0.0, 0.25, -5, True, False),
    ],
)
def test_pen_reward(make, tilt, shift, bonus, dropped, success):
    """Angles whose cosines are about 0.95 (0.318) and 0.9 (0.451), and distances about 0.075."""
    env = make("pen-human-v1")
    env.reset(seed=0)
    data = env.unwrapped.data
    # Where the pen is when it is where it should be, and which slide lowers it.
    level = env.unwrapped.set_state({"qpos": np.zeros(30), "qvel": np.zeros(30)})
    axes = data.xaxis[env.unwrapped.model.joint("OBJTx").id :][:3]
    slides = axes @ ([0, 0, -shift] - level[39:42])
    quat = Rotation.from_euler("z", tilt) * Rotation.from_quat(
        data.body("Object").xquat, scalar_first=True
    )
    observation, reward, *ends = outcome(
        env,
        qpos=entry(slice(-6, -3), slides),
        qvel=np.zeros(30),
        target_quat=quat.as_quat(scalar_first=True),
    )
    similarity = observation[33:36] @ observation[36:39]
    distance = np.linalg.norm(observation[39:42])
    assert similarity == pytest.approx(np.cos(tilt), abs=1e-3)
    assert distance == pytest.approx(shift, abs=1e-9)
    assert reward == pytest.approx(similarity - distance + bonus, abs=1e-12)
    assert ends == [dropped, success]
    np.testing.assert_allclose(observation[42:45], observation[33:36] - observation[36:39])


def test_a_dropped_pen_ends_the_episode(make):
    env = make("pen-human-v1")
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    state["qpos"][-6:-3] = [0.3, 0.3, 0.3]
    env.unwrapped.set_state(state)
    ends = [env.step(np.zeros(24, np.float32))[2:4] for _ in range(60)]
    assert (True, False) in ends


def test_resets_of_the_hands(make):
    drawn = {name: [] for name in HANDS}
    for name in HANDS:
        for seed in range(300):
            make(name).reset(seed=seed)
            state = make(name).unwrapped.get_state()
            assert not state.pop("qpos").any()
            assert not state.pop("qvel").any()
            drawn[name].append(np.concatenate(list(state.values())))
    low = {"door-human-v1": [-0.3, 0.25, 0.252], "hammer-human-v1": [0.1]}
    high = {"door-human-v1": [-0.2, 0.35, 0.35], "hammer-human-v1": [0.25]}
    low["relocate-human-v1"] = [-0.15, -0.15, 0.035, -0.2, -0.2, 0.15]
    high["relocate-human-v1"] = [0.15, 0.3, 0.035, 0.2, 0.2, 0.35]
    for name, lowest in low.items():
        values, highest = np.array(drawn[name]), np.array(high[name])
        span = highest - lowest
        assert np.all(values >= lowest)
        assert np.all(values <= highest)
        np.testing.assert_allclose(values.min(axis=0), lowest, atol=0.03 * span.max())
        np.testing.assert_allclose(values.max(axis=0), highest, atol=0.03 * span.max())
    angles = Rotation.from_quat(drawn["pen-human-v1"], scalar_first=True).as_euler("XYZ")
    np.testing.assert_allclose(angles[:, 2], 0, atol=1e-12)
    assert 0.95 < np.abs(angles[:, :2]).max() <= 1
    np.testing.assert_allclose(angles[:, :2].mean(axis=0), 0, atol=0.15)


def test_euler_angles():
    quats = np.random.default_rng(0).standard_normal((50, 4))
    expected = Rotation.from_quat(quats, scalar_first=True).as_euler("XYZ")
    np.testing.assert_allclose([adroit._euler_angles(quat) for quat in quats], expected, atol=1e-9)
    locked = np.array([np.sqrt(0.5), 0, np.sqrt(0.5), 0])
    np.testing.assert_allclose(adroit._euler_angles(locked), [0, np.pi / 2, 0], atol=1e-7)


# Guards ------------------------------------------------------------------------------------------


def refusal(name):
    """Returns the one line in which making a task is refused."""
    with pytest.raises(UserError) as error:
        make_env(name)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("version", ["2.3.7", "3.1.5", "3.2.0", "3.10.0", "4.0.0"])
@pytest.mark.parametrize("name", ["antmaze-umaze-v2", "pen-human-v1"])
def test_another_mujoco_is_refused(monkeypatch, name, version):
    monkeypatch.setattr(simulation.mujoco, "__version__", version)
    message = refusal(name)
    assert version in message
    assert 'pip install "mujoco>=3.1.6,<3.2"' in message


def test_a_later_patch_of_the_same_mujoco_is_not(monkeypatch):
    monkeypatch.setattr(simulation.mujoco, "__version__", "3.1.7")
    simulation.require_version()


@pytest.mark.parametrize(
    ("name", "package"), [("antmaze-umaze-v2", "ogbench"), ("pen-human-v1", "gymnasium-robotics")]
)
def test_a_missing_package_is_named(monkeypatch, name, package):
    monkeypatch.setattr(simulation.importlib.util, "find_spec", lambda name: None)
    assert f'pip install "{package}==' in refusal(name)


def test_a_package_without_the_file(monkeypatch):
    monkeypatch.setattr(antmaze, "_ASSET", "locomaze/assets/bee.xml")
    message = refusal("antmaze-umaze-v2")
    assert "lacks locomaze/assets/bee.xml" in message
    assert 'pip install --force-reinstall --no-deps "ogbench==' in message


@pytest.mark.parametrize(
    ("old", "new", "accepted"),
    [
        ('damping="1"', 'damping="1.001"', False),
        ('gear="30"', 'gear="15"', True),  # It is overwritten.
        ('rgba=".7 .5 .3 1"', 'rgba=".1 .5 .3 1"', True),
        ('fromto="0.0 0.0 0.0 0.4 0.4 0.0"', 'fromto="0.0 0.0 0.0 0.4 0.41 0.0"', False),
        ('timestep="0.02"', 'timestep="0.01"', False),
    ],
)
def test_changed_assets_are_refused(monkeypatch, tmp_path, old, new, accepted):
    text = simulation.asset_path("ogbench", "locomaze/assets/ant.xml").read_text()
    assert old in text
    changed = tmp_path / "ant.xml"
    changed.write_text(text.replace(old, new))
    monkeypatch.setattr(simulation, "asset_path", lambda *_: changed)
    if accepted:
        make_env("antmaze-umaze-v2")
    else:
        message = refusal("antmaze-umaze-v2")
        assert "is not that of this D4RL task" in message
        assert 'pip install --force-reinstall --no-deps "ogbench==' in message


def test_every_model_is_checked(monkeypatch):
    monkeypatch.setattr(simulation, "fingerprint", lambda model: "0123456789abcdef")
    for name in EVERY_CLASS:
        assert "fingerprint 0123456789abcdef instead of" in refusal(name)


def test_fingerprints_ignore_the_last_bits():
    env = make_env("hammer-human-v1").unwrapped
    before = simulation.fingerprint(env.model)
    env.model.body_mass[:] *= 1 + 1e-15
    env.model.body_quat[env.model.body_quat == 0] = -1e-17
    assert simulation.fingerprint(env.model) == before
    env.model.body_mass[5] *= 1 + 1e-5
    assert simulation.fingerprint(env.model) != before


# Rendering ---------------------------------------------------------------------------------------


@pytest.mark.skipif(rendering.choose_gl() == "disabled", reason="there is no OpenGL")
@pytest.mark.parametrize("name", ["antmaze-umaze-v2", *HANDS])
def test_rendering(make, name):
    env = make(name)
    env.reset(seed=0)
    image = env.render()
    assert image.shape == (200, 200, 3)
    assert image.dtype == np.uint8
    assert image.std() > 10
    for _ in range(10):
        env.step(np.ones(env.action_space.shape, np.float32))
    assert not np.array_equal(env.render(), image)
    env.close()
    env.close()
    env.reset(seed=0)
    np.testing.assert_array_equal(env.render(), image)


@pytest.mark.skipif(rendering.choose_gl() == "disabled", reason="there is no OpenGL")
def test_the_goal_is_seen():
    env = make_env("antmaze-umaze-v2", width=320, height=240)
    env.reset(seed=0)
    state = env.unwrapped.get_state()
    images = []
    for y in (4.0, 8.0):
        env.unwrapped.set_state(state | {"goal": np.array([4.0, y])})
        images.append(env.render())
    assert images[0].shape == (240, 320, 3)
    assert not np.array_equal(*images)
    env.close()


def test_render_modes():
    env = gymnasium.make("pen-human-v1")
    env.reset(seed=0)
    assert env.unwrapped.render() is None
    with pytest.raises(ValueError, match="not 'human'"):
        adroit.Pen((0, 1), render_mode="human")


def test_without_opengl_only_images_are_refused():
    code = (
        "from utils.envs import tasks; from utils.errors import UserError\n"
        "env = tasks.make_env('pen-human-v1'); env.reset(seed=0)\n"
        "env.step(env.action_space.sample())\n"
        "try: env.render()\n"
        "except UserError as error: print(error)"
    )
    result = run_python(code, MUJOCO_GL="disabled")
    assert result.stdout.startswith("images need OpenGL")
