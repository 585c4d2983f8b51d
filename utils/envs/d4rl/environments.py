"""D4RL's environments.

Importing this module registers them with gymnasium under their own ids. Their classes, and MuJoCo,
are imported when one of them is made.
"""

import gymnasium

from utils.envs.d4rl import names

_CLASSES = {
    "antmaze": "utils.envs.d4rl.antmaze:AntMaze",
    "pen": "utils.envs.d4rl.adroit:Pen",
    "door": "utils.envs.d4rl.adroit:Door",
    "hammer": "utils.envs.d4rl.adroit:Hammer",
    "relocate": "utils.envs.d4rl.adroit:Relocate",
}

_SCORES = {
    "antmaze": (0.0, 1.0),
    "pen": (96.262799, 3076.8331017826877),
    "door": (-56.512833, 2880.5693087298737),
    "hammer": (-274.856578, 12794.134825156867),
    "relocate": (-6.425911, 4233.877797728884),
}

REFERENCE_SCORES: dict[str, tuple[float, float]] = {
    name: _SCORES[name.split("-")[0]] for name in names.TASKS
}
"""Returns that stand for normalised scores of 0 and 100, by id."""


def make_env(full_name: str, **kwargs) -> gymnasium.Env:
    """Make a task's environment.

    After `reset(seed=...)` an episode is a function of the seed and the actions. `info` holds
    `success` at every step, and the unwrapped environment has `get_normalized_score(return)`.

    Args:
        full_name: Id, see `utils.envs.d4rl.names.TASKS`.
        **kwargs: Passed on to the class, `utils.envs.d4rl.antmaze.AntMaze` or one of
            `utils.envs.d4rl.adroit`; for instance `inertia_correction=False` for an antmaze whose
            legs weigh what modern MuJoCo gives them.

    Returns:
        The environment, with its official time limit and rewards.

    Raises:
        UserError: MuJoCo's version is another one, a package is missing, or the model that it ships
            is not D4RL's.
    """
    return gymnasium.make(full_name, disable_env_checker=True, render_mode="rgb_array", **kwargs)


def _register() -> None:
    """Make the tasks known to gymnasium."""
    for name, task in names.TASKS.items():
        family, variant = name.split("-")[:2]
        maze = {"maze": variant} if family == "antmaze" else {}
        gymnasium.register(
            name,
            _CLASSES[family],
            max_episode_steps=task.horizon,
            kwargs={"reference_scores": REFERENCE_SCORES[name], **maze},
        )


_register()
