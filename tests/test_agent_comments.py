"""What an agent's settings mean, from the comments in its file."""

import pytest

from tests import toys
from utils.agent_comments import comments_by_setting, setting_meanings
from utils.agent_files import load_agent_file


@pytest.mark.parametrize(
    "body",
    [
        'return ConfigDict({"lr": 1e-3,  # of Adam\n"size": 3})',
        "return ConfigDict(dict(\nlr=1e-3,  # of Adam\nsize=3,\n))",
        "config = ConfigDict()\n  config.lr = 1e-3  # of Adam\n  config.size = 3\n  return config",
        'config = base()\n  config["lr"] = placeholder(\n  float\n  )  # of Adam\n  return config',
    ],
)
def test_the_comment_behind_a_setting_is_its_meaning(body):
    assert comments_by_setting(f"# no\ndef get_config():\n  {body}\n") == {"lr": "of Adam"}


def test_a_file_without_settings_of_its_own_says_nothing():
    assert comments_by_setting("from other import get_config  # lr\n") == {}


def test_every_setting_of_the_agents_here_has_a_meaning():
    for path in (*sorted(toys.AGENTS.glob("[a-z]*.py")), "tests/recipes/l1_divergence.py"):
        file = load_agent_file(path)
        assert set(setting_meanings(file.module, file.agent_class)) == set(file.config)
