"""Episodes of the arms, by the oracles in the ogbench package."""

from collections.abc import Iterator

import gymnasium
import numpy as np

from utils.collect.config import CollectionConfig
from utils.envs.ogbench.environments import make_registered

_PLAN_NOISE = 0.1
_PLAN_SMOOTHING = 0.5
_MARKOV_MIN_NORM = 0.4
_MARKOV_NOISE = 0.1
# Standard deviations of the five action dimensions as multiples of the episode's noise level.
_MARKOV_NOISE_SCALE = np.array([1.0, 1.0, 1.0, 3.0, 10.0])
_STACKING = {
    "cube-single": (0.0, 0.0),
    "cube-double": (0.0, 0.25),
    "cube-triple": (0.05, 0.35),
    "cube-quadruple": (0.1, 0.5),
    "cube-octuple": (0.0, 0.35),
}
_STACKING_ELSEWHERE = (0.5, 0.5)


def make_arm(config: CollectionConfig) -> gymnasium.Env:
    """Make the environment that a dataset of an arm comes from."""
    return make_registered(
        config.environment,
        max_episode_steps=config.rows,
        terminate_at_goal=False,
        mode="data_collection",
    )


class ArmCollector:
    """Collector with the oracles of the manipulation environments."""

    def __init__(self, config: CollectionConfig):
        self.env = make_arm(config)
        self.noisy = config.kind == "noisy"
        self.oracles = _arm_oracles(self.env, config.family, self.noisy)
        self.p_random = 0.0
        if self.noisy:
            self.p_random = 0.2 if config.family.startswith("puzzle") else 0.1
        self.stacking = _STACKING.get(config.family, _STACKING_ELSEWHERE)

    def steps(self, reset_seed: int) -> Iterator[dict]:
        """Run an episode, sampling from NumPy's global generator; yield its rows."""
        env = self.env
        observation, info = env.reset(seed=reset_seed)
        p_stack = np.random.uniform(*self.stacking)
        scale = np.random.uniform(0, _MARKOV_NOISE) * _MARKOV_NOISE_SCALE
        oracle = self.oracles[info["privileged/target_task"]]
        oracle.reset(observation, info)
        done = False
        while not done:
            if self.noisy and np.random.uniform() < self.p_random:
                action = np.random.uniform(-1, 1, size=env.action_space.shape)
            else:
                action = np.array(oracle.select_action(observation, info))
                if self.noisy:
                    action += np.random.normal(0, scale)
            action = np.clip(action, -1, 1)
            next_observation, _, terminated, truncated, info = env.step(action)
            done = terminated or truncated
            if oracle.done:
                target_observation, target_info = env.unwrapped.set_new_target(p_stack=p_stack)
                oracle = self.oracles[target_info["privileged/target_task"]]
                oracle.reset(target_observation, target_info)
            row = {
                "observations": observation,
                "actions": action,
                "terminals": done,
                "qpos": info["prev_qpos"],
                "qvel": info["prev_qvel"],
            }
            if "prev_button_states" in info:
                row["button_states"] = info["prev_button_states"]
            yield row
            observation = next_observation


def _arm_oracles(env, family: str, noisy: bool) -> dict:
    """Return the oracle of each kind of target task of an arm."""
    from ogbench.manipspace.oracles.markov.button_markov import ButtonMarkovOracle
    from ogbench.manipspace.oracles.markov.cube_markov import CubeMarkovOracle
    from ogbench.manipspace.oracles.markov.drawer_markov import DrawerMarkovOracle
    from ogbench.manipspace.oracles.markov.window_markov import WindowMarkovOracle
    from ogbench.manipspace.oracles.plan.button_plan import ButtonPlanOracle
    from ogbench.manipspace.oracles.plan.cube_plan import CubePlanOracle
    from ogbench.manipspace.oracles.plan.drawer_plan import DrawerPlanOracle
    from ogbench.manipspace.oracles.plan.window_plan import WindowPlanOracle

    if noisy:
        settings = {"env": env, "min_norm": _MARKOV_MIN_NORM}
        classes = (CubeMarkovOracle, ButtonMarkovOracle, DrawerMarkovOracle, WindowMarkovOracle)
    else:
        settings = {"env": env, "noise": _PLAN_NOISE, "noise_smoothing": _PLAN_SMOOTHING}
        classes = (CubePlanOracle, ButtonPlanOracle, DrawerPlanOracle, WindowPlanOracle)
    cube, button, drawer, window = classes
    if family.startswith("cube"):
        return {"cube": cube(**settings)}
    if family.startswith("puzzle"):
        return {"button": button(**settings, gripper_always_closed=True)}
    limit = {"max_step": 100} if noisy else {}
    return {
        "cube": cube(**settings, **limit),
        "button": button(**settings),
        "drawer": drawer(**settings),
        "window": window(**settings),
    }
