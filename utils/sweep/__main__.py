r"""Many runs: tasks x agents x values x seeds as a text file of commands, run here or by Slurm.

  python -m utils.sweep --tasks=ogbench-states --agents=deflow,fql --seeds=8 \
      --vary agent.tau=0.005,0.01 --output=sweep.txt -- --eval_episodes=20

writes sweep.txt, the exact command of each run on a line, to be edited by hand. What stands behind
-- is passed on to all of them. With --local=N the runs are made here, N at a time, and reported;
with any option for Slurm they are submitted as a job array. The same command goes on with what is
there. All of this is done in one working directory. For a sweep's file there are

  python -m utils.sweep status sweep.txt      where each run stands
  python -m utils.sweep run sweep.txt --workers=2
  python -m utils.sweep submit sweep.txt --partition=gpu --time=12:00:00 --gpus=1
  python -m utils.sweep resubmit sweep.txt    what is missing, with the options of the last time
"""

if __name__ == "__main__":  # before the imports that take time
    from utils.runs.signals import end_at_once

    end_at_once()

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.errors import UserError
from utils.output import guard_stdout
from utils.sweep import grid, hours, jobs, slurm
from utils.sweep.commands import join
from utils.sweep.make import make, pack
from utils.sweep.slurm_options import Options
from utils.sweep.sweep import Sweep

