"""Comparison of every task with the original's own code, printed as JSON.

It runs in a process of its own, `python -m tests.parity.compare FOLDER`, because the original's old
gym and the stand-ins that it needs are nothing for the rest of the tests.
"""

import ast
import contextlib
import inspect
import io
import itertools
import json
import sys
import warnings
from pathlib import Path

import mujoco
import numpy as np
from scipy.stats import ks_2samp

from tests.parity import stand_in
from utils.envs.d4rl import adroit, names, simulation
from utils.envs.d4rl.environments import REFERENCE_SCORES, make_env

ROLLOUT_STEPS = 1500
DIRECTED_STATES = 200
DIRECTED_EPISODES, DIRECTED_STEPS = 50, 4
RESETS = 1000

_SERVER = "http://rail.eecs.berkeley.edu/datasets/offline_rl/"


class Pair:
    """One task on both sides.

    Args:
        gym: The original's gym.
        name: Id of the task.

    Attributes:
        seed: What random numbers start from, so that tasks do not repeat each other.
    """

    def __init__(self, gym, name):
        self.name, self.family = name, name.split("-")[0]
        self.seed = 10_000 * list(names.TASKS).index(name)
        self.maze = self.family == "antmaze"
        self.theirs = gym.make(name)
        self.core = self.theirs.wrapped_env if self.maze else self.theirs.unwrapped
        # Only modern MuJoCo's inertia of capsules can be had on both sides.
        self.ours = make_env(name, **({"inertia_correction": False} if self.maze else {}))
        self.ours.reset(seed=0)
        self.simulation = self.ours.unwrapped

    def synchronise(self, state=None, seed=None):
        """Start an episode from the same state on both sides.

        Args:
            state: The state, as `Simulation.set_state` takes it.
            seed: Where no state is given, seed of our reset, whose state becomes the original's.

        Returns:
            Both observations.
        """
        ours, _ = self.ours.reset(seed=seed)
        if state is not None:
            ours = self.simulation.set_state(state)
        state = self.simulation.get_state()
        self.theirs.reset()
        core, qpos, qvel = self.core, state["qpos"], state["qvel"]
        if self.maze:
            core.set_target_goal(tuple(state["goal"].tolist()))
            core.set_state(qpos, qvel)
            theirs = core._get_obs()
        else:
            placement = {
                "pen": lambda: {"desired_orien": state["target_quat"]},
                "door": lambda: {"door_body_pos": state["frame_pos"]},
                "hammer": lambda: {"board_pos": self._board(state["board_height"])},
                "relocate": lambda: {
                    "obj_pos": state["ball_pos"],
                    "target_pos": state["target_pos"],
                },
            }[self.family]()
            core.set_env_state({"qpos": qpos, "qvel": qvel, **placement})
            theirs = core.get_obs()
        # How often each side has called the solver since its reset is no part of the state.
        core.data.qacc_warmstart[:] = self.simulation.data.qacc_warmstart
        return ours, theirs

    def _board(self, height):
        board = self.core.model.body_pos[self.core.model.body_name2id("nail_board")].copy()
        board[2:] = height
        return board

    def sampled(self, observation):
        """Return what the original's reset sampled: the observation and the placement."""
        model = self.core.model
        placement = {
            "antmaze": lambda: [self.core.target_goal],
            "pen": lambda: [model.body_quat[model.body_name2id("target")]],
            "door": lambda: [model.body_pos[model.body_name2id("frame")]],
            "hammer": lambda: [model.body_pos[model.body_name2id("nail_board")][2:]],
            "relocate": lambda: [
                model.body_pos[model.body_name2id("Object")],
                model.site_pos[model.site_name2id("target")],
            ],
        }[self.family]()
        return np.concatenate([observation, *placement])

    def step(self, action):
        """Take a step on both sides; returns (observation, reward, done, success) of each."""
        return self._ours(*self.ours.step(action)), self._theirs(*self.theirs.step(action))

    def judge(self):
        """Return the same for the present state, without moving."""
        action = np.zeros(self.ours.action_space.shape)
        self.core.do_simulation = lambda *_: None
        theirs = self._theirs(*self.core.step(action))
        del self.core.do_simulation
        return self._ours(*self.simulation.outcome()), theirs

    def _ours(self, observation, reward, terminated, truncated, info):
        return observation, reward, terminated, truncated, info["success"]

    def _theirs(self, observation, reward, done, info):
        # The time limit's own note, and its opinion on whether the episode would have ended anyway.
        truncated = "TimeLimit.truncated" in info
        terminated = done and not info.get("TimeLimit.truncated", False)
        success = terminated if self.maze else info["goal_achieved"]
        return observation, reward, terminated, truncated, success


