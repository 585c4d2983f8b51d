"""What a sweep is made of: tasks, agents, values, seeds."""

import shlex

import pytest

from utils.envs import tasks
from utils.errors import UserError
from utils.sweep.grid import Grid, parse_agents, parse_tasks, parse_vary

GRID = {
    "env_names": ("scene-play-task1",),
    "agents": ("agents/fql.py",),
    "seed": 0,
    "seeds": 8,
    "seeds_per_run": 8,
    "vary": (),
    "passed": (),
    "entry_point": "main.py",
    "run_group": "sweep",
}


def arguments(**changes):
    """The arguments of each command, without interpreter and entry point."""
    return [shlex.split(line)[2:] for line in Grid(**GRID | changes).lines()]


def test_tasks_are_groups_datasets_and_single_ones_each_once():
    assert len(parse_tasks("ogbench-states")) == 50
    assert parse_tasks("ogbench-states")[:2] == (
        "antmaze-large-navigate-task1",
        "antmaze-large-navigate-task2",
    )
    assert parse_tasks("scene-play") == tuple(f"scene-play-task{n}" for n in range(1, 6))
    assert parse_tasks("scene-play-singletask-v0, pen-human") == ("scene-play", "pen-human")
    assert parse_tasks("scene-play-task2,scene-play")[0] == "scene-play-task2"
    assert len(parse_tasks("scene-play-task2,scene-play")) == 5
    assert len(parse_tasks("scene-play-singletask-v0,scene-play")) == 5  # the default one is task2
    assert parse_tasks("ogbench-online")[2] == "cube-double-play-task2"
    for name in parse_tasks("ogbench-states,ogbench-pixels,d4rl"):
        assert tasks.short_name(tasks.resolve(name)) == name


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ("ogbench-state", "unknown group of tasks 'ogbench-state'; did you mean ogbench-states"),
        ("scene-pla", "unknown environment 'scene-pla'; did you mean scene-play"),
        ("scene-play,", "an empty value"),
        ("./nowhere.py", "nowhere.py"),
    ],
)
def test_unknown_tasks_are_named(names, message):
    with pytest.raises(UserError, match=message):
        parse_tasks(names)


def test_agents_are_names_or_paths():
    assert parse_agents("deflow,my/idea.py,fql")[1] == "my/idea.py"
    assert parse_agents("deflow")[0].endswith("agents/deflow.py")
    with pytest.raises(UserError, match=r"no agent is called 'deflo'; .* deflow"):
        parse_agents("deflo")
    with pytest.raises(UserError, match="two agents are called 'idea'"):
        parse_agents("my/idea.py,your/idea.py")


@pytest.mark.parametrize(
    ("text", "name", "values"),
    [
        ("agent.tau=0.005,0.01", "agent.tau", ("0.005", "0.01")),
        ("--agent.tau=1", "agent.tau", ("1",)),
        ("agent.x=(512, 512),(256, 256)", "agent.x", ("(512, 512)", "(256, 256)")),
        ("agent.x=[(1, 2), 3],{4: 5}", "agent.x", ("[(1, 2), 3]", "{4: 5}")),
        ("""agent.x="a,b",'c d',''""", "agent.x", ("a,b", "c d", "")),
        ("""agent.x=("a)", "b,"),c""", "agent.x", ("""("a)", "b,")""", "c")),
        ("sampling=a=1.py,b.py", "sampling", ("a=1.py", "b.py")),
    ],
)
def test_values_are_separated_by_commas_outside_brackets_and_quotes(text, name, values):
    assert parse_vary(text) == (name, values)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("agent.tau", "does not look like NAME=VALUE"),
        ("agent.x=(1,2", r"does not close its \("),
        ("agent.x=1,2)", r"has a \) too many"),
        ("agent.x=(1]", r"has a \] too many"),
        ("agent.x=1,,2", "an empty value"),
        ("agent.x=1,2,1", "has a value twice"),
    ],
)
def test_values_that_are_none_are_refused(text, message):
    with pytest.raises(UserError, match=message):
        parse_vary(text)


def test_the_commands_are_all_products_and_seeds_are_packed():
    found = arguments(
        env_names=("pen-human", "door-human"),
        agents=("agents/deflow.py", "agents/fql.py"),
        vary=(("agent.tau", ("0.1", "0.2")), ("sampling", ("uniform", "my rule.py"))),
        passed=("--eval_episodes=20", "--agent.bc_only"),
        seed=3,
        seeds=5,
        seeds_per_run=2,
    )
    assert len(found) == len({tuple(words) for words in found}) == 3 * 2 * 2 * 2 * 2
    assert found[0] == [
        "--env_name=pen-human",
        "--agent=agents/deflow.py",
        "--seed=3",
        "--num_seeds=2",
        "--agent.tau=0.1",
        "--sampling=uniform",
        "--run_group=sweep",
        "--eval_episodes=20",
        "--agent.bc_only",
    ]
    seeds = [words[2:4] for words in found]
    assert seeds[:16] == [["--seed=3", "--num_seeds=2"]] * 16
    assert seeds[-1] == ["--seed=7", "--num_seeds=1"]


def test_all_seeds_are_one_program_and_the_first_needs_no_mention():
    (words,) = arguments()
    assert words[:2] == ["--env_name=scene-play-task1", "--agent=agents/fql.py"]
    assert words[2:] == ["--num_seeds=8", "--run_group=sweep"]
    (words,) = arguments(passed=("--run_group=mine",))
    assert [word for word in words if "run_group" in word] == ["--run_group=mine"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"passed": ("--agent=my.py",)}, "--agent is set by the sweep; give it as --agents"),
        ({"vary": (("seed", ("1", "2")),)}, "--seed is set by the sweep"),
        ({"passed": ("--overwrite",)}, "--overwrite is for a single run"),
        ({"passed": ("--dry_run",)}, "--dry_run is for a single run"),
        ({"vary": (("agent.x", ("1",)),), "passed": ("--agent.x=2",)}, "--agent.x is given twice"),
        ({"vary": (("agent.x", ("1",)), ("agent.x", ("2",)))}, "--agent.x is given twice"),
    ],
)
def test_flags_that_a_sweep_cannot_pass_on_are_refused(changes, message):
    with pytest.raises(UserError, match=message):
        arguments(**changes)
