"""A sweep by Slurm: what is called, by programs that stand for Slurm's and note their calls."""

import json
from pathlib import Path

import filelock
import pytest

from utils.errors import UserError
from utils.files import LOCK
from utils.sweep.jobs import Submission
from utils.sweep.slurm import Array, arrays
from utils.sweep.slurm_options import Options, seconds

SLURM = {
    "sbatch": 'echo "$SUBMISSION|$OFFSET|$PER_JOB|$TRIES|$*" >>calls\n'
    'echo "$((40 + $(wc -l <calls)));cluster"',
    "scontrol": 'echo "MaxArraySize            = 3"',
    "squeue": 'cat "queue.$4" 2>/dev/null || { echo "Invalid job id specified" >&2; exit 1; }',
}


@pytest.fixture
def cluster(sweep, tmp_path, monkeypatch):
    """Puts the programs first into the path."""
    programs = tmp_path / "bin"
    programs.mkdir()
    for name, script in SLURM.items():
        (programs / name).write_text(f"#!/bin/bash\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    script = tmp_path / "my.sbatch"
    script.write_text("#!/bin/bash\n")
    return script


def calls():
    """The calls of sbatch: its variables, and its arguments."""
    rows = [line.split("|") for line in Path("calls").read_text().splitlines()]
    return [(tuple(row[:4]), row[4].split(" ")) for row in rows]


def test_one_command_makes_and_submits_an_array_and_its_report(sweep, cluster, capsys):
    options = ("--partition=gpu", "--time=2:00:00", "--gpus=1", "--cpus=4", "--memory=8G")
    more = ("--commands_per_job=2", "--sbatch=--account=me", f"--script={cluster}", "--tries=5")
    assert sweep("--tasks=scene-play", *options, *more) == 0
    (array, report) = calls()
    jobs = "sweep.jobs/001"
    assert array[0] == (jobs, "0", "2", "5")
    for option in (
        "--parsable",
        "--job-name=sweep",
        "--array=0-2",
        f"--output={jobs}/logs/%A_%a.out",
        "--open-mode=append",
        "--requeue",
        "--signal=B:TERM@120",
        "--partition=gpu",
        "--time=2:00:00",
        "--gpus=1",
        "--cpus-per-task=4",
        "--mem=8G",
        "--account=me",
    ):
        assert option in array[1]
    assert array[1][-1] == f"{jobs}/my.sbatch".replace("my", "array")
    assert (Path(jobs) / "array.sbatch").read_text() == cluster.read_text()
    assert (Path(jobs) / "logs").is_dir()
    lines = Path("sweep.txt").read_text().splitlines()
    commands = Path(jobs, "commands.txt").read_text().splitlines()
    assert commands == [line for line in lines if line and line[0] != "#"]
    folders = [meaning.folder for meaning in Submission(Path(jobs)).read_meanings()]
    assert folders == Path("sweep.jobs/folders.txt").read_text().splitlines()
    assert len(folders) == len(commands) == 5
    for option in ("--dependency=afterany:41", "--partition=gpu", "--account=me"):
        assert option in report[1]
    assert not any(option.startswith("--gpus") for option in report[1])
    jobs_lines = ["array 41 offset 0 tasks 0-2", "report 42"]
    assert Path(jobs, "jobs.txt").read_text().splitlines() == jobs_lines
    assert capsys.readouterr().out.splitlines()[-3:-1] == jobs_lines


def test_a_sweep_beyond_the_largest_array_is_several_with_one_limit(sweep, cluster):
    options = ("--jobs_at_a_time=2", f"--script={cluster}")
    assert sweep("--tasks=scene-play", "--seeds_per_run=1", *options) == 0
    found = calls()
    assert [variables[1] for variables, _ in found[:-1]] == ["0", "3", "6", "9"]
    assert [words[2] for _, words in found[:-1]] == 3 * ["--array=0-2%2"] + ["--array=0-0%2"]
    after = [[w for w in words if w.startswith("--dependency")] for _, words in found]
    assert after == [
        [],
        ["--dependency=afterany:41"],
        ["--dependency=afterany:42"],
        ["--dependency=afterany:43"],
        ["--dependency=afterany:41:42:43:44"],
    ]


def test_arrays_cover_all_commands_once():
    assert arrays(10, 3, 3) == [Array(0, 3), Array(9, 1)]
    assert arrays(9, 3, 3) == [Array(0, 3)]
    for commands in range(1, 30):
        for per_job in (1, 2, 5):
            plan = arrays(commands, per_job, 4)
            taken = [
                number
                for array in plan
                for task in range(array.tasks)
                for number in range(
                    array.offset + task * per_job, array.offset + (task + 1) * per_job
                )
                if number < commands
            ]
            assert taken == list(range(commands))
            assert all(array.tasks <= 4 for array in plan)


def test_resubmit_sends_what_is_missing_with_the_options_of_the_last_time(sweep, cluster):
    """Of six runs one is done, one has diverged, one is in the queue, and one runs elsewhere."""
    names = "--tasks=scene-play,pen-human"
    assert sweep(names, "--gpus=1", "--time=60", f"--script={cluster}") == 0
    folders = [Path(line) for line in Path("sweep.jobs/folders.txt").read_text().splitlines()]
    for folder, score in ((folders[0], {}), (folders[1], {"failed": {"0": 3}})):
        folder.mkdir(parents=True)
        (folder / "score.json").write_text(json.dumps({"line": "", "step": 5, **score}))
    Path("queue.42").write_text("0\n")  # the fourth; the first array is forgotten
    folders[5].mkdir(parents=True)
    with filelock.FileLock(folders[5] / LOCK):
        assert sweep("resubmit", "sweep.txt", "--gpus=2") == 0
    commands = Path("sweep.jobs/001/commands.txt").read_text().splitlines()
    missing = Path("sweep.jobs/002/commands.txt").read_text().splitlines()
    assert missing == [commands[2], commands[4]]
    last = calls()[-2][1]
    assert {"--gpus=2", "--time=60", "--array=0-1"} <= set(last)
    Path("queue.42").write_text("0\n1\n2\n")
    Path("queue.44").write_text("0\n1\n")
    number = len(calls())
    assert sweep("resubmit", "sweep.txt") == 0
    assert len(calls()) == number


def test_what_would_be_called_can_be_seen_first(sweep, cluster, capsys):
    assert sweep("--print_only", "--time=60") == 0
    assert not Path("calls").exists()
    assert not Path("sweep.jobs").exists()
    array, report = capsys.readouterr().out.splitlines()[-2:]
    assert array.startswith("SUBMISSION=sweep.jobs/001 OFFSET=0 PER_JOB=1 TRIES=3 ")
    assert " sbatch --parsable --job-name=sweep --array=0-1 " in array
    assert "'--wrap=exec echo report'" in report


def test_a_refusal_by_slurm_is_one_line_and_what_was_submitted_stays(sweep, cluster, capsys):
    (cluster.parent / "bin/sbatch").write_text(
        "#!/bin/bash\n[ $OFFSET = 0 ] && echo 7 || { echo 'sbatch: error: no\n more' >&2; exit 1; }"
    )
    options = ("--seeds_per_run=1", "--gpus=1", f"--script={cluster}")
    assert sweep("--tasks=scene-play", *options) == 1
    error = capsys.readouterr().err
    assert error.startswith(
        "error: sbatch refuses: sbatch: error: no more; the command was: sbatch"
    )
    assert len(error.splitlines()) == 1
    jobs = Path("sweep.jobs/001/jobs.txt").read_text()
    assert jobs == "array 7 offset 0 tasks 0-2\n"


def test_without_slurm_the_way_without_it_is_named(sweep, capsys, monkeypatch):
    monkeypatch.setenv("PATH", "/nowhere")
    assert sweep("--gpus=1") == 1
    error = capsys.readouterr().err
    assert error.startswith("error: there is no sbatch here;")
    assert "--local=N" in error
    assert not Path("sweep.jobs").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--time=2", "--warning=60"], "--warning=60 leaves a job of --time=2 less than half"),
        (["--time=soon"], "--time=soon is no time limit"),
        (["--script=nowhere.sbatch"], "--script=nowhere.sbatch is no file"),
    ],
)
def test_options_that_cannot_work_submit_nothing(sweep, cluster, capsys, options, message):
    assert sweep(*options) == 1
    assert message in capsys.readouterr().err
    assert not Path("calls").exists()
    assert not Path("sweep.jobs").exists()


@pytest.mark.parametrize(
    ("options", "signal"),
    [
        (Options(), "--signal=B:TERM@120"),
        (Options(time="1:00:00"), "--signal=B:TERM@120"),
        (Options(time="4"), "--signal=B:TERM@60"),
        (Options(time="4", warning=100), "--signal=B:TERM@100"),
        (Options(warning=200), "--signal=B:TERM@200"),
    ],
)
def test_jobs_are_told_to_save_in_time(options, signal):
    assert options.signal() == signal
    assert signal in options.resources()
    own = Options(sbatch=("--signal=B:USR1@9",))
    assert [word for word in own.resources() if "signal" in word] == ["--signal=B:USR1@9"]


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("90", 5_400),
        ("1:30", 90),
        ("2:00:01", 7_201),
        ("1-12", 129_600),
        ("1-0:30", 88_200),
        ("0-0:0:5", 5),
    ],
)
def test_time_limits_are_read_as_slurm_writes_them(time, expected):
    assert seconds(time) == expected


@pytest.mark.parametrize("time", ["", "1h", "-5", "1:2:3:4", "UNLIMITED"])
def test_other_time_limits_are_refused(time):
    with pytest.raises(UserError, match="is no time limit"):
        seconds(time)