class Branches:
    """Which way the original's code took at each `if` of its step, told from the lines that ran.

    Args:
        pair: The task.
    """

    def __init__(self, pair):
        kind = type(pair.core)
        if pair.maze:
            kind = next(base for base in kind.__mro__ if base.__name__ == "GoalReachingEnv")
        self._code = kind.step.__code__
        tree = ast.parse(Path(inspect.getsourcefile(kind)).read_text())
        step = next(
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef)
            and node.name == "step"
            and self._code.co_firstlineno == node.lineno
        )
        # Those that ask for a setting always go the same way.
        self._ifs = [
            (node.lineno, node.body[0].lineno)
            for node in ast.walk(step)
            if isinstance(node, ast.If)
            and not isinstance(node.test, ast.Name)
            and not any(
                isinstance(part, ast.Constant) and isinstance(part.value, str)
                for part in ast.walk(node.test)
            )
        ]
        self.total = 2 * len(self._ifs) + 2
        self._seen = set()

    @contextlib.contextmanager
    def watch(self):
        """Note the branches that the original takes meanwhile, in one step."""
        lines = set()

        def local(frame, event, argument):
            lines.add(frame.f_lineno)
            return local

        sys.settrace(lambda frame, *_: local if frame.f_code is self._code else None)
        try:
            yield
        finally:
            sys.settrace(None)
        self._seen |= {(test, body in lines) for test, body in self._ifs if test in lines}

    def note_success(self, success):
        """Note that a step was a success, or none: the original says it by expressions."""
        self._seen.add(bool(success))

    @property
    def hit(self):
        """Number of outcomes seen."""
        return len(self._seen)


class Comparison:
    """Sum up what differed on one task."""

    def __init__(self, branches):
        self.branches = branches
        self.steps = self.states = 0
        self.observation = self.reward = 0.0
        self.done_equal = self.success_equal = True

    def observations(self, ours, theirs):
        """Compare two observations."""
        assert ours.shape == theirs.shape
        assert ours.dtype == theirs.dtype
        self.observation = max(self.observation, float(np.abs(ours - theirs).max()))

    def outcomes(self, ours, theirs):
        """Compare what two steps returned; returns whether either ended the episode."""
        self.observations(ours[0], theirs[0])
        self.reward = max(self.reward, abs(float(ours[1] - theirs[1])))
        self.done_equal &= ours[2:4] == theirs[2:4]
        self.success_equal &= ours[4] == theirs[4]
        self.branches.note_success(theirs[4])
        return any((*ours[2:4], *theirs[2:4]))


