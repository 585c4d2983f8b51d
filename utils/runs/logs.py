"""Rows of a run: CSV files, their mirror at Weights & Biases, and lines on the terminal."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from utils.evaluation import EpisodeStats
from utils.metrics import Signature
from utils.report.csv_log import CsvLog
from utils.runs.members import Member
from utils.runs.mirror import Mirror, mean_and_std
from utils.runs.progress import Progress
from utils.runs.wandb_log import Wandb
from utils.runs.watch import Watch


def say(line: str) -> None:
    """Print a line above the progress bar."""
    tqdm.write(line, file=sys.stdout)
    sys.stdout.flush()


class _Files:
    """The CSV files of a run folder. Rows later than a resumed run's step are dropped."""

    def __init__(self, folder: Path, progress: Progress):
        self.train = self._open(folder / "train.csv", progress.last_logged)
        self.timing = self._open(folder / "timing.csv", progress.last_logged)
        self.eval = self._open(folder / "eval.csv", progress.last_evaluated)
        self.eval_episodes = self._open(folder / "eval_episodes.csv", progress.last_evaluated)
        self.episodes = self._open(folder / "episodes.csv", progress.step)

    @staticmethod
    def _open(path: Path, step: int) -> CsvLog:
        log = CsvLog(path)
        log.truncate_after(step)
        return log


class Logs:
    """The logs in a run's folders.

    Args:
        folders: The folder of each grid point.
        members: Who is trained.
        signatures: Failures to watch for.
        wandb: The mirror.
        progress: Where the run is; kept up to date.
    """

    def __init__(
        self,
        folders: Sequence[Path],
        members: Sequence[Member],
        signatures: Sequence[Signature],
        wandb: Wandb,
        progress: Progress,
    ):
        self._members = list(members)
        self._watch = Watch(signatures, progress)
        self._mirror = Mirror(wandb, self._members)
        self._progress = progress
        self._files = [_Files(folder, progress) for folder in folders]

    def training(
        self, columns: Mapping[str, np.ndarray], updates: int, regular: bool = True
    ) -> None:
        """Write a row of train.csv per member, and the speed; warn of failures that last.

        One that has failed since the row before has its last row, marked in the column `failed`.

        Args:
            columns: Metrics (members,) by name.
            updates: Updates since the row before.
            regular: Whether a longer run has the row too; else it leaves nothing behind.
        """
        step = self._progress.step
        rows: list[dict[str, float] | None] = []
        for i, member in enumerate(self._members):
            failure = self._progress.failure(member)
            if failure is not None and failure.step <= self._progress.last_logged:
                rows.append(None)
                continue
            row = {name: float(value[i]) for name, value in columns.items()}
            if failure is not None:
                row["failed"] = 1
            rows.append(row)
            self._files[member.point].train.append({"step": step, "seed": member.seed, **row})
            for warning in self._watch.warnings(row, member) if regular else ():
                say(warning)
        self._mirror.training(rows, step)
        seconds = self._progress.seconds - self._progress.logged_seconds
        share = 1 / len(self._files)  # of the time, as if the points were trained in turn
        timing = {
            "updates_per_second": updates / (share * seconds) if seconds else None,
            "seconds": share * self._progress.seconds,
        }
        for files in self._files:
            files.timing.append({"step": step, **timing})
        self._mirror.timing(timing, step)
        self._progress.last_logged = step
        if regular:
            self._progress.regular_logged = step
            self._progress.logged_seconds = self._progress.seconds

    def evaluation(
        self, step: int, results: Sequence[EpisodeStats], failed: Sequence[bool] | None = None
    ) -> None:
        """Write a row of eval_episodes.csv per episode, and one of eval.csv per member.

        Args:
            step: Step of the agents.
            results: Of each member.
            failed: Which members' rows say that they have failed, and no more; by default none.
        """
        failed = [False] * len(results) if failed is None else failed
        good = [None if bad else result for bad, result in zip(failed, results, strict=True)]
        # First, so that a kill leaves no row of eval.csv without its episodes.
        for point, files in enumerate(self._files):
            files.eval_episodes.extend(
                {"step": step, "seed": member.seed, **row}
                for member, result in zip(self._members, good, strict=True)
                for row in (result.rows() if result is not None else ())
                if member.point == point
            )
        rows = [None if result is None else result.mean() for result in good]
        for member, row in zip(self._members, rows, strict=True):
            evaluations = self._files[member.point].eval
            if row is None:
                evaluations.append({"step": step, "seed": member.seed, "failed": 1})
                continue
            evaluations.append({"step": step, "seed": member.seed, **row})
            listed = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
            say(f"step {step}, seed {member}: {listed}")
        self._say_means(step, rows)
        self._mirror.evaluation(rows, step)
        self._progress.last_evaluated = step

    def _say_means(self, step: int, rows: Sequence[Mapping[str, float] | None]) -> None:
        """Print mean and standard deviation over the seeds of each point."""
        points: dict[str, list[Mapping[str, float]]] = {}
        for member, row in zip(self._members, rows, strict=True):
            if row is not None:
                points.setdefault(member.values, []).append(row)
        for values, left in points.items():
            if len(left) > 1:
                spread = mean_and_std(left).items()
                listed = ", ".join(f"{name} {mean:.3g} ± {std:.3g}" for name, (mean, std) in spread)
                of = f" of {values}" if values else ""
                say(f"step {step}, mean ± std of {len(left)} seeds{of}: {listed}")

    def video(self, path: Path, step: int, number: int) -> None:
        """Mirror a video, of the member with this number."""
        self._mirror.video(path, step, number)

    def episodes(self, step: int, ended: Sequence[dict[str, float] | None]) -> None:
        """Write a row of episodes.csv for every member whose episode ended at a step."""
        for number, metrics in enumerate(ended):
            member = self._members[number]
            if metrics is not None and self._progress.failure(member) is None:
                episodes = self._files[member.point].episodes
                episodes.append({"step": step, "seed": member.seed, **metrics})
                self._mirror.episode(number, metrics, step)
