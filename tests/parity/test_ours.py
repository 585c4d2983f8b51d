"""Which agent of this library is compared with another repository's, and with which settings."""

from pathlib import Path

import pytest

from tests.parity.fql_style import table_row
from tests.parity.ours import AGENTS, our_file, our_settings


@pytest.mark.parametrize(("file", "ours"), [("fql", "fql"), ("floq", "floq"), ("sac", "rlpd")])
def test_it_is_the_one_of_the_same_algorithm(file, ours):
    assert our_file(Path(f"lab/agents/{file}.py")) == AGENTS / f"{ours}.py"


def test_a_file_without_such_an_agent_has_none():
    assert our_file(Path("lab/agents/flow.py")) is None


def test_it_has_the_settings_of_the_other_that_it_knows_and_that_have_values():
    theirs = {"agent_name": "iql", "alpha": 3.0, "actor_hidden_dims": (8,), "encoder": None}
    equal = {"alpha": 3.0, "actor_hidden_dims": (8,)}
    assert our_settings(AGENTS / "iql.py", theirs) == equal


def test_floqs_settings_are_found_under_the_names_of_its_authors():
    theirs = {"block_width": 32, "block_depth": 3, "critic_flow_steps": 4}
    theirs |= {"actor_flow_steps": 5, "distill_num_ensembles": 2, "flow_num_ensembles": 1}
    assert our_settings(AGENTS / "floq.py", theirs) == {
        "critic_flow_steps": 4,
        "flow_steps": 5,
        "num_critics": 2,
        "num_flow_critics": 1,
        "flow_critic_hidden_dims": (32, 32, 32),
    }


def test_a_row_has_every_rate_with_its_ratio_to_the_agents_own_loop():
    rates = {"own": 10.0, "1": 12.0, "8": 2.0, "ours 1": 15.0, "ours 8": 2.5}
    path = Path("/home/me/lab/agents/fql.py")
    assert table_row(path, {"difference": 1e-7, "rates": rates}) == (
        "| lab/agents/fql.py | yes | 1e-07 | 10.0 | 12.0 (1.20) | 2.0 (1.60) | 15.0 (1.50) | "
        "2.5 (2.00) |"
    )
    rates = {name: rates[name] for name in ("own", "1", "8")}
    row = table_row(path, {"difference": 0.0, "rates": rates})
    assert row.endswith("| 2.0 (1.60) | - | - |")
    assert table_row(path, {"refused": "no"}).count("|") == row.count("|")
