"""The READMEs: nothing left to be filled in, no path that leads nowhere, code that runs."""

import json
import re

import jax
import jax.numpy as jnp
import pytest

from tests.small_runs import REPOSITORY

README = REPOSITORY / "README.md"
READMES = [README, *REPOSITORY.glob("[a-z]*/README.md"), *REPOSITORY.glob("[a-z]*/*/README.md")]
# Where a path in backticks may begin.
ROOTS = ("", "utils", "utils/envs", "tests/recipes")


def placeholders(text):
    """Words such as DEMO_ROWS outside code, which a figure was to replace."""
    prose = re.sub(r"```.*?```|`[^`]*`", "", text, flags=re.S)
    return re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", prose)


def links(text):
    """Targets of relative links."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target.split("#")[0] for target in targets if not re.match(r"https?:|#", target)]


def paths(text):
    """Paths of this repository's kinds in backticks, outside blocks of code."""
    prose = re.sub(r"```.*?```", "", text, flags=re.S)
    words = [word for span in re.findall(r"`([^`\n]+)`", prose) for word in span.split(", ")]
    return [word for word in words if re.fullmatch(r"[a-z][\w./]*(\.py|\.md|/)", word)]


def missing(text, folder):
    """Links and paths that lead nowhere; names of what runs and reports make are left out."""
    made_by = {
        "checkpoints/",
        "replay/",
        "source/",
        "sweep.jobs/",
        "demo/report/",
        "report.md",
        "policies.md",
    }
    found = [target for target in links(text) if not (folder / target).exists()]
    roots = [folder, *(REPOSITORY / root for root in ROOTS)]
    for path in paths(text):
        mine = path.startswith(("agents/", "utils/", "tests/")) or "/" not in path
        mine = mine or path.endswith("/")
        if mine and path not in made_by and not any((root / path).exists() for root in roots):
            found.append(path)
    return found


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_nothing_is_left_to_be_filled_in(path):
    assert placeholders(path.read_text()) == []


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_links_and_paths_exist(path):
    assert missing(path.read_text(), path.parent) == []


def test_the_checks_see_what_they_look_for():
    text = "It takes DEMO_TIME. `MUJOCO_GL`\n```\nA_B\n```\n| DEMO_ROWS |"
    assert placeholders(text) == ["DEMO_TIME", "DEMO_ROWS"]
    text = "[a](none.md) [b](https://x.org) `agents/none.py` `utils/agent.py, none.py` `my_task.py`"
    assert missing(text, REPOSITORY) == ["none.md", "agents/none.py", "none.py"]


def test_the_code_for_notebooks_runs(undisturbed):
    """On a run's folder, with observations that the reader has."""
    (block,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.S)
    (named,) = re.findall(r'load_agent\("([^"]+)"', block)
    config = json.loads((undisturbed.folder.path / "config.json").read_text())
    size = config["example"]["observations"][0][-1]
    names = {"observations": jnp.zeros((5, size)), "jax": jax}
    exec(block.replace(named, str(undisturbed.folder.path)), names)
    agent = names["agent"]
    assert names["actions"].shape == (5, agent.config["action_dim"])
    assert agent.value(names["observations"], names["actions"]).shape == (5,)
