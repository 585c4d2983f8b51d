"""A run: its folder, logs, evaluations, checkpoints and signals, around the training loop.

A run that is killed at any moment and started again by the same command ends as if nothing had
happened: everything the numbers depend on is either a function of the settings or in the
checkpoint, and rows logged after the last checkpoint are dropped and written again.
"""

import concurrent.futures
import contextlib
import copy
import dataclasses
import functools
import json
import math
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar, Self

import filelock
import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from utils.checkpoints import FOLDER as CHECKPOINTS_FOLDER
from utils.checkpoints import Checkpoints
from utils.datasets import HostDataset, Source, example_batch, fingerprint, make_source
from utils.devices import describe_devices, place, seed_mesh, spread
from utils.env_workers import Interrupted
from utils.envs import rendering, tasks
from utils.errors import UserError
from utils.evaluation import EpisodeStats, Evaluator
from utils.files import write_atomically
from utils.report import curves, scores
from utils.report.csv_log import CsvLog, read_csv
from utils.runs.settings import Settings
from utils.runs.versions import versions
from utils.runs.wandb_log import start_wandb
from utils.training import Trainer, TrainingState, create_agents, over_seeds, seed_keys
from utils.video import write_video

EXIT_CODES = {signal.SIGTERM: 75, signal.SIGINT: 130}
"""Exit code after a signal, once the state is saved; 75 tells a scheduler to start it again."""

_DISPATCH_SECONDS = 1.0
_SIGNATURE_ROWS = 3  # rows in a row with a failure signature before the run speaks of it


@dataclasses.dataclass(frozen=True)
class Phase:
    """A stretch of training; intervals count from its start.

    Attributes:
        start: Step at which it begins.
        end: Step at which it ends.
        unit: What a step is.
        updates_per_step: Updates of the agent in each.
        advance: Takes at most so many steps; the run's state is `state` before and after.
        evaluate_first: Whether the agent is evaluated before the first step.
    """

    start: int
    end: int
    unit: str
    advance: Callable[[int], None]
    updates_per_step: int = 1
    evaluate_first: bool = False


@dataclasses.dataclass(frozen=True)
class _Evaluation:
    """An evaluation that goes on while training does.

    Attributes:
        step: Step of the agent that is evaluated.
        state: Training's state at that step.
        host: The host's side of it; the two make a checkpoint.
        results: To come.
        started: Value of time.perf_counter().
    """

    step: int
    state: TrainingState
    host: dict[str, Any]
    results: concurrent.futures.Future[list[EpisodeStats]]
    started: float


