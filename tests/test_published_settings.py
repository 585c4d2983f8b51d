"""The published settings of the baselines."""

import pytest

from tests import toys
from utils.envs import tasks


@pytest.mark.parametrize(
    ("name", "families", "exact", "online"),
    [
        ("iql", 10, 5, 0),
        ("rebrac", 10, 5, 0),
        ("rlpd", 0, 0, 15),
        ("calql", 5, 0, 0),
        ("ifql", 10, 23, 15),
        ("fbrac", 10, 23, 0),
        ("fawac", 10, 18, 0),
        ("fql", 10, 23, 6),
        ("floq", 10, 0, 4),
        ("idql", 10, 12, 0),
        ("srpo", 10, 18, 0),
        ("cac", 10, 18, 0),
    ],
)
def test_published_tables_have_the_tasks_that_were_published(name, families, exact, online):
    file = toys.load(toys.AGENTS / f"{name}.py")
    found = [task for task in file.published if "-v" not in task]
    assert (len(found), len(file.published) - len(found)) == (families, exact)
    assert len(file.published_online) == online
    for table in (file.published, file.published_online):
        for task, settings in table.items():
            assert settings
            assert set(settings) <= set(file.config)
            assert file.published_settings(tasks.resolve(task), online=True)


@pytest.mark.parametrize(
    ("agent", "task", "online", "settings"),
    [
        ("iql", "cube-double-play-task3", True, {"alpha": 0.3, "actor_hidden_dims": (256,) * 4}),
        ("iql", "humanoidmaze-large-navigate", True, {"alpha": 10.0, "discount": 0.995}),
        ("rebrac", "puzzle-3x3-play", True, {"alpha_actor": 0.3, "alpha_critic": 0.01}),
        ("rebrac", "antmaze-giant-navigate", True, {"alpha_actor": 0.003, "discount": 0.995}),
        ("rlpd", "pen-cloned-v1", True, {"q_agg": "min"}),
        ("rlpd", "antsoccer-arena-navigate", True, {"discount": 0.995}),
        (
            "calql",
            "antsoccer-arena-navigate",
            True,
            {"cql_lagrange": True, "cql_target_action_gap": 0.2},
        ),
        (
            "calql",
            "puzzle-4x4-play",
            True,
            {"cql_min_q_weight": 0.003, "value_hidden_dims": (256,) * 4},
        ),
        ("ifql", "antsoccer-arena-navigate", False, {"num_samples": 64, "discount": 0.995}),
        ("ifql", "pen-cloned-v1", False, {"num_samples": 32}),
        ("ifql", "pen-cloned-v1", True, {"num_samples": 128, "discount": 0.99}),
        ("fbrac", "antmaze-giant-navigate-task2", False, {"alpha": 10.0, "q_agg": "min"}),
        ("fbrac", "puzzle-4x4-play", False, {"alpha": 300.0, "q_agg": "mean"}),
        ("fawac", "cube-double-play-task3", False, {"alpha": 0.3, "q_agg": "mean"}),
        ("fawac", "relocate-cloned-v1", False, {"alpha": 0.1, "q_agg": "min"}),
        ("fql", "humanoidmaze-medium-navigate", False, {"alpha": 30.0}),
        ("fql", "humanoidmaze-medium-navigate", True, {"alpha": 100.0, "discount": 0.995}),
        ("fql", "scene-play", True, {"alpha": 300.0}),
        ("fql", "door-cloned-v1", True, {"alpha": 1000.0, "q_agg": "min"}),
        ("floq", "cube-single-play", False, {"flow_critic_hidden_dims": (512, 512)}),
        ("floq", "humanoidmaze-large-navigate", False, {"batch_size": 512, "alpha": 20.0}),
        ("floq", "antmaze-giant-navigate", True, {"critic_flow_steps": 4, "q_agg": "min"}),
        ("idql", "hammer-human-v1", False, {"num_samples": 128, "expectile": 0.7}),
        ("idql", "scene-play", False, {"value_hidden_dims": (256, 256), "expectile": 0.9}),
        ("srpo", "cube-single-play", False, {"beta": 0.03, "value_hidden_dims": (256, 256)}),
        ("srpo", "humanoidmaze-medium-navigate", False, {"beta": 0.3, "expectile": 0.7}),
        ("srpo", "antmaze-large-play-v2", False, {"beta": 0.06, "normalize_guidance": True}),
        ("cac", "humanoidmaze-medium-navigate", False, {"eta": 0.03, "discount": 0.995}),
        ("cac", "antmaze-large-diverse-v2", False, {"eta": 3.5, "discount": 0.99}),
        ("cac", "pen-expert-v1", False, {"eta": 0.03}),
    ],
)
def test_published_values(agent, task, online, settings):
    file = toys.load(toys.AGENTS / f"{agent}.py")
    found = file.published_settings(tasks.resolve(task), online)
    assert {key: found[key] for key in settings} == settings


def test_what_is_open_is_left_at_its_default():
    file = toys.load(toys.AGENTS / "rlpd.py")
    assert "q_agg" not in file.published_settings(tasks.resolve("scene-play"), online=True)
    assert file.published_settings(tasks.resolve("scene-play")) == {}
    assert toys.load(toys.AGENTS / "iql.py").published_settings("pen-human-v1") == {}


@pytest.mark.parametrize("name", ["fbrac", "fawac"])
def test_an_alpha_that_is_open_is_left_at_its_default(name):
    file = toys.load(toys.AGENTS / f"{name}.py")
    found = file.published_settings(tasks.resolve("antsoccer-arena-navigate"))
    assert found == {"discount": 0.995, "q_agg": "mean"}


@pytest.mark.parametrize(("name", "setting"), [("srpo", "beta"), ("cac", "eta")])
def test_what_no_source_says_of_antsoccer_is_left_at_its_default(name, setting):
    file = toys.load(toys.AGENTS / f"{name}.py")
    found = file.published_settings(tasks.resolve("antsoccer-arena-navigate"))
    assert found["discount"] == 0.995
    assert setting not in found