_TRIES = 3


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    action = given.pop(0) if given and not given[0].startswith("-") else "make"
    try:
        if action not in _ACTIONS:
            raise UserError(f"unknown action '{action}'; it is one of {', '.join(_ACTIONS)}")
        return _ACTIONS[action](given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def _make(arguments: list[str]) -> int:
    end = arguments.index("--") if "--" in arguments else len(arguments)
    arguments, passed = arguments[:end], arguments[end + 1 :]
    parser = _parser("make", __doc__)
    parser.add_argument(
        "--tasks",
        required=True,
        metavar="A,B",
        help="groups (ogbench-states, d4rl-antmaze, ...; main.py --help lists them), datasets, "
        "which stand for all of their tasks, and single tasks",
    )
    parser.add_argument(
        "--agents", required=True, metavar="A,B", help="names in agents/, or paths of files"
    )
    parser.add_argument(
        "--seeds", type=_positive, required=True, metavar="N", help="number of seeds"
    )
    parser.add_argument(
        "--seed", type=int, default=0, metavar="FIRST", help="the first seed (default: 0)"
    )
    parser.add_argument(
        "--seeds_per_run",
        type=_positive,
        metavar="N",
        help="seeds that are trained together in one program (default: all)",
    )
    parser.add_argument(
        "--vary",
        action="append",
        default=[],
        metavar="NAME=V1,V2",
        help="values of a flag or an agent's setting (agent.tau=0.005,0.01); several --vary are "
        "multiplied. Commas within brackets and quotes belong to a value",
    )
    parser.add_argument(
        "--pack",
        action="store_true",
        help="train all values of a setting in one program, with --vary of the entry point, where "
        "the agent can have it so: numbers that enter its update",
    )
    entry = parser.add_mutually_exclusive_group()
    entry.add_argument("--online", action="store_true", help="with online_main.py")
    entry.add_argument("--main", metavar="FILE", help="with an entry point of your own")
    parser.add_argument(
        "--output",
        default="sweep.txt",
        metavar="FILE",
        help="the sweep's file, NAME.txt; NAME is the runs' group (default: %(default)s)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace another sweep's file")
    parser.add_argument(
        "--rate",
        metavar="R",
        help="updates per second of a run, or by agent (A:1500,B:1800), for the GPU hours",
    )
    parser.add_argument("--local", type=_positive, metavar="N", help="run N at a time here")
    _add_slurm(parser)
    options = parser.parse_args(arguments)
    slurm_options = _slurm(options)
    if options.local and (slurm_options.any or options.print_only):
        raise UserError("--local runs the sweep here, without Slurm; leave out one or the other")
    path = Path(options.output)
    swept = grid.Grid(
        env_names=grid.parse_tasks(options.tasks),
        agents=grid.parse_agents(options.agents),
        seed=options.seed,
        seeds=options.seeds,
        seeds_per_run=options.seeds_per_run or options.seeds,
        vary=tuple(map(grid.parse_vary, options.vary)),
        passed=tuple(passed),
        entry_point=options.main or grid.entry_point(options.online),
        run_group=path.stem,
    )
    if options.pack:
        swept = pack(swept)
    rates = hours.parse_rates(options.rate) if options.rate else {}
    sweep = make(swept, path, _made_by(options, passed), options.overwrite, rates)
    if options.local:
        return sweep.run(options.local, slurm_options.tries or _TRIES)
    if slurm_options.any or options.print_only:
        return sweep.submit(slurm_options, options.print_only)
    return 0


def _made_by(options: argparse.Namespace, passed: Sequence[str]) -> str:
    """Return the command line that makes a sweep's file, without what is done with it then."""
    names = ("tasks", "agents", "seeds", "seed", "seeds_per_run", "vary", "main", "output")
    words = ["python", "-m", "utils.sweep"]
    for name in names:
        value = getattr(options, name)
        values = value if isinstance(value, list) else [value] if value else []
        words += [f"--{name}={value}" for value in values]
    words += [f"--{name}" for name in ("pack", "online") if getattr(options, name)]
    return join([*words, *(["--", *passed] if passed else [])])


def _run(arguments: list[str]) -> int:
    parser = _parser("run", "Run here what is left to do of a sweep, and report.")
    parser.add_argument("--workers", type=_positive, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--tries", type=_positive, default=_TRIES, help=_TRIES_HELP)
    options = _parse(parser, arguments)
    return Sweep.read(options.file).run(options.workers, options.tries)


def _submit(arguments: list[str]) -> int:
    parser = _parser("submit", "Submit to Slurm what is left to do of a sweep.")
    _add_slurm(parser)
    options = _parse(parser, arguments)
    return Sweep.read(options.file).submit(_slurm(options), options.print_only)


def _resubmit(arguments: list[str]) -> int:
    parser = _parser(
        "resubmit",
        "Submit to Slurm what is missing of a sweep: what is neither done nor running, in the "
        "queue or diverged. Options that are not given are those of the last submission.",
    )
    _add_slurm(parser)
    options = _parse(parser, arguments)
    last = slurm.last_options(jobs.submissions(options.file))
    return Sweep.read(options.file).submit(_slurm(options).over(last), options.print_only)


def _status(arguments: list[str]) -> int:
    parser = _parser("status", "Say where each run of a sweep stands, from the run folders.")
    return Sweep.read(_parse(parser, arguments).file).show_status()


_ACTIONS: dict[str, Callable[[list[str]], int]] = {
    "make": _make,
    "run": _run,
    "submit": _submit,
    "resubmit": _resubmit,
    "status": _status,
}
_TRIES_HELP = f"starts of a command that fails, without a newer checkpoint (default: {_TRIES})"


def _parser(action: str, description: str) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog="python -m utils.sweep" + ("" if action == "make" else f" {action}"),
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


def _parse(parser: argparse.ArgumentParser, arguments: list[str]) -> argparse.Namespace:
    parser.add_argument("file", type=Path, metavar="FILE", help="the sweep's file")
    return parser.parse_args(arguments)


def _add_slurm(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("Slurm", "What is not given is left to the cluster.")
    add = group.add_argument
    add("--partition", help="partition of the jobs")
    add("--time", help="time limit of a job, as sbatch takes it; it is requeued and goes on")
    add("--gpus", help="GPUs of a job")
    add("--cpus", type=_positive, help="cores of a job")
    add("--memory", help="memory of a job, 32G for instance")
    add(
        "--commands_per_job",
        type=_positive,
        metavar="K",
        help="runs that share a job and its GPU (default: 1)",
    )
    add("--jobs_at_a_time", type=_positive, metavar="N", help="most jobs that run at a time")
    add(
        "--warning",
        type=_positive,
        metavar="SECONDS",
        help="how long before its limit a job is told to save (default: 120, at most a quarter)",
    )
    add("--tries", type=_positive, help=_TRIES_HELP)
    add("--script", metavar="FILE", help=f"script of a job (default: {grid.here(slurm.SCRIPT)})")
    add(
        "--sbatch",
        action="append",
        default=[],
        metavar="OPTION",
        help="a further option for sbatch, --sbatch=--account=mine; may be repeated",
    )
    add("--print_only", action="store_true", help="print the sbatch commands; submit nothing")


def _slurm(options: argparse.Namespace) -> Options:
    names = [field.name for field in dataclasses.fields(Options) if field.name != "sbatch"]
    values = {name: getattr(options, name) for name in names}
    return Options(**values, sbatch=tuple(options.sbatch))


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return int(text)


if __name__ == "__main__":
    guard_stdout()
    sys.exit(main())
