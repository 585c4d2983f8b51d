"""Evaluation beside training: a copy of the agents plays in the background, on the CPU.

Where one thread computes everything, training waits instead: its dispatches would have the thread,
and an evaluation one policy call between two of them.

No number depends on how long that takes. Until it is over, no checkpoint is newer than its step,
whose evaluation a resumed run repeats.
"""

import concurrent.futures
import copy
import dataclasses
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from utils.devices import has_one_thread
from utils.evaluation import EpisodeStats, Evaluator
from utils.runs.logs import Logs, say
from utils.runs.members import Member
from utils.runs.progress import Progress
from utils.training import TrainingState, evaluation_keys
from utils.video import write_video


@dataclasses.dataclass(frozen=True)
class Running:
    """An evaluation that goes on.

    Attributes:
        step: Step of the agents that are evaluated.
        state: Training's state at that step.
        progress: The host's side of it; the two make a checkpoint.
        results: To come.
        started: Value of time.perf_counter().
    """

    step: int
    state: TrainingState
    progress: Progress
    results: concurrent.futures.Future[list[EpisodeStats]]
    started: float


class BackgroundEvaluation:
    """Evaluates one copy of the agents at a time.

    Args:
        evaluator: Plays the episodes; closed with this.
        members: Who is trained.
        videos: Folder of videos, of each grid point.
        video_episodes: Episodes per evaluation and seed to record.
        video_frame_skip: Every so many steps a frame is recorded.
        stopped: Whether to break off.

    Attributes:
        running: The evaluation that goes on.
        beside_training: Whether training is to go on meanwhile.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        members: Sequence[Member],
        videos: Sequence[Path],
        video_episodes: int,
        video_frame_skip: int,
        stopped: Callable[[], bool],
    ):
        self.running: Running | None = None
        self.beside_training = not has_one_thread()
        self._evaluator = evaluator
        self._members = members
        self._videos = videos
        self._recording = {
            "video_episodes": video_episodes,
            "video_frame_skip": video_frame_skip,
        }
        self._stopped = stopped
        self._closing = False
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._thread = concurrent.futures.ThreadPoolExecutor(max_workers=1)

    def begin(self, state: TrainingState, progress: Progress) -> None:
        """Have a copy of the agents evaluated; the evaluation before must have been collected."""
        step = progress.step
        state = self._copy(state)  # training donates its own to the next dispatch
        keys = evaluation_keys(np.array([member.seed for member in self._members]), step)
        results = self._thread.submit(self._evaluate, step, state.agents, keys)
        self.running = Running(step, state, copy.deepcopy(progress), results, time.perf_counter())

    def done(self) -> bool:
        """Whether an evaluation waits to be collected."""
        return self.running is not None and self.running.results.done()

    def collect(self, logs: Logs) -> list[bool]:
        """Wait for the evaluation that runs, if there is one, and write its rows.

        Returns:
            Whether each member's actions were not finite, (members,).

        Raises:
            Interrupted: It has been broken off; it stays the one that runs.
            UserError: An environment failed, or the policy is no longer finite.
        """
        if self.running is None:
            return [False] * len(self._members)
        step, results = self.running.step, self.running.results.result()
        diverged = [result.diverged for result in results]
        before = self.running.progress.failure
        failed = [
            bad or before(member) is not None
            for member, bad in zip(self._members, diverged, strict=True)
        ]
        logs.evaluation(step, results, failed)
        for number, result in enumerate(results):
            if result.videos:
                logs.video(self._video_path(step, self._members[number]), step, number)
        say(f"evaluation took {time.perf_counter() - self.running.started:.0f} s")
        self.running = None
        return diverged

    def _video_path(self, step: int, member: Member) -> Path:
        return self._videos[member.point] / f"step{step}_seed{member.seed}.mp4"

    def close(self) -> None:
        """End the evaluation that runs, and the processes."""
        self._closing = True
        self._thread.shutdown()
        self._evaluator.close()

    def _evaluate(self, step: int, agents: Any, keys: jax.Array) -> list[EpisodeStats]:
        """Play the episodes, and write videos if asked to. Called in the background."""
        results = self._evaluator.evaluate(
            agents,
            keys,
            should_stop=lambda: self._closing or self._stopped(),
            **self._recording,
        )
        for member, result in zip(self._members, results, strict=True):
            if result.videos:
                path = self._video_path(step, member)
                path.parent.mkdir(exist_ok=True)
                write_video(path, result.videos)
        return results
