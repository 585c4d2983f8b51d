"""The process that steps environments for `utils.evaluation`.

It is an interpreter of its own that runs `main` and speaks over one socket. The program's main
module, and with it JAX, is never imported here, as `multiprocessing` would: a worker costs a NumPy
and a Gymnasium import and cannot touch an accelerator.

A lane plays an episode after another in the same environment, so the environment's episodes must
be functions of the reset's seed and of the actions alone: `utils.envs.ogbench.make_env` sees to it.
"""

import collections
import contextlib
import os
import select
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import gymnasium
import numpy as np


class Episode(NamedTuple):
    """What a lane needs to know to play one episode.

    Attributes:
        index: The episode's number within its training seed.
        seed: Seed of the environment, below 2**31.
        frame_skip: Distance in steps of the frames to record, 0 for none.
    """

    index: int
    seed: int
    frame_skip: int


class Lane:
    """One environment that plays a queue of episodes one after the other.

    Args:
        make_env: Makes the environment; called once.
        max_steps: Bound on an episode's length; None leaves it to the environment.
    """

    def __init__(self, make_env: Callable[[], gymnasium.Env], max_steps: int | None = None):
        self._env = make_env()
        # Some environments build their model only now, which had better happen in the background.
        self._env.reset(seed=0)
        self._max_steps = max_steps
        space = self._env.action_space
        if not isinstance(space, gymnasium.spaces.Box):
            raise TypeError(f"actions must be continuous (Box), not {space}")
        self._low, self._high, self._dtype = space.low, space.high, space.dtype
        self._queue: collections.deque[Episode] = collections.deque()
        self.active = False
        self.observation: np.ndarray | None = None

    def start(self, episodes: Sequence[Episode]) -> None:
        """Drops what was being played and resets the environment for the first of `episodes`."""
        self._queue = collections.deque(episodes)
        self._begin()

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Returns actions (..., act_dim) as the environment takes them, within their bounds."""
        return np.clip(actions, self._low, self._high).astype(self._dtype)

    def step(self, action: np.ndarray) -> dict[str, Any] | None:
        """Advances by one step, into the next episode's first observation if this one ends.

        Args:
            action: (act_dim,), from `clip`.

        Returns:
            None, or the record of the episode that has just ended: `index`, `frames`
            (T, H, W, 3) uint8 or None, and `metrics`, a dictionary of floats.
        """
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._return += float(reward)
        self._length += 1
        done = terminated or truncated or self._length == self._max_steps
        skip = self._episode.frame_skip
        if skip and (done or self._length % skip == 0):
            self._frames.append(self._render())
        if not done:
            self.observation = _compact(observation)
            return None
        metrics = {"return": self._return, "length": float(self._length)}
        if "success" in info:
            metrics["success"] = float(info["success"])
        if hasattr(self._env.unwrapped, "get_normalized_score"):
            metrics["normalized_return"] = float(
                self._env.unwrapped.get_normalized_score(self._return)
            )
        record = {
            "index": self._episode.index,
            "metrics": metrics,
            "frames": np.stack(self._frames) if self._frames else None,
        }
        self._begin()
        return record

    def _begin(self) -> None:
        self.active = bool(self._queue)
        if not self.active:
            return
        self._episode = self._queue.popleft()
        self._return, self._length = 0.0, 0
        observation, _ = self._env.reset(seed=self._episode.seed)
        self.observation = _compact(observation)
        self._frames = [self._render()] if self._episode.frame_skip else []

    def _render(self) -> np.ndarray:
        frame = self._env.render()
        if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3):
            raise TypeError("render() returned no RGB image: make it with render_mode='rgb_array'")
        # The renderer may reuse its buffer.
        return frame.copy()


def _compact(observation: Any) -> np.ndarray:
    """A private copy in the type in which observations travel: images as they are, else float32."""
    observation = np.asarray(observation)
    dtype = np.uint8 if observation.dtype == np.uint8 else np.float32
    return np.array(observation, dtype)


def serve(connection: Connection) -> None:
    """Answers the parent's messages until it closes the connection.

    The first message is (make_env, number of lanes, max_steps). The others are ("start", one
    sequence of `Episode` per lane) and ("step", actions (lanes, act_dim)); they are answered by
    (observations (lanes, *obs_shape), active (lanes,) bool, records of the episodes that ended as
    pairs (lane, record)). Rows of lanes that have nothing left to play are stale.
    """
    make_env, num_lanes, max_steps = connection.recv()
    lanes = [Lane(make_env, max_steps) for _ in range(num_lanes)]
    connection.send(("ok", None))
    while True:
        command, payload = connection.recv()
        if command == "step":
            payload = lanes[0].clip(payload)  # For all lanes at once: per lane it would show.
        records = []
        for index, (lane, argument) in enumerate(zip(lanes, payload, strict=True)):
            if command == "start":
                lane.start(argument)
            elif lane.active and (record := lane.step(argument)) is not None:
                records.append((index, record))
        observations = np.stack([lane.observation for lane in lanes])
        active = np.array([lane.active for lane in lanes])
        connection.send(("ok", (observations, active, records)))


def _die_with_parent(descriptor: int) -> None:
    """Ends the process when the other end of the socket closes, in the midst of a step or not."""
    poll = select.poll()
    poll.register(descriptor, 0)  # Hang-up is reported whatever is asked for.
    poll.poll()
    os._exit(1)


def main() -> None:
    """Entry point of a worker process; the socket's descriptor is the only argument."""
    # The parent alone decides what a signal to the process group means.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    connection = Connection(int(sys.argv[1]))
    threading.Thread(target=_die_with_parent, args=(connection.fileno(),), daemon=True).start()
    # Whatever an environment warns about, it would say once per worker.
    warnings.simplefilter("ignore")
    try:
        serve(connection)
    except BaseException as error:  # An environment that calls sys.exit() is to be reported too.
        with contextlib.suppress(ConnectionError):  # The parent is gone.
            summary = f"{type(error).__name__}: {error}"
            connection.send(("error", (summary, traceback.format_exc())))
    # Nothing is worth a tidy end, and renderers are known to complain when they are torn down.
    os._exit(0)