def directed_states(pair, count, random):
    """Yield states around the thresholds of the rewards, in which random actions rarely end up."""
    simulation = pair.simulation
    hinge_thresholds = itertools.cycle((0.2, 1.0, 1.35))
    exact_goals = itertools.cycle((True, False, False, False))
    for index in range(count):
        pair.ours.reset(seed=int(random.integers(2**31)))
        state = simulation.get_state()
        qpos, qvel = state["qpos"], state["qvel"]
        qvel += 0.3 * random.standard_normal(qvel.shape)
        if pair.maze:
            angle, distance = random.uniform(0, 2 * np.pi), random.uniform(0, 1)
            qpos[:2] = state["goal"] + distance * np.array([np.cos(angle), np.sin(angle)])
            if next(exact_goals):  # At the threshold itself, in numbers without rounding.
                state["goal"][:] = np.round(state["goal"] * 4) / 4
                qpos[:2] = state["goal"] + (0, 0.5)
            yield state
            continue
        low, high = simulation.model.jnt_range.T
        hand = slice(-8 if pair.family == "door" else -6)
        middle, half_range = ((high + low) / 2)[hand], ((high - low) / 2)[hand]
        qpos[hand] = middle + half_range * random.uniform(-0.7, 0.7, middle.shape)
        if pair.family == "pen":
            qpos[-6:] = random.uniform(-1, 1, 6) * (0.05, 0.05, 0.05, 1, 1, 1)
            if index % 4 == 0:
                qpos[-6:-3] *= 6  # Beside the hand, or below.
            if index % 4 == 1:
                simulation.set_state(state)
                aligned = simulation.data.body("Object").xquat + 0.15 * random.standard_normal(4)
                state["target_quat"] = aligned / np.linalg.norm(aligned)
        elif pair.family == "door":
            threshold = next(hinge_thresholds)
            near = random.uniform(-0.02, 0.02)
            qpos[-2] = random.choice([threshold, threshold + near, random.uniform(0, 1.57)])
            qpos[-1] = random.uniform(0, 1.8)
        elif pair.family == "hammer":
            qpos[-7] = random.uniform(0.06, 0.09)
            qpos[-6:] = random.uniform(-1, 1, 6) * (0.1, 0.1, 0.1, 1, 1, 1)
            qpos[-4] += 0.05
        else:
            qpos[-6:] = random.uniform(-1, 1, 6)
            offset = random.standard_normal(3)
            offset *= random.uniform(0, 0.15) / np.linalg.norm(offset)
            if index % 4:
                qpos[-6:-3] = state["target_pos"] + offset - state["ball_pos"]
            else:
                qpos[-6:-3] = offset * (1, 1, 0.05)
        yield state


def compare_steps(pair):
    """Compare observations and outcomes from the same states by the same actions."""
    random = np.random.default_rng(pair.seed)
    branches = Branches(pair)
    result = Comparison(branches)
    size = pair.ours.action_space.shape

    for episode in itertools.count():
        if result.steps >= ROLLOUT_STEPS:
            break
        result.observations(*pair.synchronise(seed=pair.seed + episode))
        held, ended = np.zeros(size), False
        while not ended:
            # Held for a while, so that something is reached; beyond the bounds at times.
            if random.uniform() < 0.1:
                held = random.uniform(-1.2, 1.2, size)
            action = held + 0.2 * random.standard_normal(size)
            # Agents send single precision and the original computes with whatever it gets.
            action = action.astype(np.float32 if episode % 2 else np.float64)
            ended = result.outcomes(*pair.step(action))
            result.steps += 1

    for state in directed_states(pair, DIRECTED_STATES, random):
        result.observations(*pair.synchronise(state))
        with branches.watch():
            outcomes = pair.judge()
        result.outcomes(*outcomes)
        result.states += 1

    for state in directed_states(pair, DIRECTED_EPISODES, random):
        result.observations(*pair.synchronise(state))
        for _ in range(DIRECTED_STEPS):
            action = random.uniform(-1, 1, size).astype(np.float32)
            result.steps += 1
            if result.outcomes(*pair.step(action)):
                break
    return {
        "steps": result.steps,
        "states": result.states,
        "observation": result.observation,
        "reward": result.reward,
        "done_equal": bool(result.done_equal),
        "success_equal": bool(result.success_equal),
        "branches": [branches.hit, branches.total],
    }


