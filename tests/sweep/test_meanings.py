"""What commands mean, asked of the real entry points."""

import shlex
from pathlib import Path

import pytest

from tests.small_runs import REPOSITORY, TASK, command, make_run
from utils.errors import UserError
from utils.sweep import meanings
from utils.sweep.commands import parse

NOTE = """it's "a", (b c) $HOME `x` \\ # ; é"""


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPOSITORY)


def commands_of(*argument_lists, entry_point="main.py"):
    lines = [shlex.join(["python", entry_point, *arguments]) for arguments in argument_lists]
    return [parse(line, f"line {i}") for i, line in enumerate(lines, start=1)]


def test_the_folder_is_that_of_the_run_whatever_is_in_the_values(tmp_path, dataset_dir):
    changed = {"run_group": NOTE, "num_seeds": 3, "seed": 2}
    plain = command(tmp_path, dataset_dir)[2:]
    others = command(tmp_path, dataset_dir, "--agent.actor_hidden_dims=(7, 5)", **changed)[2:]
    rates = (1e-4, 2e-4)
    grid = command(tmp_path, dataset_dir, f"--vary=agent.lr={rates[1]},{rates[0]}")[2:]
    first, second, third = meanings.resolve(commands_of(plain, others, grid))
    alone = [make_run(tmp_path, dataset_dir, lr=rate).folder.path for rate in rates]
    assert third.points == third.run_folders == tuple(map(str, alone))
    assert first.run_folders == (first.folder,)
    assert first.folder == str(make_run(tmp_path, dataset_dir).folder.path)
    wanted = make_run(tmp_path, dataset_dir, actor_hidden_dims=(7, 5), **changed).folder.path
    assert second.folder == str(wanted)
    assert wanted.parts[-3:][::2] == (NOTE, "sd002-004")
    assert (second.task, second.agent) == (f"{TASK}-singletask-v0", "deflow")
    assert (second.num_seeds, second.offline_steps, second.online_steps) == (3, 40, 0)
    assert not (tmp_path / "exp").exists()


def test_online_the_steps_of_both_phases_count(tmp_path):
    own = tmp_path / "own_main.py"
    own.write_text((REPOSITORY / "online_main.py").read_text())
    flags = ["--env_name=pen-human", "--online_steps=30", "--utd=4"]
    one, restored = meanings.resolve(
        commands_of(
            [*flags, "--offline_steps=100"],
            [*flags, "--restore_path=exp/other"],
            entry_point=str(own),
        )
    )
    assert (one.offline_steps, one.online_steps, one.updates) == (100, 30, 220)
    assert (restored.offline_steps, restored.online_steps, restored.updates) == (0, 30, 120)


def test_each_mistake_is_one_message(tmp_path):
    mistakes = [
        (["--agent.tua=0.1"], "no setting --agent.tua; did you mean --agent.tau?"),
        (["--agent.lr=fast"], "flag --agent.lr=fast: could not convert string to float"),
        (["--agent.lr=-1"], "--agent.lr=-1.0 is a negative learning rate"),
        (["--vary=agent.lr=1,-1"], "--agent.lr=-1.0 is a negative learning rate"),
        (["--vary=agent.lr=1", "--agent.lr=2"], "--agent.lr is given, and in --vary too"),
        (["--vary=agent.flow_steps=1,2"], "--vary agent.flow_steps: it is a count"),
        (["--agent.discount=1.5"], "--agent.discount=1.5 must be between"),
        (["--num_seeds=0"], "0 is not a positive integer"),
        (["--sed=1"], "unknown command line flag 'sed'. Did you mean: seed"),
        (["--env_name=scene-pla"], "did you mean scene-play"),
        (["--help"], "a command that asks for help trains nothing"),
        (["more"], "unexpected argument 'more'"),
        (["--agent=nowhere.py"], "--agent=nowhere.py is not a file"),
    ]
    answers = meanings._ask("main.py", [arguments for arguments, _ in mistakes], check=False)
    for (_, message), answer in zip(mistakes, answers, strict=True):
        assert message in answer
        assert "\n" not in answer.strip()


def test_settings_that_were_given_and_that_nothing_reads_are_named():
    idle = ["--agent.alpha=3", "--agent.use_lagrange=True", "--agent.tau=0.1"]
    (meaning,) = meanings.resolve(commands_of(idle), check=True)
    assert meaning.idle == ("alpha",)


def test_a_program_that_is_no_entry_point_is_named(tmp_path):
    program = tmp_path / "other.py"
    program.write_text("raise SystemExit('I take no flags')")
    with pytest.raises(UserError, match=r"other.py does not say .* \(I take no flags\)"):
        meanings.resolve(commands_of([], entry_point=str(Path(program))))
