"""Evaluation in worker processes.

The workers import this module for its environments, hence the imports of JAX (and of what imports
it) inside functions: one test is that a worker never does.
"""

import functools
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium
import numpy as np
import pytest

from utils.errors import UserError

ROOT = Path(__file__).parents[1]


class Reach(gymnasium.Env):
    """Name the point that is shown; return 0 and success for whoever does, else less than 0.

    The length of an episode varies, the observation shows the time, and every action's error goes
    into the return, so that returns tell whether seeds and noise are the right ones.
    """

    observation_space = gymnasium.spaces.Box(-1.0, 20.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, delay=0.0):
        self.delay = delay

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t, self.end = 0, self.np_random.integers(3, 12)
        return self.show(), {}

    def show(self):
        self.point = self.np_random.uniform(-0.9, 0.9, 2).astype(np.float32)
        return np.append(self.point, self.t)

    def step(self, action):
        assert action.shape == (2,)
        assert self.action_space.contains(action)
        time.sleep(self.delay)
        self.t += 1
        error = float(np.abs(action - self.point).sum())
        return self.show(), -error, False, self.t == self.end, {"success": error < 1e-6}

    def render(self):
        return np.full((31, 21, 3), 20 * self.t, np.uint8)


class Failing(Reach):
    """Fails in a way of choice at a certain step."""

    def __init__(self, how):
        super().__init__()
        if how == "make":
            raise ValueError("no such model")
        self.how = how

    def step(self, action):
        if self.t == 2:
            if self.how == "raise":
                raise ValueError("the arm fell off")
            if self.how == "exit":
                sys.exit("bye")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class Scored(gymnasium.Env):
    """One step without success in its info, with a normalised score."""

    observation_space = gymnasium.spaces.Box(-1.0, 1.0, (3,), np.float32)
    action_space = gymnasium.spaces.Box(-1.0, 1.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        return np.zeros(3), {}

    def step(self, action):
        return np.zeros(3), 5.0, True, False, {}

    def get_normalized_score(self, total):
        return total / 10


class Inspected(Scored):
    """Its score tells what the worker process is like."""

    def get_normalized_score(self, total):
        return float("jax" not in sys.modules and os.environ["OMP_NUM_THREADS"] == "1")


class Sharing(Scored):
    """Its score tells how many environments of its process share with it, itself included."""

    def __init__(self):
        from utils.envs import sharing

        self.all = sharing.once("all", list)
        self.all.append(self)

    def get_normalized_score(self, total):
        return len(self.all)


class Checksum(gymnasium.Wrapper):
    """Makes returns tell any two trajectories apart."""

    def step(self, action):
        observation, _, terminated, truncated, info = self.env.step(action)
        return observation, float(observation @ np.arange(28)), terminated, truncated, info


def cube():
    from utils.envs.ogbench.environments import make_env

    return Checksum(make_env("cube-single-play-singletask-v0"))


def stuck_parent():
    """Run in another process: evaluates, with workers in the middle of a step that takes long."""
    with evaluator(functools.partial(Reach, delay=60.0), num_episodes=4, num_workers=2) as pool:
        print(*pids(pool), flush=True)
        evaluate(pool)


def sample(agent, observation, key):
    """Names the point with an error of the size that the agent says, and an offset."""
    import jax

    return observation[:2] + agent["noise"] * jax.random.normal(key, (2,)) + agent["offset"]


def agents(*noises, offset=0.0):
    import jax.numpy as jnp

    return {"noise": jnp.array(noises), "offset": jnp.full(len(noises), offset)}


def make_keys(*seeds):
    import jax

    return jax.vmap(jax.random.key)(np.array(seeds))


def evaluator(make_env=Reach, sample_actions=sample, **kwargs):
    from utils.evaluation import Evaluator

    return Evaluator(make_env, sample_actions, **kwargs)


def evaluate(pool, agent=None, seeds=(0,), **kwargs):
    agent = agents(*[0.1] * len(seeds)) if agent is None else agent
    return pool.evaluate(agent, make_keys(*seeds), **kwargs)


def pids(pool):
    return [worker.process.pid for worker in pool._slots]


def assert_same(left, right):
    """Bit for bit."""
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        assert a.metrics.keys() == b.metrics.keys()
        for name in a.metrics:
            np.testing.assert_array_equal(a.metrics[name], b.metrics[name])


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_dead(processes, seconds=10.0):
    end = time.monotonic() + seconds
    while any(map(alive, processes)) and time.monotonic() < end:
        time.sleep(0.02)
    return not any(map(alive, processes))


@pytest.fixture(scope="module")
def pool():
    with evaluator(num_episodes=7, num_members=2, slots_per_member=3, num_workers=2) as pool:
        yield pool


def test_known_returns(pool):
    best, worse = evaluate(pool, agents(0.0, 0.1), (0, 1))
    assert best.mean()["success"] == 1.0
    assert best.mean()["return"] == 0.0
    assert worse.mean()["success"] == 0.0
    assert (worse.metrics["return"] < -0.1).all()
    assert (best.metrics["length"] >= 3).all()
    assert len(set(best.metrics["length"])) > 1


def test_equals_one_episode_at_a_time(pool):
    import jax

    _, stats = evaluate(pool, agents(0.1, 0.1), (8, 3))
    agent = {"noise": np.float32(0.1), "offset": np.float32(0)}
    for episode in range(7):
        key, noise_key = jax.random.split(jax.random.fold_in(make_keys(3)[0], episode))
        env = Reach()
        observation, _ = env.reset(seed=int(jax.random.randint(key, (), 0, 2**31 - 1)))
        total, t, done = 0.0, 0, False
        while not done:
            action = sample(agent, observation, jax.random.fold_in(noise_key, t))
            action = np.clip(np.asarray(action), -1, 1).astype(np.float32)
            observation, reward, _, done, _ = env.step(action)
            total, t = total + reward, t + 1
        assert stats.metrics["length"][episode] == t
        np.testing.assert_allclose(stats.metrics["return"][episode], total, rtol=1e-5)


def test_the_plain_loop_plays_the_same_episodes(pool):
    from utils import evaluation

    _, expected = evaluate(pool, agents(0.1, 0.1), (8, 3))
    agent = {"noise": np.float32(0.1), "offset": np.float32(0)}
    found = evaluation.evaluate(agent, Reach(), make_keys(3)[0], 7, sample)
    assert set(found) == set(expected.metrics)
    for name, values in expected.metrics.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-5, err_msg=name)


