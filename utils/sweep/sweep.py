"""A sweep: its file, what its commands mean, and what is done with them."""

import subprocess
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from utils.runs.meaning import Meaning
from utils.runs.signals import SEED_FAILED
from utils.sweep import commands, jobs, meanings, slurm
from utils.sweep.commands import Command
from utils.sweep.jobs import Submission
from utils.sweep.local import LocalRun
from utils.sweep.slurm_options import Options
from utils.sweep.states import State, read_states
from utils.sweep.status import expected_hours, status, totals


@dataclass(frozen=True)
class Sweep:
    """The commands of a file, in its order.

    Attributes:
        path: The file.
        commands: The commands.
        meanings: What they mean.
    """

    path: Path
    commands: tuple[Command, ...]
    meanings: tuple[Meaning, ...]

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a sweep's file and resolve its commands.

        Raises:
            UserError: It cannot be read, or a command is wrong.
        """
        jobs.require_sweep(path)
        found = commands.read(path)
        return cls(path, tuple(found), tuple(meanings.resolve(found)))

    def states(self) -> list[State]:
        """Return where each run stands."""
        return read_states(self.commands, self.meanings, jobs.logs(self.path))

    # --- What is done with it ---------------------------------------------------------------------

    def show_status(self) -> int:
        """Print where each run stands; return the exit code."""
        queued = slurm.queued(jobs.submissions(self.path))
        print(status(self.commands, self.meanings, self.states(), queued))
        return 0

    def run(self, workers: int, tries: int) -> int:
        """Run here what is left to do, then report; return the exit code.

        Args:
            workers: How many commands are run at a time.
            tries: How often a command is started without progress.
        """
        left = self._left()
        if left:
            print(
                f"{len(left)} of {len(self.commands)} runs to do, {workers} at a time", flush=True
            )
            todo = [(self.commands[i], self.meanings[i]) for i in left]
            stopped = LocalRun(self._freeze(left), todo, workers, tries).run()
            if stopped is not None:
                print("the same command goes on from here")
                return stopped
        states = self.states()
        print(totals(states, expected_hours(self.meanings, states)), flush=True)
        code = self._report()
        names = {state.name for state in states}
        if not names <= {"done", "diverged"}:
            return 1
        return code or (SEED_FAILED if "diverged" in names else 0)

    def submit(self, options: Options, print_only: bool) -> int:
        """Submit what is left to do and is not in the queue; return the exit code.

        Args:
            options: What is asked of Slurm.
            print_only: Whether to print what would be called, and change nothing.

        Raises:
            UserError: There is no Slurm here, or it refuses.
        """
        if not print_only:
            slurm.require_slurm()
        options.require_possible()
        left = self._left(("running",), slurm.queued(jobs.submissions(self.path)))
        if not left:
            print("nothing to submit: all runs are done, running or in the queue")
            return 0
        per_job = options.commands_per_job or 1
        plan = slurm.arrays(len(left), per_job, slurm.max_array_size())
        submission = jobs.next_submission(self.path)
        if not print_only:
            submission = self._freeze(left)
            submission.freeze_options(options.script or slurm.SCRIPT, vars(options))
        sbatch = slurm.print_sbatch if print_only else slurm.call_sbatch
        files = (self.path.stem, jobs.folders_of(self.path), jobs.report_of(self.path))
        for line in slurm.submit(submission, options, plan, *files, sbatch):
            if not print_only:
                submission.note_job(line)
                print(line, flush=True)
        if not print_only:
            print(f"{len(left)} runs, frozen in {submission.folder}")
        return 0

    def _left(self, besides: Collection[str] = (), queued: Collection[str] = ()) -> list[int]:
        """Return which commands are left to do.

        Args:
            besides: States in which they are not, besides the final ones.
            queued: Lines of others that are not.
        """
        return [
            i
            for i, state in enumerate(self.states())
            if not state.final and state.name not in besides and self.commands[i].text not in queued
        ]

    def _freeze(self, chosen: Sequence[int]) -> Submission:
        """Freeze commands in a new submission, and write the folders for the report."""
        jobs.write_folders(
            self.path, (folder for meaning in self.meanings for folder in meaning.run_folders)
        )
        return jobs.new_submission(
            self.path, [self.commands[i] for i in chosen], [self.meanings[i] for i in chosen]
        )

    def _report(self) -> int:
        """Make the report of all runs; return its exit code."""
        jobs.write_folders(
            self.path, (folder for meaning in self.meanings for folder in meaning.run_folders)
        )
        words = slurm.report_command(jobs.folders_of(self.path), jobs.report_of(self.path))
        return subprocess.run(words, check=False).returncode