def compare_resets(pair):
    """Compare the distributions of many resets, one dimension at a time.

    Returns:
        The smallest p-value of two-sample Kolmogorov-Smirnov tests, their number, and the largest
        difference in the dimensions that are constant.
    """
    ours, theirs = [], []
    pair.core.seed(pair.seed)
    np.random.seed(pair.seed)  # The original samples goals from it.
    for seed in range(pair.seed, pair.seed + RESETS):
        observation, _ = pair.ours.reset(seed=seed)
        ours.append(np.concatenate([observation, *pair.simulation.placement.values()]))
        theirs.append(pair.sampled(pair.theirs.reset()))
    ours, theirs = np.array(ours), np.array(theirs)
    varying = np.maximum(np.ptp(ours, axis=0), np.ptp(theirs, axis=0)) > 1e-9
    difference = np.abs(ours - theirs)[:, ~varying].max(initial=0)
    columns = np.flatnonzero(varying)
    smallest = min(ks_2samp(ours[:, i], theirs[:, i]).pvalue for i in columns)
    return {"p": float(smallest), "tests": len(columns), "constants": float(difference)}


def compare_models(pair):
    """Compare all that decides how the models move, the original's from its own XML files.

    Returns:
        Number of arrays compared and the largest difference; infinite where shapes differ.
    """
    pair.synchronise(seed=0)
    ours, theirs = pair.simulation.model, pair.core.model.modern
    derived = ("body_invweight0", "dof_invweight0", "actuator_acc0")
    fields = []
    for model in (ours, theirs):
        arrays = simulation.physical_fields(model)
        arrays |= {name: getattr(model, name) for name in derived}
        arrays["stat.meaninertia"] = np.array(model.stat.meaninertia)
        if pair.maze:  # Ours has a site, to show where the goal is.
            arrays = {name: v for name, v in arrays.items() if not name.startswith("site_")}
        # While the original's door is made it moves the world, which does not obey.
        arrays["body_pos"] = arrays["body_pos"][1:]
        fields.append(arrays)
    largest = 0.0
    for name, value in fields[0].items():
        if value.shape != fields[1][name].shape:
            return {"arrays": len(fields[0]), "difference": float("inf"), "worst": name}
        largest = max(largest, float(np.abs(value - fields[1][name]).max(initial=0)))
    return {"arrays": len(fields[0]), "difference": largest}


def compare_settings(pair, spec):
    """Compare what the original registers; returns the names of the settings that differ."""
    task, settings = names.TASKS[pair.name], spec.kwargs
    ours = {
        "horizon": task.horizon,
        "scores": REFERENCE_SCORES[pair.name],
        "file": _SERVER + task.dataset_path,
        "observations": (task.observation_size,),
        "actions": (task.action_size,),
        "bounds": [-1.0, 1.0],
    }
    theirs = {
        "horizon": spec.max_episode_steps,
        "scores": (settings["ref_min_score"], settings["ref_max_score"]),
        "file": settings["dataset_url"],
        "observations": pair.theirs.observation_space.shape,
        "actions": pair.theirs.action_space.shape,
        "bounds": [pair.theirs.action_space.low.min(), pair.theirs.action_space.high.max()],
    }
    return [name for name in ours if ours[name] != theirs[name]]


def compare_angles():
    """Return the largest difference of Euler angles, at gimbal lock too."""
    from d4rl.utils.quatmath import quat2euler

    quats = np.random.default_rng(0).standard_normal((1000, 4))
    half = np.sqrt(0.5)
    locked = np.array([(half, 0, half, 0), (0.5, 0.5, 0.5, 0.5), (0.5, 0.5, -0.5, -0.5)])
    return max(
        float(np.abs(np.subtract(adroit._euler_angles(quat), quat2euler(quat))).max())
        for quat in np.concatenate([quats, locked])
    )


def main(folder):
    """Compare everything and print the results."""
    warnings.simplefilter("ignore")  # The original's gym warns about itself.
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        gym = stand_in.install(Path(folder))
        tasks = {}
        for name in names.TASKS:
            pair = Pair(gym, name)
            tasks[name] = {
                "model": compare_models(pair),
                "settings": compare_settings(pair, gym.spec(name)),
                **compare_steps(pair),
                "resets": compare_resets(pair),
            }
        results = {"mujoco": mujoco.__version__, "angles": compare_angles(), "tasks": tasks}
    print(json.dumps(results))


if __name__ == "__main__":
    main(sys.argv[1])
