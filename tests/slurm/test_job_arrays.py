"""Sweeps on a real Slurm: whatever stops a task, its run ends as one that nothing has stopped."""

import os
import re
import shlex
import signal
import sys
from pathlib import Path

import pytest

from tests import small_runs
from tests.processes import REPOSITORY
from tests.slurm.private_slurm import MISSING, PrivateSlurm, wait_until
from utils.report.csv_log import read_csv
from utils.sweep import jobs

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(MISSING), reason=f"Slurm cannot be started here without {', '.join(MISSING)}"
    ),
]

SLOW_MAIN = REPOSITORY / "tests/slurm/slow_main.py"
LENGTH = {"offline_steps": 400, "log_interval": 10, "save_interval": 50, "eval_interval": 400}
# Seconds of pause after each of 40 rows, by the group of runs, which is named after its fate. A
# node counts as lost after half a minute, and time is up after 60 to 90 s of a minute.
PAUSES = {
    "preempted": 0.5,
    "killed": 0.6,
    "lost": 2.25,
    "cancelled": 0.7,
    "broken": 0.0,
    "warned": 2.25,
    "short": 0.0,
    "limited": 2.25,
}
FATES = [group for group in PAUSES if group != "broken"]
# An array of Slurm may have four tasks here, so that these five are two arrays. The last task of
# the first, that is cancelled, goes by the number of the array itself.
INTERRUPTED = ("preempted", "killed", "lost", "cancelled", "broken")


class Sweep:
    """A submitted sweep with a run of each group.

    Args:
        slurm: Where it is submitted.
        groups: The groups.
        dataset_dir: Where the data are.
        *options: Of the submission.
        per_job: Runs of one task.

    Attributes:
        file: The sweep's file.
        groups: The groups.
    """

    def __init__(self, slurm, groups, dataset_dir, *options, per_job=1):
        self.slurm = slurm
        self.file = slurm.folder.parent / f"{groups[0]}.txt"
        self.groups = groups
        self._per_job = per_job
        lines = []
        for group in groups:
            changes = LENGTH | {"run_group": group, "pause": PAUSES[group]}
            if group == "preempted":
                changes["wandb_mode"] = "offline"
            data = dataset_dir / "nowhere" if group == "broken" else dataset_dir
            _, _, *flags = small_runs.command(self.file.parent, data, **changes)
            lines.append(shlex.join([sys.executable, str(SLOW_MAIN), *flags]))
        self.file.write_text("".join(f"{line}\n" for line in lines))
        self.call("submit", f"--commands_per_job={per_job}", *options)

    def call(self, command, *options):
        """Call `python -m utils.sweep` for it; returns what that printed."""
        return self.slurm.run(
            *(sys.executable, "-m", "utils.sweep", command, self.file, *options),
            PYTHONPATH=str(REPOSITORY),
        )

    def submission(self, number=0):
        """What was submitted, in that order."""
        return jobs.submissions(self.file)[number]

    def folder(self, group):
        """The folder of a group's run."""
        meanings = self.submission().read_meanings()
        return self.file.parent / meanings[self.groups.index(group)].folder

    def task(self, group):
        """Slurm's name of a group's task, 7_0 for instance."""
        number = self.groups.index(group)
        for line in self.submission().jobs.read_text().splitlines():
            kind, job, *words = line.split()
            if kind == "array" and int(words[1]) <= number:
                name = f"{job}_{(number - int(words[1])) // self._per_job}"
        return name

    def reports(self):
        """The jobs that report on the submissions."""
        lines = "".join(each.jobs.read_text() for each in jobs.submissions(self.file))
        return re.findall(r"^report (\d+)$", lines, flags=re.M)

    def job(self, group):
        """What Slurm says of a group's task."""
        return self.slurm.job(self.task(group))

    def log(self, group, submission=0):
        """What a group's run printed, and the script's marks."""
        submission = self.submission(submission)
        (number,) = (
            i
            for i, text in enumerate(submission.texts(), start=1)
            if f"--run_group={group} " in text
        )
        return submission.log(number).read_text()

    def output(self, group):
        """What the script of a group's task printed."""
        return (self.submission().logs / f"{self.task(group)}.out").read_text()

    def step(self, group):
        """Step of the last row of a group's run."""
        rows = self.folder(group) / "train.csv"
        return read_csv(rows)[-1]["step"] if rows.exists() else 0

    def wait_for_training(self):
        """Wait until every run is in training, beyond a checkpoint of it."""
        for group in self.groups:
            if group in FATES:
                wait_until(lambda group=group: self.step(group) >= 60, 200, f"rows of {group}")


