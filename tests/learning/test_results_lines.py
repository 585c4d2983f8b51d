"""The commands of `make results`, `make results-online` and `make results-antmaze`."""

from pathlib import Path

import pytest

from utils.agent_files import load_agent_file
from utils.sweep import commands

FOLDER = Path(__file__).parent
AGENTS = FOLDER.parents[1] / "agents"
ONLINE_ONLY = {"rlpd"}  # learns from nothing


def lines(name):
    """The commands of a file, each as the text's line and its flags."""
    path = FOLDER / name
    for text in path.read_text().splitlines():
        arguments = commands.parse(text, str(path)).arguments
        yield dict(argument.removeprefix("--").partition("=")[::2] for argument in arguments)


@pytest.mark.parametrize("env_name", ["cube-single-play", "scene-play-task1"])
def test_every_offline_agent_is_trained_on_both_tasks(env_name):
    trained = [flags["agent"] for flags in lines("results.txt") if flags["env_name"] == env_name]
    offline = {path.stem for path in AGENTS.glob("[!_]*.py")} - ONLINE_ONLY
    assert sorted(trained) == sorted(f"agents/{name}.py" for name in offline)


@pytest.mark.parametrize("name", ["results.txt", "results-online.txt", "results-antmaze.txt"])
def test_every_setting_is_one_of_the_agent_s(name):
    for flags in lines(name):
        config = load_agent_file(AGENTS.parent / flags["agent"]).config
        given = {flag.removeprefix("agent.") for flag in flags if flag.startswith("agent.")}
        assert given <= set(config)
        assert {n for n in config if n.endswith("hidden_dims")} <= given, "a width of its own"
