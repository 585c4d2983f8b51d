"""Jobs in worker processes, which end with the process that started them."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from utils.errors import UserError
from utils.progress_bar import progress_bar

Job = tuple[str, int]
"""Split and number of an episode."""


def run_jobs(
    make_worker: Callable[[], Callable[[str, int], Any]],
    jobs: Sequence[Job],
    workers: int,
    *,
    desc: str,
    finished: int = 0,
) -> list[Any]:
    """Run jobs in worker processes, with a progress bar.

    Args:
        make_worker: Makes what does a job, once in each process; it is pickled.
        jobs: The jobs.
        workers: The most processes.
        desc: What is done, for the bar.
        finished: Number of jobs that were done before.

    Returns:
        What the jobs return, in their order.

    Raises:
        UserError: A process died, or a job raised it.
    """
    if not jobs:
        return []
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        min(workers, len(jobs)),
        mp_context=multiprocessing.get_context("spawn"),
        initializer=_start_worker,
        initargs=(make_worker,),
    )
    try:
        with progress_bar(finished + len(jobs), desc, unit="episode", initial=finished) as bar:
            with _ctrl_c_ignored():
                futures = [pool.submit(_run_job, *job) for job in jobs]
            for future in as_completed(futures):
                future.result()
                bar.update()
    except BrokenProcessPool as error:
        raise UserError(
            "a worker process died, perhaps for lack of memory; finished episodes are kept, repeat "
            "the command to continue, with fewer --workers if need be"
        ) from error
    except BaseException:
        for child in set(multiprocessing.active_children()) - others:
            child.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
    return [future.result() for future in futures]


@contextlib.contextmanager
def _ctrl_c_ignored() -> Iterator[None]:
    """Make the processes started meanwhile ignore SIGINT from the start.

    Ctrl-C reaches the whole process group, but the parent alone decides what to do about it.
    """
    if threading.current_thread() is not threading.main_thread():  # Python forbids it there.
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# Worker processes --------------------------------------------------------------------------------

_worker: Callable[[str, int], Any]


def _start_worker(make_worker: Callable[[], Callable[[str, int], Any]]) -> None:
    """Prepare a worker process: what does its jobs, and its end."""
    global _worker
    threading.Thread(target=_die_with_parent, daemon=True).start()
    _worker = make_worker()


def _die_with_parent() -> None:
    """End this process when its parent is gone, killed for instance."""
    multiprocessing.parent_process().join()
    os._exit(1)


def _run_job(split: str, episode: int) -> Any:
    return _worker(split, episode)
