"""Processes that step environments, for evaluation and for online training, seen from both ends.

A worker is an interpreter of its own that runs `main` and speaks over one socket. The program's
main module, and with it JAX, is never imported there, as `multiprocessing` would: a worker costs a
NumPy and a Gymnasium import and cannot touch an accelerator.

An episode follows another in the same environment, so the environment's episodes must be functions
of the reset's seed and of the actions alone: `utils.envs.tasks.make_env` sees to it.
"""

import collections
import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from utils.envs import sharing
from utils.errors import UserError

_POLL_SECONDS = 0.05
_PROGRAM = "from utils.env_workers import main; main()"

# The parent alone decides what a signal to the process group, or to all of a job, means.
_PARENTS_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1)


class Interrupted(Exception):  # noqa: N818 - not an error
    """`should_stop` returned True while waiting for a worker; the workers are usable."""


# --- The program's end ----------------------------------------------------------------------------


class Worker:
    """A worker process.

    Args:
        serve: What it does: one of the functions `serve_...` of this module, which is told `setup`.
        setup: The first message.
        env_name: What messages call the environment.

    Attributes:
        pending: Whether an answer is on its way.
    """

    def __init__(self, serve: Callable, setup: Any, env_name: str):
        self._env_name = env_name
        self.connection, theirs = Pipe()
        # Not multiprocessing.Process: it would import the main module, and JAX with it, again.
        search_path = [
            str(Path(__file__).parents[1]),
            *(entry or os.getcwd() for entry in sys.path),
        ]
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        # What compiling a model takes is returned to the system; else glibc keeps 100 MB of it.
        memory = {"MALLOC_MMAP_THRESHOLD_": "131072"}
        with theirs, _blocked(_PARENTS_SIGNALS):
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-c", _PROGRAM, str(theirs.fileno())],
                env=os.environ | threads | memory | {"PYTHONPATH": os.pathsep.join(search_path)},
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.pending = False
        self.send((serve, setup))

    def send(self, message: Any) -> None:
        """Send a message, which will be answered.

        Raises:
            UserError: The process has died.
        """
        try:
            self.connection.send(message)
        except ConnectionError as error:
            raise self._died() from error
        self.pending = True

    def receive(self, should_stop: Callable[[], bool] | None = None) -> Any:
        """Wait for the answer.

        Args:
            should_stop: Asked every 50 ms, if given.

        Raises:
            Interrupted: `should_stop` returned True; the answer is still to come.
            UserError: The environment failed, or the process died.
        """
        while should_stop is not None and not self.connection.poll(_POLL_SECONDS):
            if should_stop():
                raise Interrupted
        try:
            status, payload = self.connection.recv()
        except (EOFError, ConnectionError) as error:
            raise self._died() from error
        self.pending = False
        if status == "refused":
            raise UserError(payload)
        if status == "failed":
            raise failure(self._env_name, *payload)
        return payload

    def _died(self) -> UserError:
        code = self.process.wait()
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return UserError(
            f"a process that steps {self._env_name} {how}. If the machine ran out of memory: train "
            "fewer seeds at once (--num_seeds) or evaluate fewer episodes (--eval_episodes)"
        )


