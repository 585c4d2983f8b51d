"""Frames of states, as an environment with images would have rendered them."""

import statistics
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from utils.collect import episode_files
from utils.collect.arms import make_arm
from utils.collect.collectors import file_columns, make_collector
from utils.collect.config import CollectionConfig
from utils.cores import available_cores
from utils.envs import rendering
from utils.envs.ogbench.collection import in_words
from utils.files import write_atomically

_MEASURED_FRAMES = 3


class FrameRenderer:
    """Renderer of an arm's states.

    From states in float64 the frames are those of a live collection to the bit.

    Args:
        config: Settings of a dataset with images.
    """

    def __init__(self, config: CollectionConfig):
        self._env = make_arm(config)
        self._env.reset(seed=0)  # An arm has no model before.
        # The others compute all positions anew after a step, when they look at their buttons.
        self._lags = config.family.startswith("cube")

    def frames(self, states: Mapping[str, np.ndarray]) -> np.ndarray:
        """Render an episode.

        Args:
            states: `qpos` and `qvel`, (rows, ...), and `button_states` if there are buttons.

        Returns:
            The frames, (rows, 64, 64, 3), uint8.
        """
        arm = self._env.unwrapped
        buttons = states.get("button_states")
        frames = []
        for row, (qpos, qvel) in enumerate(zip(states["qpos"], states["qvel"], strict=True)):
            if self._lags and row > 0:
                qpos = self._before_last_substep(qpos, qvel)
            arm.set_state(qpos, qvel, *([] if buttons is None else [buttons[row]]))
            frames.append(np.array(arm.render()))
        return np.stack(frames)

    def close(self) -> None:
        """Free the renderer."""
        self._env.close()

    def _before_last_substep(self, qpos: np.ndarray, qvel: np.ndarray) -> np.ndarray:
        """Return the positions (nq,) that a live frame shows after a step.

        MuJoCo integrates positions at a substep's end, and only the next one computes where that
        puts the bodies.
        """
        import mujoco

        model = self._env.unwrapped.model
        qpos = qpos.astype(np.float64)
        mujoco.mj_integratePos(model, qpos, qvel.astype(np.float64), -model.opt.timestep)
        return qpos


class FrameWorker:
    """Renders episodes whose states are there, and writes their files.

    Args:
        config: Settings of a dataset with images.
        states: Folder of the states.
        folder: Folder of the finished episodes.
    """

    def __init__(self, config: CollectionConfig, states: Path, folder: Path):
        self._renderer = FrameRenderer(config)
        self._states = states
        self._folder = folder

    def __call__(self, split: str, episode: int) -> int:
        """Render and save one episode; return the number of its frames."""
        states = episode_files.read(episode_files.shard(self._states, split, episode))
        frames = self._renderer.frames(states)
        data = {"observations": frames} | file_columns(states)
        episode_files.save(self._folder, split, episode, data)
        return len(frames)


def say_if_another_renders(folder: Path) -> None:
    """Say if a collection goes on with another renderer, whose pixels may differ a little.

    Args:
        folder: Folder of the finished episodes.
    """
    path, name = folder / "renderer.txt", rendering.renderer()
    before = path.read_text() if path.exists() else name
    if before != name:
        print(f"{name} goes on, after {before}: pixels of two renderers may differ", flush=True)
    write_atomically(path, name.encode())


def expected_time(config: CollectionConfig, episodes: int, workers: int) -> str:
    """Return in words how long rendering will take, by frames that are rendered for that.

    Args:
        config: Settings of a dataset with images.
        episodes: Number of episodes.
        workers: Number of processes.
    """
    seconds = seconds_per_frame(config)
    at_once = min(workers, available_cores(), episodes)
    rounds = -(-episodes // at_once)
    name = f" by {rendering.renderer()}" if rendering.renderer() else ""
    return (
        f"{episodes * config.rows:,} frames{name} at {seconds:.2g} s on {workers} "
        f"worker{'s' if workers > 1 else ''}: {in_words(rounds * config.rows * seconds / 3600)}"
    )


def seconds_per_frame(config: CollectionConfig) -> float:
    """Return how long one frame of a dataset takes in one process, measured here."""
    env = make_collector(config).env
    env.reset(seed=0)  # It renders, too, and what the first frame needs once is not counted.
    seconds = []
    for _ in range(_MEASURED_FRAMES):
        start = time.perf_counter()
        env.unwrapped.render()
        seconds.append(time.perf_counter() - start)
    env.close()
    return statistics.median(seconds)