def test_independent_of_the_number_of_workers_and_of_what_was_played_before(pool):
    results = evaluate(pool, seeds=(0, 1))
    other = evaluate(pool, seeds=(2, 1))
    assert not np.array_equal(other[0].metrics["return"], results[0].metrics["return"])
    assert_same(other[1:], results[1:])
    assert_same(evaluate(pool, seeds=(0, 1)), results)
    for workers in (1, 3):
        kwargs = {
            "num_episodes": 7,
            "num_members": 2,
            "slots_per_member": 3,
            "num_workers": workers,
        }
        with evaluator(**kwargs) as different:
            assert len(pids(different)) == workers
            assert_same(evaluate(different, seeds=(0, 1)), results)


def test_seeds_together_equal_seeds_apart(pool):
    together = evaluate(pool, agents(0.1, 0.3), (5, 6))
    with evaluator(num_episodes=7, slots_per_member=3, num_workers=1) as single:
        apart = [evaluate(single, agents(n), (s,))[0] for n, s in ((0.1, 5), (0.3, 6))]
    for left, right in zip(together, apart, strict=True):
        np.testing.assert_array_equal(left.metrics["length"], right.metrics["length"])
        np.testing.assert_allclose(left.metrics["return"], right.metrics["return"], rtol=1e-6)


def test_more_episodes_keep_the_first_ones():
    results = []
    for episodes in (4, 11):
        with evaluator(num_episodes=episodes, slots_per_member=3, num_workers=1) as pool:
            results.append(evaluate(pool)[0].metrics)
    for name, values in results[0].items():
        np.testing.assert_array_equal(values, results[1][name][:4])


