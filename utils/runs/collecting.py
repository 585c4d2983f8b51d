"""Data that are missing are collected before a run begins."""

import os
import subprocess
import sys
from pathlib import Path

from utils.envs import tasks
from utils.errors import UserError
from utils.runs.logs import say

_LIBRARY = Path(__file__).parents[2]


def collect_missing(env_name: str, dataset_dir: str | None) -> None:
    """Collect the files of a task's dataset unless they are there, in a process of its own.

    Of several runs that begin together one collects, and the others wait for it.

    Args:
        env_name: Full name of the task.
        dataset_dir: Folder of the files; the suite's own by default.

    Raises:
        UserError: The dataset cannot be collected, or it failed.
    """
    files = tasks.dataset_files(env_name, dataset_dir)
    if files and all(map(os.path.isfile, files)):
        return
    arguments, duration = tasks.collection_command(env_name, dataset_dir)
    command = ["-m", "utils.collect", *arguments, "--if_missing"]
    say(f"no data yet: collecting them{f' takes {duration}' if duration else ''}")
    paths = [str(_LIBRARY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    # A signal to this process raises, which ends that one; its finished episodes are kept.
    if subprocess.run([sys.executable, *command], env=environment).returncode:
        raise UserError(
            "the dataset could not be collected, see above; finished episodes are kept, and the "
            "same command goes on from there"
        )