def program(sweep, group):
    """Process of a group's run: the one that none like it has started."""
    array, index = sweep.task(group).split("_")
    found = {}
    for process in sweep.slurm.processes(SLURM_ARRAY_JOB_ID=array, SLURM_ARRAY_TASK_ID=index):
        if str(SLOW_MAIN) in Path(f"/proc/{process}/cmdline").read_text():
            found[process] = int(Path(f"/proc/{process}/stat").read_text().split()[3])
    (first,) = (process for process, parent in found.items() if parent not in found)
    return first


@pytest.fixture(scope="module")
def outside(tmp_path_factory, dataset_dir):
    """Folder of the same run, by main.py and outside Slurm."""
    folder = tmp_path_factory.mktemp("outside")
    small_runs.execute(small_runs.command(folder, dataset_dir, **LENGTH))
    return small_runs.folder_of(folder)


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory, dataset_dir):
    """Sweeps by the groups of their runs, after all that can happen to them has happened."""
    folder = tmp_path_factory.mktemp("sweeps")
    with PrivateSlurm(folder / "slurm", nodes=8, max_array_size=4) as slurm:
        warned = Sweep(slurm, ("warned", "short"), dataset_dir, "--time=2", per_job=2)
        # Slurm's signal is none of those that the script heeds: it is told when time is up.
        limited = Sweep(slurm, ("limited",), dataset_dir, "--time=1", "--sbatch=--signal=B:CONT@1")
        warned.wait_for_training()
        limited.wait_for_training()
        interrupted = Sweep(slurm, INTERRUPTED, dataset_dir, "--time=10", "--tries=2")
        interrupted.wait_for_training()

        os.kill(program(interrupted, "killed"), signal.SIGKILL)
        slurm.run("scancel", interrupted.task("cancelled"))
        slurm.lose(interrupted.job("lost").node)
        node = interrupted.job("preempted").node
        slurm.run("sbatch", "--partition=high", f"--nodelist={node}", "--wrap=", "--output=none")
        wait_until(lambda: ended(interrupted.job("cancelled")), 60, "the end of what is cancelled")
        wait_until(lambda: ended(interrupted.job("broken")), 120, "the end of what is broken")
        interrupted.call("resubmit", "--tries=1")
        every = (warned, limited, interrupted)
        reports = [job for sweep in every for job in sweep.reports()]
        wait_until(lambda: all(ended(slurm.job(job)) for job in reports), 400, "the reports")
        yield {group: sweep for sweep in every for group in sweep.groups}


def ended(job):
    """Whether a job has come to an end for good."""
    return job.state in ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def stops(log):
    """Steps at which a run saved and resumed, in the log's order."""
    return [(word, int(step)) for word, step in re.findall(r"(saved|resumed at) step (\d+)", log)]


def assert_resumed_where_it_saved(log):
    """Check that a run was told to stop in training, and nothing of it was trained twice."""
    found = stops(log)
    saved = [step for word, step in found if word == "saved"]
    resumed = [step for word, step in found if word == "resumed at"]
    assert 0 < saved[0] < 400
    assert resumed[: len(saved)] == saved
    assert set(resumed[len(saved) :]) <= {400}  # told when nothing was left to be saved


@pytest.mark.parametrize("group", FATES)
def test_every_run_ends_as_outside_slurm(sweeps, outside, group):
    """To the bit: parameters, optimiser, rows of all logs."""
    small_runs.assert_same_end(sweeps[group].folder(group), outside)


def test_a_preempted_run_resumes_where_it_saved(sweeps):
    sweep = sweeps["preempted"]
    assert_resumed_where_it_saved(sweep.log("preempted"))
    assert "== requeue" not in sweep.log("preempted")  # Slurm itself did
    assert sweep.job("preempted").restarts == 1
    assert sweep.job("preempted").state == "COMPLETED"
    starts = list(sweep.folder("preempted").glob("wandb/offline-run-*"))
    assert len(starts) == 2
    assert len({start.name.rsplit("-", 1)[1] for start in starts}) == 1


def test_a_run_is_told_before_its_time_is_up(sweeps):
    sweep = sweeps["warned"]
    assert_resumed_where_it_saved(sweep.log("warned"))
    assert "TIME LIMIT" not in sweep.output("warned")
    assert sweep.job("warned").restarts == sweep.log("warned").count("== requeue") > 0
    assert sweep.job("warned").state == "COMPLETED"