class Run:
    """One offline training run, as a context manager.

    Training goes on while an agent is evaluated: by a copy, on the CPU, in another thread and in
    worker processes. No number depends on how long that takes. Until it is over, the last
    checkpoint stays that of its step, whose evaluation a resumed run repeats.

    Args:
        settings: The resolved settings.
        agent_class: The agent to train.

    Attributes:
        boundary: Step at which offline training ends and the online phase begins, if there is one.
    """

    state_class: ClassVar[type[TrainingState]] = TrainingState

    def __init__(self, settings: Settings, agent_class: Any):
        self.settings = settings
        self.agent_class = agent_class
        agent_class.check_config(settings.agent)
        self.folder = settings.folder
        self.seeds = settings.flags["seed"] + np.arange(settings.flags["num_seeds"])
        self._received: int | None = None
        self._interruptible = False
        self._cleanup = contextlib.ExitStack()
        self._completed = False
        self._last_save = time.monotonic()
        self._save_wanted = False
        self._evaluation: _Evaluation | None = None
        self._ending = False
        self.boundary: int | None = None

    # --- Start and end --------------------------------------------------------------------------

    def __enter__(self) -> Self:
        with self._cleanup:
            for number in EXIT_CODES:
                previous = signal.signal(number, self._on_signal)
                self._cleanup.callback(signal.signal, number, previous)
            self._lock_folder()
            self._cleanup = self._cleanup.pop_all()
        return self

    def __exit__(self, kind: Any, value: Any, trace: Any) -> None:
        self._cleanup.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if not self._interruptible:
            raise SystemExit(EXIT_CODES[number])  # nothing to save yet, or everything is saved
        self._received = number

    def _lock_folder(self) -> None:
        """Take the run folder for this process alone, and empty it for --overwrite."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            raise UserError(
                f"another process is running in {self.folder}; wait for it, or change a setting"
            ) from None
        except OSError as error:
            raise UserError(
                f"the run folder {self.folder} cannot be used ({error.strerror}); "
                "choose another --save_dir"
            ) from error
        self._cleanup.callback(lock.release)
        if self.settings.flags["overwrite"]:
            for entry in self.folder.iterdir():
                if entry.name != ".lock":
                    shutil.rmtree(entry) if entry.is_dir() else entry.unlink()

    def finished(self) -> str | None:
        """The score line of a run that has ended, else None.

        Raises:
            UserError: The folder's run was made by another version of the agent's file.
        """
        before = self.folder / "agent.py"
        if before.exists() and before.read_bytes() != self.settings.agent_path.read_bytes():
            raise UserError(
                f"{self.settings.agent_path} is not as it was when the run in {self.folder} began "
                f"(see {before.name} there); start over with --overwrite, or keep both by another "
                "--run_group"
            )
        path = self.folder / "score.json"
        return json.loads(path.read_text())["line"] if path.exists() else None

    def execute(self) -> int:
        """Do what is left of the run, and return the exit code.

        Returns:
            0 at the end, or the code of the signal which stopped the run.

        Raises:
            UserError: Something that the user can remedy, as `prepare` and `train` say.
        """
        if line := self.finished():
            print(f"finished already: {line}\n{self.folder}\n--overwrite starts over")
            return 0
        self.prepare()
        code = self.train()
        if code == 0:
            self.finish()
        return code

    def prepare(self) -> None:
        """Load data, build agents and environments, and resume from the last checkpoint.

        Raises:
            UserError: Data are missing or not those of the checkpoint, or it does not fit, or the
                environment cannot be made, or JAX lacks the device that it is told to use.
        """
        values = self.settings.flags
        print(f"{self.settings.table()}\ndevices: {describe_devices()}", flush=True)
        rendering.choose_gl()  # once, for this process and its workers
        if values["video_episodes"]:
            rendering.require_gl("videos")
        # What the first evaluation would refuse is refused now.
        tasks.make_env(self.settings.env_name).close()
        train, val = tasks.load_datasets(self.settings.env_name, values["dataset_dir"])
        self._fingerprint = fingerprint(train)
        batch_size = self.settings.agent.batch_size
        source = self._make_source(train)
        mesh = source.mesh
        self._validation = HostDataset(val, batch_size, max_updates=1, mesh=mesh)
        self.trainer = Trainer(source, len(self.seeds))
        self._evaluation_keys = seed_keys(self.seeds, "evaluation")
        self._validation_keys = seed_keys(self.seeds, "validation")
        evaluate_loss = over_seeds(self.agent_class.evaluate_loss, self.trainer.seeds_per_device)
        self._evaluate_loss = jax.jit(spread(evaluate_loss, mesh))
        self.evaluator = Evaluator(
            functools.partial(tasks.make_env, self.settings.env_name),
            self.agent_class.sample_actions,
            num_episodes=values["eval_episodes"],
            num_seeds=len(self.seeds),
            num_workers=values["eval_workers"] or None,
            env_name=self.settings.env_name,
        )
        self._cleanup.callback(self.evaluator.close)
        self._background = concurrent.futures.ThreadPoolExecutor(max_workers=1)
        self._cleanup.callback(self._stop_evaluating)

        example = example_batch(train, batch_size)
        agents = create_agents(self.agent_class, self.seeds, example, self.settings.agent)
        self.state = self.state_class.create(agents, self.seeds, example)
        self.checkpoints = Checkpoints(self.folder)
        self._cleanup.callback(self.checkpoints.close)
        self._resume()
        self.state = place(self.state, mesh)
        self._open_logs()
        self._copy = jax.jit(lambda tree: jax.tree.map(jnp.copy, tree))
        self._finite = jax.jit(
            lambda tree: jnp.stack(
                [jnp.isfinite(x).all() for x in jax.tree.leaves(tree) if x.dtype == jnp.float32]
            ).all()
        )
        if self.checkpoints.latest_step() is None:
            self._save(*self._checkpoint())

    def _make_source(self, transitions: dict[str, np.ndarray]) -> Source:
        """Put the training data where batches come from; all else goes to the same devices."""
        mesh = seed_mesh(len(self.seeds))
        return make_source(transitions, self.settings.agent.batch_size, mesh)

    def _resume(self) -> None:
        restored = self.checkpoints.restore(self.state)
        self.host: dict[str, Any] = {
            "step": 0,
            "last_logged": 0,
            "last_evaluated": -1,
            "wandb_id": None,
            "signatures": {},
            "seconds": 0.0,
            "logged_seconds": 0.0,
            "dataset": self._fingerprint,
        }
        if restored is not None:
            self.state, self.host = restored
            if self.host["dataset"] != self._fingerprint:
                raise UserError(
                    f"the dataset of {self.settings.env_name} is not the one that the run in "
                    f"{self.folder} began with; restore it, set another --run_group, or start "
                    "over with --overwrite"
                )
            print(f"resumed at step {self.step} from {self.folder}", flush=True)
        elif self.settings.flags["restore_path"]:
            self._start_from(self.settings.flags["restore_path"])

    def _start_from(self, path: str) -> int:
        """Take the agents, with their optimiser states, from an earlier run's last checkpoint.

        Returns:
            The step of that checkpoint.
        """
        folder = Path(path).expanduser()
        if not (folder / CHECKPOINTS_FOLDER).is_dir():
            raise UserError(f"--restore_path={path} is not the folder of a run with checkpoints")
        earlier = Checkpoints(folder, read_only=True)
        self._cleanup.callback(earlier.close)
        restored = earlier.restore(
            self.state.agents,
            part="agents",
            remedy="the earlier run must have had the same agent, networks and --num_seeds",
        )
        if restored is None:
            raise UserError(f"--restore_path={path} has no complete checkpoint")
        agents, host = restored
        self.state = self.state.replace(agents=agents)
        print(f"agent taken from step {host['step']} of {path}", flush=True)
        return host["step"]

    def _open_logs(self) -> None:
        values = self.settings.flags
        self._write_json("config.json", self.settings.as_dict() | {"boundary": self.boundary})
        write_atomically(self.folder / "agent.py", self.settings.agent_path.read_bytes())
        self._note_versions()
        self._train_log = CsvLog(self.folder / "train.csv")
        self._train_log.keep_through(self.host["last_logged"])
        self._eval_log = CsvLog(self.folder / "eval.csv")
        self._eval_log.keep_through(self.host["last_evaluated"])
        self._timing_log = CsvLog(self.folder / "timing.csv")
        self._timing_log.keep_through(self.host["last_logged"])
        self.wandb = start_wandb(
            values["wandb_mode"],
            group=values["run_group"],
            name=self.folder.name,
            config=self.settings.as_dict(),
            folder=self.folder,
            run_id=self.host["wandb_id"],
        )
        self.host["wandb_id"] = self.wandb.id
        self._cleanup.callback(lambda: self.wandb.finish(exit_code=int(not self._completed)))

    def _note_versions(self) -> None:
        path = self.folder / "versions.json"
        now = versions()
        if path.exists() and self.step > 0:
            before = json.loads(path.read_text())
            changed = [key for key in now if before.get(key) != now[key]]
            if changed:
                listed = ", ".join(f"{key} {before.get(key)} -> {now[key]}" for key in changed)
                self._say(f"warning: resumed under other versions ({listed}); digits may differ")
        self._write_json("versions.json", now)

    def _write_json(self, name: str, content: Any) -> None:
        text = json.dumps(content, indent=2, default=str) + "\n"
        write_atomically(self.folder / name, text.encode())

    def _say(self, line: str) -> None:
        tqdm.write(line, file=sys.stdout)
        sys.stdout.flush()

    # --- Training -------------------------------------------------------------------------------

    @property
    def step(self) -> int:
        """Updates done offline plus environment steps taken online."""
        return int(self.state.step)

    def train(self) -> int:
        """Train up to the last step.

        Returns:
            The exit code: 0 at the end, or that of the signal which stopped the run.

        Raises:
            UserError: The numbers are no longer finite, or a file cannot be written.
        """
        return self._train_offline(self.settings.flags["offline_steps"])

    def _train_offline(self, end: int) -> int:
        if self.step > end:
            return 0
        if self.step < end:
            started = time.perf_counter()
            self.state = jax.block_until_ready(self.trainer.compile(self.state))
            self._say(f"compiled in {time.perf_counter() - started:.1f} s")

        def advance(count: int) -> None:
            self.state = jax.block_until_ready(self.trainer.advance(self.state, count))

        return self._train(Phase(0, end, "update", advance))

    def _train(self, phase: Phase) -> int:
        """Train to the end of a phase; returns the exit code as `train` does."""
        self._phase = phase
        self._interruptible = True
        steps = 1
        with tqdm(
            total=phase.end,
            initial=self.step,
            unit=phase.unit,
            dynamic_ncols=True,
            mininterval=0.5 if sys.stderr.isatty() else 60,
        ) as progress:
            while self._received is None:
                try:
                    self._keep_up()
                except Interrupted:
                    break
                before = self.step
                if before >= phase.end or self._received is not None:
                    break
                started = time.perf_counter()
                phase.advance(min(steps, self._next_stop() - before))
                elapsed = time.perf_counter() - started
                self.host["seconds"] += elapsed
                taken = self.step - before
                # Long enough to hide the dispatch, short enough to answer a signal. That the
                # number depends on the clock cannot show in the results.
                steps = math.ceil(min(4.0, _DISPATCH_SECONDS / elapsed) * taken)
                self._require_finite_metrics()
                progress.update(taken)
        return self._stop()

    def _next_stop(self) -> int:
        intervals = ("log_interval", "eval_interval", "save_interval")
        steps = (self.settings.flags[name] for name in intervals)
        done = self.step - self._phase.start
        stops = ((done // every + 1) * every for every in steps)
        return min(self._phase.end, self._phase.start + min(stops))

    def _due(self, interval: str) -> bool:
        done = self.step - self._phase.start
        at_end = self.step == self._phase.end
        return done > 0 and (done % self.settings.flags[interval] == 0 or at_end)

    def _keep_up(self) -> None:
        """Do whatever is due at this step: log, evaluate, save."""
        if self._due("log_interval") and self.host["last_logged"] < self.step:
            self._log()
        if self._evaluation is not None and self._evaluation.results.done():
            self._finish_evaluation()
        first = self._phase.evaluate_first and self.step == self._phase.start
        if (self._due("eval_interval") or first) and self.host["last_evaluated"] < self.step:
            self._finish_evaluation()  # the one before, if training has overtaken it
            self._begin_evaluation()
        if self.step == self._phase.end:
            self._finish_evaluation()
        overdue = time.monotonic() - self._last_save > 60 * self.settings.flags["save_minutes"]
        self._save_wanted |= overdue or self._due("save_interval")
        if self._save_wanted and self._may_save():
            self._save(*self._checkpoint())

    def _may_save(self) -> bool:
        """Whether a save that is wanted may take place at this step."""
        return self._evaluation is None or self._evaluation.step == self.step

    def _stop(self) -> int:
        if self._received is None:
            self._interruptible = False
            return 0
        try:
            self._finish_evaluation()
            state, host = self._checkpoint()
            when = ""
        except Interrupted:
            state, host = self._evaluation.state, self._evaluation.host
            when = ", where the evaluation that it ended began"
        self._save(state, host)  # a second signal does not disturb it
        name = signal.Signals(self._received).name
        self._say(f"{name}: saved step {host['step']}{when}; the same command resumes from there")
        return EXIT_CODES[self._received]

    def _checkpoint(self) -> tuple[TrainingState, dict[str, Any]]:
        """What a checkpoint of this step holds: the state, and the host's side of it."""
        self.host["step"] = self.step
        return self.state, self.host

    def _save(self, state: TrainingState, host: dict[str, Any]) -> None:
        if not self._finite(state.agents):
            raise self._not_finite("parameters")
        self.checkpoints.save(host["step"], state, host)
        self._last_save = time.monotonic()
        self._save_wanted = False

    def _require_finite_metrics(self) -> None:
        sums = {name: np.asarray(value) for name, value in self.state.metric_sums.items()}
        bad = sorted(name for name, value in sums.items() if not np.isfinite(value).all())
        if bad:
            good = np.all([np.isfinite(value) for value in sums.values()], axis=0)  # (seeds,)
            seeds = ", ".join(str(seed) for seed in self.seeds[~good])
            raise self._not_finite(f"{', '.join(bad)} of seed {seeds}")

    def _not_finite(self, what: str) -> UserError:
        kept = self.checkpoints.latest_step()
        return UserError(
            f"NaN or infinity in {what} by step {self.step}; the last good checkpoint, of step "
            f"{kept}, is kept in {self.folder}. Remedy: "
            "lower --agent.lr, set --agent.q_agg=min or --agent.normalize_q_loss=True, and check "
            "the rewards' scale"
        )

    # --- Logging and evaluation -----------------------------------------------------------------

    def _log(self) -> None:
        """Write a row of train.csv per seed: means since the last row, and validation losses."""
        training = self.state.mean_metrics()
        batches = self._validation.stage(self._validation_keys, self.step, 1)  # (seeds, 1, b, ...)
        batches = jax.tree.map(lambda x: x[:, 0], batches)
        # A second stream: the first has drawn the rows of the batches.
        keys = jax.vmap(lambda key: jax.random.fold_in(jax.random.fold_in(key, self.step), 1))(
            self._validation_keys
        )
        validation = self._evaluate_loss(self.state.agents, batches, keys)
        columns = training | {f"validation/{name}": x for name, x in validation.items()}
        columns = {name: np.asarray(value) for name, value in columns.items()}
        for i, seed in enumerate(self.seeds):
            row = {name: float(value[i]) for name, value in columns.items()}
            self._train_log.append({"step": self.step, "seed": int(seed), **row})
            self._log_wandb(row, self.step, int(seed), "training")
            self._watch(row, int(seed))
        updates = self._phase.updates_per_step * (self.step - self.host["last_logged"])
        seconds = self.host["seconds"] - self.host["logged_seconds"]
        self._timing_log.append(
            {
                "step": self.step,
                "updates_per_second": updates / seconds,
                "seconds": self.host["seconds"],
            }
        )
        self.host["logged_seconds"] = self.host["seconds"]
        self.state = self.state.reset_metrics()
        self.host["last_logged"] = self.step

    def _log_wandb(self, row: dict[str, float], step: int, seed: int, prefix: str) -> None:
        seed_prefix = f"seed_{seed}/" if len(self.seeds) > 1 else ""
        self.wandb.log(
            {f"{seed_prefix}{prefix}/{name}": value for name, value in row.items()}, step
        )

    def _watch(self, row: dict[str, float], seed: int) -> None:
        """Report a failure signature, once, when it has shown in several rows running."""
        found = self.agent_class.failure_signatures(row, self.settings.agent)
        counts = self.host["signatures"].get(str(seed), {})
        counts = {name: counts.get(name, 0) + 1 for name in found}
        self.host["signatures"][str(seed)] = counts
        for name, remedy in found.items():
            if counts[name] == _SIGNATURE_ROWS:
                self._say(f"warning: seed {seed}, step {self.step}: {name}. Remedy: {remedy}")

    def _begin_evaluation(self) -> None:
        """Have a copy of the agents evaluated in the background."""
        state, host = self._checkpoint()
        state = self._copy(state)  # training donates its own to the next dispatch
        keys = jax.vmap(jax.random.fold_in, (0, None))(self._evaluation_keys, self.step)
        results = self._background.submit(self._evaluate, self.step, state.agents, keys)
        self._evaluation = _Evaluation(
            self.step, state, copy.deepcopy(host), results, time.perf_counter()
        )

    def _evaluate(self, step: int, agents: Any, keys: jax.Array) -> list[EpisodeStats]:
        """Play the episodes, and write videos if asked to. Called in the background."""
        values = self.settings.flags
        results = self.evaluator.evaluate(
            agents,
            keys,
            video_episodes=values["video_episodes"],
            video_frame_skip=values["video_frame_skip"],
            should_stop=lambda: self._ending or self._received is not None,
        )
        for seed, result in zip(self.seeds, results, strict=True):
            if result.videos:
                path = self._video_path(step, seed)
                path.parent.mkdir(exist_ok=True)
                write_video(path, result.videos)
        return results

    def _video_path(self, step: int, seed: int) -> Path:
        return self.folder / "videos" / f"step{step}_seed{seed}.mp4"

    def _finish_evaluation(self) -> None:
        """Wait for the evaluation in the background, if there is one, and write its rows.

        Raises:
            Interrupted: A signal has stopped it; it stays the one in the background.
            UserError: An environment failed, or the policy is no longer finite.
        """
        if self._evaluation is None:
            return
        step = self._evaluation.step
        results = self._evaluation.results.result()
        for seed, result in zip(map(int, self.seeds), results, strict=True):
            row = result.mean()
            self._eval_log.append({"step": step, "seed": seed, **row})
            self._log_wandb(row, step, seed, "evaluation")
            if result.videos:
                self.wandb.log_video(f"seed_{seed}/video", self._video_path(step, seed), step)
            listed = ", ".join(f"{name} {value:.3g}" for name, value in row.items())
            self._say(f"step {step}, seed {seed}: {listed}")
        self.host["last_evaluated"] = step
        self._say(f"evaluation took {time.perf_counter() - self._evaluation.started:.0f} s")
        self._evaluation = None

    def _stop_evaluating(self) -> None:
        self._ending = True
        self._background.shutdown()

    def finish(self) -> None:
        """Write the score and the curves, and print the score line."""
        rows = read_csv(self.folder / "eval.csv")
        score = scores.protocol_score(rows, boundary=self.boundary)
        line = scores.score_line(score)
        curves.plot_curves(self.folder, self.folder / "curves.png", boundary=self.boundary)
        self._write_json("score.json", {"line": line, "step": self.step, **score})
        self._completed = True
        self._say(f"{line}\n{self.folder}")
