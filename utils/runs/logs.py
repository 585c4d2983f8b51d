"""Rows of a run: CSV files, their mirror at Weights & Biases, and lines on the terminal."""

import sys
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.evaluation import EpisodeStats
from utils.metrics import Signature
from utils.report.csv_log import CsvLog
from utils.runs.mirror import Mirror, mean_and_std
from utils.runs.progress import Progress
from utils.runs.wandb_log import Wandb
from utils.runs.watch import Watch


def say(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


class Logs:
    """The logs of a run's folder. Rows later than a resumed run's step are dropped.

    Args:
        folder: The folder.
        seeds: The training seeds.
        signatures: Failures to watch for.
        wandb: The mirror.
        progress: Where the run is; kept up to date.
    """

    def __init__(
        self,
        folder: Path,
        seeds: Sequence[int],
        signatures: Sequence[Signature],
        wandb: Wandb,
        progress: Progress,
    ):
        self._seeds = [int(seed) for seed in seeds]
        self._watch = Watch(signatures, progress)
        self._mirror = Mirror(wandb, self._seeds)
        self._progress = progress
        self._train = self._open(folder / "train.csv", progress.last_logged)
        self._timing = self._open(folder / "timing.csv", progress.last_logged)
        self._eval = self._open(folder / "eval.csv", progress.last_evaluated)
        self._eval_episodes = self._open(folder / "eval_episodes.csv", progress.last_evaluated)
        self._episodes = self._open(folder / "episodes.csv", progress.step)

    @staticmethod
    def _open(path: Path, step: int) -> CsvLog:
        log = CsvLog(path)
        log.truncate_after(step)
        return log

    def training(
        self, columns: Mapping[str, np.ndarray], updates: int, regular: bool = True
    ) -> None:
        """Write a row of train.csv per seed, and the speed; warn of failures that last.

        A seed that has failed since the row before has its last row, marked in the column `failed`.

        Args:
            columns: Metrics (seeds,) by name.
            updates: Updates since the row before.
            regular: Whether a longer run has the row too; else it leaves nothing behind.
        """
        step = self._progress.step
        rows: list[dict[str, float] | None] = []
        for i, seed in enumerate(self._seeds):
            failure = self._progress.failure(seed)
            if failure is not None and failure.step <= self._progress.last_logged:
                rows.append(None)
                continue
            row = {name: float(value[i]) for name, value in columns.items()}
            if failure is not None:
                row["failed"] = 1
            rows.append(row)
            self._train.append({"step": step, "seed": seed, **row})
            for warning in self._watch.warnings(row, seed) if regular else ():
                say(warning)
        self._mirror.training(rows, step)
        seconds = self._progress.seconds - self._progress.logged_seconds
        timing = {
            "updates_per_second": updates / seconds if seconds else None,
            "seconds": self._progress.seconds,
        }
        self._timing.append({"step": step, **timing})
        self._mirror.timing(timing, step)
        self._progress.last_logged = step
        if regular:
            self._progress.regular_logged = step
            self._progress.logged_seconds = self._progress.seconds

    def evaluation(
        self, step: int, results: Sequence[EpisodeStats], failed: Collection[int] = ()
    ) -> None:
        """Write a row of eval_episodes.csv per episode, and one of eval.csv per seed.

        Args:
            step: Step of the agents.
            results: Of each seed.
            failed: Seeds whose row says that they have failed, and no more.
        """
        good = [
            None if seed in failed else result
            for seed, result in zip(self._seeds, results, strict=True)
        ]
        self._eval_episodes.extend(
            {"step": step, "seed": seed, **row}
            for seed, result in zip(self._seeds, good, strict=True)
            for row in (result.rows() if result is not None else ())
        )  # first, so that a kill leaves no row of eval.csv without its episodes
        rows = [None if result is None else result.mean() for result in good]
        for seed, row in zip(self._seeds, rows, strict=True):
            if row is None:
                self._eval.append({"step": step, "seed": seed, "failed": 1})
                continue
            self._eval.append({"step": step, "seed": seed, **row})
            listed = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
            say(f"step {step}, seed {seed}: {listed}")
        left = [row for row in rows if row is not None]
        if len(left) > 1:
            spread = mean_and_std(left).items()
            listed = ", ".join(f"{name} {mean:.3g} ± {std:.3g}" for name, (mean, std) in spread)
            say(f"step {step}, mean ± std of {len(left)} seeds: {listed}")
        self._mirror.evaluation(rows, step)
        self._progress.last_evaluated = step

    def video(self, path: Path, step: int, seed: int) -> None:
        """Mirror a video."""
        self._mirror.video(path, step, seed)

    def episodes(self, step: int, ended: Sequence[dict[str, float] | None]) -> None:
        """Write a row of episodes.csv for every seed whose episode ended at a step."""
        for number, metrics in enumerate(ended):
            seed = self._seeds[number]
            if metrics is not None and self._progress.failure(seed) is None:
                self._episodes.append({"step": step, "seed": seed, **metrics})
                self._mirror.episode(number, metrics, step)
