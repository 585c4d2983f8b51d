"""A sweep on this machine: several commands at a time, each with a log of its own."""

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from utils.files import LOCK, is_held
from utils.runs.meaning import Meaning
from utils.runs.signals import Signals
from utils.sweep.commands import Command
from utils.sweep.jobs import Submission, read_log
from utils.sweep.tries import Tries

_LOOK_SECONDS = 0.1
_MEMORY = "XLA_PYTHON_CLIENT_MEM_FRACTION"
_GPU_MEMORY = 0.9  # of which the programs that share a GPU get equal parts


@dataclass
class _Job:
    """A command, and what became of it so far.

    Attributes:
        number: Its line in the submission, from 1.
        command: The command.
        tries: Its log, its meaning and its tries.
        began: When it was started last.
    """

    number: int
    command: Command
    tries: Tries
    began: float = 0.0


class LocalRun:
    """Workers that take one command after the other.

    A command that fails is started again when all others have had their turn, as often as `tries`
    allows without a newer checkpoint. A signal is handed on to the programs once, as SIGTERM; they
    save, and the rest of the sweep is left for the next time.

    Args:
        submission: Where the commands are frozen and logs go.
        todo: The commands, and what they mean.
        workers: How many are run at a time.
        tries: How often a command is started without progress.
    """

    def __init__(
        self,
        submission: Submission,
        todo: Sequence[tuple[Command, Meaning]],
        workers: int,
        tries: int,
    ):
        self._waiting = [
            _Job(number, command, Tries(submission.log(number), meaning, tries))
            for number, (command, meaning) in enumerate(todo, start=1)
        ]
        self._total = len(self._waiting)
        self._running: dict[int, tuple[_Job, subprocess.Popen]] = {}
        self._asked = False
        self._environments = environments(workers, visible_gpus())

    def run(self) -> int | None:
        """Run all commands; return the exit code of the signal that ended it, None without one.

        Raises:
            UserError: A log cannot be written. The programs have saved then.
        """
        with Signals() as signals:
            signals.noted = signals.final = True
            try:
                while self._running or (self._waiting and not self._asked):
                    if signals.received is not None and not self._asked:
                        self._ask_to_save(signals.name)
                    if not self._asked:
                        self._fill()
                    time.sleep(_LOOK_SECONDS)
                    self._collect()
            finally:  # after an error, too, no program is left to itself
                if self._running and not self._asked:
                    self._ask_to_save("an error")
                for _, process in self._running.values():
                    process.wait()
            return None if signals.received is None else signals.exit_code

    def _fill(self) -> None:
        """Give each idle worker a command."""
        for worker, environment in enumerate(self._environments):
            if worker not in self._running and self._waiting:
                job = self._waiting.pop(0)
                if is_held(Path(job.tries.meaning.folder) / LOCK):
                    self._say(job, "is run by another process, and left to it")
                else:
                    self._running[worker] = (job, self._start(job, environment))

    def _start(self, job: _Job, environment: Mapping[str, str]) -> subprocess.Popen:
        job.began, made = time.monotonic(), job.tries.made
        self._say(job, f"starts again, try {made + 1}" if made else f"starts, {job.tries.log}")
        job.tries.note_start(platform.node())
        with open(job.tries.log, "ab") as output:
            return subprocess.Popen(
                # As a job array does it: variables may stand in front, and no shell in between.
                ["bash", "-c", f"exec env {job.command.text}"],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | environment,
                start_new_session=True,  # Ctrl-C comes to this process alone, which hands it on
            )

    def _ask_to_save(self, name: str) -> None:
        self._asked = True
        print(f"{name}: waiting for {len(self._running)} runs to save", flush=True)
        for _, process in self._running.values():
            process.terminate()

    def _collect(self) -> None:
        """Take note of the programs that have ended."""
        for worker, (job, process) in list(self._running.items()):
            if process.poll() is not None:
                del self._running[worker]
                self._note_end(job, process.returncode)

    def _note_end(self, job: _Job, code: int) -> None:
        code = code if code >= 0 else 128 - code  # as a shell says of a signal
        tries = job.tries
        tries.note_exit(code)
        said = "done" if code == 0 else f"exit code {code}"
        last = "" if code == 0 else ": " + " ".join(read_log(tries.log, lines=1).last_lines)
        self._say(job, f"{said} after {time.monotonic() - job.began:.0f} s{last}")
        if not (self._asked or tries.ended):
            tries.note_try()
            if tries.left:
                self._waiting.append(job)
            else:
                self._say(job, f"given up after {tries.made} tries")

    def _say(self, job: _Job, text: str) -> None:
        print(f"[{job.number}/{self._total}] {job.tries.meaning.folder} {text}", flush=True)


def environments(workers: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return the variables that each worker's programs get, so that they share the GPUs.

    Args:
        workers: Number of workers.
        gpus: The GPUs, as CUDA_VISIBLE_DEVICES names them.
    """
    if not gpus:
        return [{} for _ in range(workers)]
    shares = [gpus[i::workers] or [gpus[i % len(gpus)]] for i in range(workers)]
    on_one, memory = -(-workers // len(gpus)), {}
    if on_one > 1 and _MEMORY not in os.environ:
        memory = {_MEMORY: f"{_GPU_MEMORY / on_one:.2f}"}
    return [{"CUDA_VISIBLE_DEVICES": ",".join(share)} | memory for share in shares]


def visible_gpus() -> list[str]:
    """Return this machine's GPUs, as CUDA_VISIBLE_DEVICES names them; none where it has none."""
    if "CUDA_VISIBLE_DEVICES" in os.environ:
        return [name for name in os.environ["CUDA_VISIBLE_DEVICES"].split(",") if name]
    try:
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return [str(i) for i, line in enumerate(done.stdout.splitlines()) if line.startswith("GPU")]