def test_slots():
    from utils.evaluation import slots_for

    for episodes in (1, 3, 15, 16, 17, 50, 100):
        for seeds in (1, 2, 4, 8, 100):
            slots = slots_for(episodes, seeds)
            assert 1 <= slots <= episodes
            assert slots <= 16
            assert slots * seeds <= max(32, seeds)
            # No slot plays two episodes more than another.
            assert -(-episodes // slots) - episodes // slots <= 1
    assert slots_for(50, 1) == 13


def test_bounds_of_episodes_and_metrics():
    with evaluator(num_episodes=4, num_workers=1, max_steps=2) as pool:
        assert set(evaluate(pool)[0].metrics["length"]) == {2.0}
    with evaluator(Scored, num_episodes=2, num_workers=1) as pool:
        assert evaluate(pool)[0].mean() == {"return": 5.0, "length": 1.0, "normalized_return": 0.5}
    with pytest.raises(UserError, match="eval_episodes"):
        evaluator(num_episodes=0)


def test_actions_are_clipped_and_must_be_finite():
    # The environment refuses what is out of bounds.
    with evaluator(num_episodes=3, num_workers=1, env_name="reach-v0") as pool:
        assert evaluate(pool, agents(0.0, offset=50.0))[0].mean()["return"] < -1.0
        with pytest.raises(UserError, match="NaN or infinite actions in reach-v0"):
            evaluate(pool, agents(np.nan))


def test_one_members_policy_that_is_not_finite_is_noted_and_stops_no_other():
    with evaluator(num_episodes=3, num_workers=1, num_members=2) as pool:
        healthy, _ = evaluate(pool, agents(0.5, 0.5), seeds=(0, 1))
        first, second = evaluate(pool, agents(0.5, np.nan), seeds=(0, 1))
    assert (healthy.diverged, first.diverged, second.diverged) == (False, False, True)
    assert_same([first], [healthy])


def test_workers_are_light_and_deaf_and_leave_no_trace():
    with evaluator(Inspected, num_episodes=4, num_workers=2) as pool:
        processes = pids(pool)
        for _ in ("as they start", "afterwards"):
            for pid in processes:
                for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
                    os.kill(pid, number)
            evaluate(pool)
        assert evaluate(pool)[0].mean()["normalized_return"] == 1.0
    assert not any(os.path.exists(f"/proc/{pid}") for pid in processes)
    pool.close()
    with pytest.raises(RuntimeError, match="closed"):
        evaluate(pool)


def test_environments_of_a_process_share_their_models():
    with evaluator(Sharing, num_episodes=8, num_workers=2) as pool:
        assert set(evaluate(pool)[0].metrics["normalized_return"]) == {4.0}


def test_interruption():
    from utils.env_workers import Interrupted

    with evaluator(functools.partial(Reach, delay=0.03), num_episodes=6, num_workers=2) as pool:
        undisturbed = evaluate(pool)
        for polls in (1, 3, 6):
            calls = iter(range(polls))
            start = time.monotonic()
            with pytest.raises(Interrupted):
                evaluate(
                    pool, seeds=(1,), should_stop=lambda calls=calls: next(calls, None) is None
                )
            assert time.monotonic() - start < 1.0
        assert_same(undisturbed, evaluate(pool))


def test_interruption_while_environments_are_made():
    from utils.env_workers import Interrupted

    with evaluator(functools.partial(time.sleep, 60), num_workers=1, num_episodes=1) as pool:
        start = time.monotonic()
        with pytest.raises(Interrupted):
            evaluate(pool, should_stop=lambda: True)
        assert time.monotonic() - start < 1.0


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("make", "slip-v0 failed: ValueError: no such model"),
        ("raise", "slip-v0 failed: ValueError: the arm fell off"),
        ("exit", "slip-v0 failed: SystemExit: bye"),
        ("kill", "slip-v0 was killed by signal 9"),
    ],
)
def test_failures_are_reported(how, message):
    make_env = functools.partial(Failing, how)
    with evaluator(make_env, num_episodes=3, num_workers=2, env_name="slip-v0") as pool:
        processes = pids(pool)
        with pytest.raises(UserError, match=message) as failure:
            evaluate(pool)
        if how != "kill":
            assert "in __init__" in failure.value.details or "step" in failure.value.details
        assert not any(map(alive, processes))