@contextlib.contextmanager
def _blocked(numbers: Sequence[int]) -> Iterator[None]:
    """Block signals in this thread, and in a process that it starts until that unblocks them.

    Else one would end a worker that comes before it has begun to ignore it.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def describe(error: BaseException) -> str:
    """Return an exception in one line."""
    return f"{type(error).__name__}: {error}"


def failure(env_name: str, summary: str, details: str) -> UserError:
    """Return the message for an environment that failed, with the traceback as details."""
    return UserError(f"the environment {env_name} failed: {summary}", details)


def close_all(workers: Iterable[Worker]) -> None:
    """End worker processes; ending them again does nothing."""
    for worker in workers:
        worker.process.kill()  # They hold nothing that would need saving.
        worker.connection.close()
    for worker in workers:
        worker.process.wait()


# --- The worker's end -----------------------------------------------------------------------------


class Episode(NamedTuple):
    """What a slot needs to know to play one episode.

    Attributes:
        index: The episode's number within its training seed.
        seed: Seed of the environment, below 2**31.
        frame_skip: Distance in steps of the frames to record, 0 for none.
    """

    index: int
    seed: int
    frame_skip: int


class Environment:
    """An environment that keeps the records of its running episode.

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
        self._return, self._length = 0.0, 0

    def clip(self, actions: np.ndarray) -> np.ndarray:
        """Return actions (..., act_dim) as the environment takes them, within their bounds."""
        return np.clip(actions, self._low, self._high).astype(self._dtype)

    def reset(self, seed: int) -> np.ndarray:
        """Begin an episode and returns its first observation."""
        self._return, self._length = 0.0, 0
        observation, _ = self._env.reset(seed=seed)
        return compact(observation)

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, dict[str, float] | None]:
        """Take a step.

        Args:
            action: (act_dim,), from `clip`.

        Returns:
            The observation, the reward, whether the task ended here (a time limit does not end it)
            and, after an episode's last step, its metrics: `return`, `length` (steps) and, where
            the environment has them, `success` and `normalized_return`.
        """
        observation, reward, terminated, truncated, info = self._env.step(action)
        self._return += float(reward)
        self._length += 1
        metrics = None
        if terminated or truncated or self._length == self._max_steps:
            metrics = {"return": self._return, "length": float(self._length)}
            if "success" in info:
                metrics["success"] = float(info["success"])
            if hasattr(self._env.unwrapped, "get_normalized_score"):
                metrics["normalized_return"] = float(
                    self._env.unwrapped.get_normalized_score(self._return)
                )
        return compact(observation), float(reward), bool(terminated), metrics

    def render(self) -> np.ndarray:
        """Return an image (H, W, 3) uint8 of the present state."""
        frame = self._env.render()
        if not (isinstance(frame, np.ndarray) and frame.dtype == np.uint8 and frame.ndim == 3):
            raise TypeError("render() returned no RGB image: make it with render_mode='rgb_array'")
        # The renderer may reuse its buffer.
        return frame.copy()


class EvaluationEnvironment(Environment):
    """An environment that plays a queue of episodes one after the other."""

    def __init__(self, make_env: Callable[[], gymnasium.Env], max_steps: int | None = None):
        super().__init__(make_env, max_steps)
        self._queue: collections.deque[Episode] = collections.deque()
        self._episode: Episode | None = None
        self._frames: list[np.ndarray] = []
        self.active = False
        self.observation: np.ndarray | None = None

    def start(self, episodes: Sequence[Episode]) -> None:
        """Drop what was being played and resets the environment for the first of `episodes`."""
        self._queue = collections.deque(episodes)
        self._begin()

    def advance(self, action: np.ndarray) -> dict[str, Any] | None:
        """Take a step, into the next episode's first observation if this one ends.

        Args:
            action: (act_dim,), from `clip`.

        Returns:
            None, or the record of the episode that has just ended: `index`, `metrics`, and
            `frames` (T, H, W, 3) uint8 or None.
        """
        observation, _, _, metrics = self.step(action)
        skip = self._episode.frame_skip
        if skip and (metrics is not None or self._length % skip == 0):
            self._frames.append(self.render())
        if metrics is None:
            self.observation = observation
            return None
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
        self.observation = self.reset(self._episode.seed)
        self._frames = [self.render()] if self._episode.frame_skip else []


def compact(observation: Any) -> np.ndarray:
    """Return a private copy in the type of transport: images as they are, else float32."""
    observation = np.asarray(observation)
    dtype = np.uint8 if observation.dtype == np.uint8 else np.float32
    return np.array(observation, dtype)


