"""Data that are missing are collected before a run begins."""

import os
import subprocess
import sys
from pathlib import Path

from utils.envs import tasks
from utils.errors import UserError
from utils.runs.logs import say
from utils.runs.signals import EXIT_CODES

_LIBRARY = Path(__file__).parents[2]


def is_needed(env_name: str, dataset_dir: str | None) -> bool:
    """Return whether a task's dataset has to be collected before it can be loaded.

    Args:
        env_name: Full name of the task.
        dataset_dir: Folder of the files; the suite's own by default.

    Raises:
        UserError: It would have to be and cannot, or it is a task file's own affair.
    """
    files = tasks.dataset_files(env_name, dataset_dir)
    if files and all(map(os.path.isfile, files)):
        return False
    tasks.collection_command(env_name, dataset_dir)
    return True


def collect_missing(env_name: str, dataset_dir: str | None) -> None:
    """Collect the files of a task's dataset unless they are there, in a process of its own.

    Collection starts workers, which import the entry point of the process that starts them: that of
    a run brings JAX and the user's own code into each. Of several runs that begin together one
    collects, and the others wait for it.

    Args:
        env_name: Full name of the task.
        dataset_dir: Folder of the files; the suite's own by default.

    Raises:
        UserError: The dataset cannot be collected, or that failed.
        SystemExit: A signal ended the collection, with the exit code of a run after that signal.
    """
    if not is_needed(env_name, dataset_dir):
        return
    arguments, duration = tasks.collection_command(env_name, dataset_dir)
    say(f"data are missing: collecting them takes {duration}")
    # Ours comes first, and the working directory, which may have a utils of its own, not at all.
    paths = [str(_LIBRARY), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    command = [sys.executable, "-P", "-m", "utils.collect", *arguments, "--if_missing"]
    # A signal to this process raises, which ends that one; its finished episodes are kept.
    code = subprocess.run(command, env=environment).returncode
    if code in EXIT_CODES.values():
        raise SystemExit(code)
    if -code in EXIT_CODES:  # before that one heeded signals
        raise SystemExit(EXIT_CODES[-code])
    if code:
        raise UserError("the dataset could not be collected, see above")
