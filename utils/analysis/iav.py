"""Intrinsic action variance of datasets: ``python -m utils.analysis iav TASK ...``."""

import argparse
import dataclasses
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from utils.agent_files import AgentFile, load_agent_file
from utils.analysis.action_variance import ActionVariance, Question, cached_action_variance
from utils.analysis.arguments import positive
from utils.envs import rendering, tasks
from utils.errors import UserError
from utils.report.rendering import Table, markdown

DESCRIPTION = """\
Measure how much the actions of datasets vary at one state: the variance of the actions at the 5
nearest other states, states having mean 0 and deviation 1 per dimension, as a mean over 10,000
states and the action dimensions (intrinsic action variance, arXiv 2601.10471). The paper's rule
takes the refinement's trust region from it: a tenth for fine manipulation, all of it for
navigation. Nothing is downloaded; what is found is kept in a file beside the data.
"""


@dataclasses.dataclass(frozen=True)
class Dataset:
    """The data of some tasks.

    Attributes:
        name: What the table calls it.
        tasks: Full names of the tasks that learn from it.
        files: Its files; none for a task file.
    """

    name: str
    tasks: tuple[str, ...]
    files: tuple[Path, ...]


@dataclasses.dataclass(frozen=True)
class Setting:
    """A setting of an agent that is printed beside.

    Attributes:
        agent: The agent's file.
        name: The setting.
    """

    agent: AgentFile
    name: str

    def beside(self, names: Sequence[str], iav: float) -> tuple[str, str]:
        """Return the values for tasks, each once, and what share of the variance they are.

        They are published ones, or the default where there is none.
        """
        found = {}
        for name in names:
            published = self.agent.published_settings(name).get(self.name)
            value = self.agent.config[self.name] if published is None else published
            found[str(value) if published is not None else f"{value} (default)"] = value
        return ", ".join(found), ", ".join(_share(value, iav) for value in found.values())


def main(arguments: Sequence[str]) -> int:
    """Print a row per dataset that is there; return the exit code.

    Raises:
        UserError: Something that the user can remedy.
    """
    options = _parse(arguments)
    rendering.choose_gl()
    setting = parse_setting(options.beside) if options.beside else None
    question = Question(options.k, options.states, options.seed, options.other_episodes)
    there, missing = find_datasets(options.tasks, options.dataset_dir)
    for dataset in missing:
        print(f"not there: {describe_missing(dataset, options.dataset_dir)}", file=sys.stderr)
    if not there:
        raise UserError("there are no data of these tasks; see the lines above")
    answers = [_answer(dataset, question, options.dataset_dir) for dataset in there]
    print(markdown(table(there, answers, setting)))
    return 0


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m utils.analysis iav",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "tasks",
        nargs="+",
        metavar="TASK",
        help="a task, or a group of tasks (ogbench-states), of which the data that are there",
    )
    parser.add_argument("--dataset_dir", help="folder of the data (default: the suite's own)")
    parser.add_argument(
        "--beside",
        metavar="FILE:SETTING",
        help="a setting of the agent in a file to print beside, such as the size of its trust "
        "region: its published value for the task, or else its default",
    )
    parser.add_argument("--k", type=positive, default=5, help="neighbours (default: %(default)s)")
    parser.add_argument(
        "--states",
        type=positive,
        default=10_000,
        help="states that are asked about (default: %(default)s)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of these states (default: 0)")
    parser.add_argument(
        "--other_episodes",
        action="store_true",
        help="take neighbours from other episodes only: within one, states that follow each other "
        "are near, and so are their actions",
    )
    return parser.parse_args(arguments)


def parse_setting(text: str) -> Setting:
    """Return the setting that FILE:SETTING names.

    Raises:
        UserError: It does not look so, or there is no such file or setting.
    """
    path, colon, name = text.rpartition(":")
    if not colon or not path:
        raise UserError(f"--beside={text} does not look like FILE:SETTING")
    agent = load_agent_file(path)
    if name not in agent.config:
        raise UserError(
            f"--beside={text}: {path} has no setting {name}; it has {', '.join(agent.config)}"
        )
    return Setting(agent, name)


def find_datasets(
    names: Sequence[str], dataset_dir: str | None
) -> tuple[list[Dataset], list[Dataset]]:
    """Return the data of tasks and groups that are there, and those that are not.

    Tasks that learn from the same files are one dataset.

    Raises:
        UserError: A name is unknown.
    """
    groups, by_files = tasks.groups(), {}
    for name in names:
        for task in groups.get(name) or [tasks.resolve(name)]:
            files = tuple(tasks.dataset_files(task, dataset_dir))
            by_files.setdefault(files or task, {})[task] = None
    datasets = []
    for key, members in by_files.items():
        first = next(iter(members))
        files = () if key == first else key
        name = files[0].stem if files else tasks.short_name(first)
        datasets.append(Dataset(name, tuple(members), files))
    there = [one for one in datasets if all(file.exists() for file in one.files)]
    return there, [one for one in datasets if one not in there]


def describe_missing(dataset: Dataset, dataset_dir: str | None) -> str:
    """Return a dataset's name and how it can be collected, or why not."""
    try:
        arguments, how_long = tasks.collection_command(dataset.tasks[0], dataset_dir)
    except UserError as error:
        reason = str(error).partition(";")[0]  # what follows is a remedy of runs
        return f"{dataset.name} ({reason}); put its files into --dataset_dir"
    command = shlex.join(["python", "-m", "utils.collect", *arguments])
    return f"{dataset.name}; to collect it{how_long and f' ({how_long})'}: {command}"


def _answer(dataset: Dataset, question: Question, dataset_dir: str | None) -> ActionVariance:
    """Load a dataset and answer the question, saying on standard error what it took."""
    start = time.monotonic()
    data, _ = tasks.load_datasets(dataset.tasks[0], dataset_dir)
    loaded = time.monotonic()
    cache = dataset.files[0].with_suffix(".iav.json") if dataset.files else None
    answer, origin = cached_action_variance(data, question, cache)
    print(
        f"{dataset.name}: {origin} ({loaded - start:.0f} s of loading, then "
        f"{time.monotonic() - loaded:.0f} s)",
        file=sys.stderr,
        flush=True,
    )
    return answer


def table(
    datasets: Sequence[Dataset], answers: Sequence[ActionVariance], setting: Setting | None
) -> Table:
    """Return a row per dataset.

    Args:
        datasets: The datasets.
        answers: What was found, in their order.
        setting: What is printed beside, and what share of the variance it is.
    """
    header = ["data", "rows", "IAV", "a tenth of it"]
    if setting:
        header += [setting.name, "of IAV"]
    header += ["all actions", "same episode", "distance"]
    rows = []
    for dataset, answer in zip(datasets, answers, strict=True):
        row = [dataset.name, f"{answer.rows}"]
        row += [f"{answer.iav:.4g} ± {answer.error:.1g}", f"{answer.iav / 10:.4g}"]
        if setting:
            row += setting.beside(dataset.tasks, answer.iav)
        same = answer.same_episode
        row += [f"{answer.overall:.3g}", "" if same is None else f"{same:.1%}"]
        rows.append((*row, f"{answer.distance:.2g}"))
    return Table(tuple(header), tuple(rows))


def _share(value: Any, iav: float) -> str:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{np.divide(value, iav):.2g}" if is_number and iav > 0 else ""