def serve_evaluation(connection: Connection, setup: tuple) -> None:
    """Play episodes in a number of slots.

    The setup is (make_env, number of slots, max_steps). The messages are ("start", one sequence of
    `Episode` per slot) and ("step", actions (slots, act_dim)); they are answered by (observations
    (slots, *obs_shape), active (slots,) bool, records of the episodes that ended as pairs (slot,
    record)). Rows of slots that have nothing left to play are stale.
    """
    make_env, num_slots, max_steps = setup
    with sharing.shared_models():
        slots = [EvaluationEnvironment(make_env, max_steps) for _ in range(num_slots)]
    connection.send(("ok", None))
    while True:
        command, payload = connection.recv()
        if command == "step":
            payload = slots[0].clip(payload)  # For all slots at once: per slot it would show.
        records = []
        for index, (slot, argument) in enumerate(zip(slots, payload, strict=True)):
            if command == "start":
                slot.start(argument)
            elif slot.active and (record := slot.advance(argument)) is not None:
                records.append((index, record))
        observations = np.stack([slot.observation for slot in slots])
        active = np.array([slot.active for slot in slots])
        connection.send(("ok", (observations, active, records)))


class StepResult(NamedTuple):
    """What came of one environment step in training.

    Attributes:
        next_observation: What the action led to.
        reward: The environment's own.
        mask: 0 where the task ended, 1 elsewhere: a time limit does not stop the bootstrap.
        observation: What to act on next: `next_observation`, or a new episode's first observation.
        metrics: Those of the episode that ended here, else None.
    """

    next_observation: np.ndarray
    reward: float
    mask: float
    observation: np.ndarray
    metrics: dict[str, float] | None


class TrainingEnvironment(Environment):
    """An environment that is stepped for training."""

    def replay(self, seed: int, actions: Sequence[np.ndarray]) -> np.ndarray:
        """Begin an episode, takes steps that do not end it, and returns the observation."""
        observation = self.reset(seed)
        for action in actions:
            observation, *_ = self.step(self.clip(action))
        return observation

    def advance(self, action: np.ndarray, next_seed: int) -> StepResult:
        """Take a step; if the episode ends, the next one begins with `next_seed`."""
        next_observation, reward, terminated, metrics = self.step(self.clip(action))
        observation = next_observation if metrics is None else self.reset(next_seed)
        return StepResult(next_observation, reward, 1.0 - terminated, observation, metrics)


def serve_training(connection: Connection, make_env: Callable[[], gymnasium.Env]) -> None:
    """Step one environment for training.

    The messages are a method of `TrainingEnvironment` by name and its arguments; the answer is what
    it returns.
    """
    env = TrainingEnvironment(make_env)
    connection.send(("ok", None))
    while True:
        method, *arguments = connection.recv()
        connection.send(("ok", getattr(env, method)(*arguments)))


def _die_with_parent(descriptor: int) -> None:
    """End the process when the other end of the socket closes, in the midst of a step or not."""
    poll = select.poll()
    poll.register(descriptor, 0)  # Hang-up is reported whatever is asked for.
    poll.poll()
    os._exit(1)


def main() -> None:
    """Entry point of a worker process; the socket's descriptor is the only argument."""
    for number in _PARENTS_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _PARENTS_SIGNALS)
    connection = Connection(int(sys.argv[1]))
    threading.Thread(target=_die_with_parent, args=(connection.fileno(),), daemon=True).start()
    # Whatever an environment warns about, it would say once per worker.
    warnings.simplefilter("ignore")
    try:
        serve, setup = connection.recv()
        serve(connection, setup)
    except BaseException as error:  # An environment that calls sys.exit() is to be reported too.
        with contextlib.suppress(ConnectionError):  # The parent is gone.
            refused = isinstance(error, UserError)
            details = str(error) if refused else (describe(error), traceback.format_exc())
            connection.send(("refused" if refused else "failed", details))
    # Nothing is worth a tidy end, and renderers are known to complain when they are torn down.
    os._exit(0)