def test_what_has_finished_is_not_started_again_beside_what_goes_on(sweeps):
    """On a machine with much else to do it may have been told once, before it had finished."""
    log = sweeps["short"].log("short")
    assert log.endswith("== exit 0\n")
    assert log.count("== exit 0\n") == 1
    assert log.count("== start") < sweeps["warned"].log("warned").count("== start")


def test_a_run_goes_on_after_its_time_was_up(sweeps):
    sweep = sweeps["limited"]
    assert_resumed_where_it_saved(sweep.log("limited"))
    assert "TIME LIMIT" in sweep.output("limited")
    assert sweep.job("limited").restarts == sweep.log("limited").count("== requeue") > 0


def test_a_killed_run_goes_on_from_its_last_checkpoint(sweeps):
    log = sweeps["killed"].log("killed")
    assert [line for line in log.splitlines() if line.startswith("== exit")] == [
        "== exit 137",
        "== exit 0",
    ]
    ((word, step),) = stops(log)
    assert word == "resumed at"
    assert step >= 50
    assert step % 50 == 0
    assert sweeps["killed"].job("killed").restarts == 1


def test_a_cancelled_task_stays_cancelled_until_it_is_submitted_again(sweeps):
    sweep = sweeps["cancelled"]
    job = sweep.job("cancelled")
    assert job.id == sweep.task("cancelled").split("_")[0]
    assert job.state == "CANCELLED"
    assert job.restarts == 0
    log = sweep.log("cancelled")
    assert log.count("== start") == 1
    assert "== requeue" not in log
    assert_resumed_where_it_saved(log + sweep.log("cancelled", submission=1))


def test_a_lost_node_is_waited_for_and_nothing_is_trained_twice(sweeps):
    log = sweeps["lost"].log("lost")
    assert sweeps["lost"].job("lost").restarts > 0
    assert sweeps["lost"].job("lost").state == "COMPLETED"
    assert "another process is running" in log
    assert log.count("compiled in") == 1
    assert not stops(log)
    assert "== requeue" not in log  # waiting is no try


def test_a_broken_run_is_given_up_and_its_last_lines_are_shown(sweeps):
    sweep = sweeps["broken"]
    assert sweep.job("broken").state == "FAILED"
    assert sweep.job("broken").restarts == 1
    assert sweep.log("broken").count("== exit 1\n") == 2
    assert "line 5, given up after 2 tries:" in sweep.output("broken")
    assert "error: cannot download" in sweep.output("broken")


def test_only_what_is_missing_is_submitted_again(sweeps):
    texts = sweeps["lost"].submission(1).texts()
    assert [re.search(r"--run_group=(\w+)", text)[1] for text in texts] == ["cancelled", "broken"]


def test_a_sweep_that_is_larger_than_an_array_is_split(sweeps):
    lines = sweeps["lost"].submission().jobs.read_text().splitlines()
    arrays = [line.split()[2:] for line in lines if line.startswith("array")]
    assert arrays == [["offset", "0", "tasks", "0-3"], ["offset", "4", "tasks", "0-0"]]


def test_the_status_tells_what_became_of_the_runs(sweeps):
    status = sweeps["broken"].call("status")
    assert re.findall(r"^ *\d +(\w+) +(\d+)/400", status, flags=re.M) == [
        *[("done", "400")] * 4,
        ("failed", "0"),
    ]
    assert "error: cannot download" in status


def test_the_dependent_job_reports_on_all_runs(sweeps):
    """It has waited for every task, as often as that was requeued."""
    sweep = sweeps["lost"]
    for job in sweep.reports():
        assert sweep.slurm.job(job).state == "COMPLETED"
    report = (jobs.report_of(sweep.file) / "report.md").read_text()
    for group in INTERRUPTED:
        if group in FATES:
            row = rf"\| deflow, pause={PAUSES[group]} +\| 1 +\| 1 +\| 400 +\| "
            assert re.search(row, report), group
    assert f"{sweep.folder('broken')}: no run is there" in report


def test_nothing_is_left_of_a_private_slurm(tmp_path):
    with PrivateSlurm(tmp_path / "slurm", nodes=1) as slurm:
        slurm.run("sbatch", "--output=none", "--wrap=trap '' TERM; sleep 100 & sleep 101")
        wait_until(lambda: len(slurm.processes(SLURM_CLUSTER_NAME="scratch")) == 3, 20, "a job")
    assert slurm.processes() == []