def refusing():
    raise UserError("the package is missing: install it")


def test_what_a_worker_refuses_is_said_in_its_own_words():
    with (
        evaluator(refusing, num_episodes=2, num_workers=1) as pool,
        pytest.raises(UserError, match=r"^the package is missing: install it$") as error,
    ):
        evaluate(pool)
    assert error.value.details is None


def test_death_of_the_parent_ends_the_workers():
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    parent = subprocess.Popen(
        [sys.executable, "-c", "import test_evaluation; test_evaluation.stuck_parent()"],
        env=os.environ | {"PYTHONPATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        with parent.stdout:
            workers = [int(pid) for pid in parent.stdout.readline().split()]
        assert len(workers) == 2
        time.sleep(1.5)
        assert all(map(alive, workers))
    finally:
        parent.kill()
        parent.wait()
    assert wait_until_dead(workers)


def test_video(pool, tmp_path):
    import imageio_ffmpeg

    from utils.video import write_video

    plain = evaluate(pool, seeds=(0, 1))
    results = evaluate(pool, seeds=(0, 1), video_episodes=3, video_frame_skip=2)
    assert_same(plain, results)
    assert plain[0].videos == []
    for stats in results:
        assert len(stats.videos) == 3
        for video, length in zip(stats.videos, stats.metrics["length"], strict=False):
            times = sorted({*range(0, int(length), 2), int(length)})
            assert video.shape == (len(times), 31, 21, 3)
            assert list(video[:, 0, 0, 0]) == [20 * t for t in times]

    path = tmp_path / "episodes.mp4"
    write_video(path, results[0].videos, fps=10)
    assert os.listdir(tmp_path) == ["episodes.mp4"]
    ffmpeg = imageio_ffmpeg.get_ffmpeg_exe()
    decode = [ffmpeg, "-i", str(path), "-f", "rawvideo", "-pix_fmt", "rgb24", "-"]
    decoded = subprocess.run(decode, capture_output=True, check=True)
    assert b"42x62" in decoded.stderr
    assert b"10 fps" in decoded.stderr
    images = np.frombuffer(decoded.stdout, np.uint8).reshape(-1, 62, 42, 3)
    assert len(images) == max(map(len, results[0].videos))
    for row, column, video in ((0, 0, 0), (0, 1, 1), (1, 0, 2)):
        cell = images[-1][row * 31 + 5 : row * 31 + 25, column * 21 + 5 : column * 21 + 15]
        assert abs(cell.mean() - results[0].videos[video][-1].mean()) < 8
    assert images[-1][40:, 30:].mean() < 8

    with pytest.raises(UserError, match="cannot be written"):
        write_video(tmp_path / "missing" / "episodes.mp4", results[0].videos)
    with pytest.raises(UserError, match="video_frame_skip"):
        evaluate(pool, seeds=(0, 1), video_episodes=1, video_frame_skip=0)


def test_real_environment_does_not_depend_on_history_or_workers():
    def policy(agent, observation, key):
        import jax

        return jax.random.normal(key, (5,)) + agent["offset"] * observation[:5]

    results = []
    for workers in (1, 2):
        kwargs = {"num_episodes": 4, "slots_per_member": 2, "num_workers": workers, "max_steps": 30}
        with evaluator(cube, policy, **kwargs) as pool:
            results += [evaluate(pool, agents(0.0, offset=0.1), (seed,)) for seed in (0, 1, 0)]
    assert "success" in results[0][0].metrics
    assert len(set(results[0][0].metrics["return"])) == 4
    assert_same(results[0], results[2])
    assert_same(results[0], results[3])
    assert_same(results[1], results[4])
