import dataclasses
import math
from collections import Counter

import numpy as np
import pytest

from utils.envs import tasks
from utils.report.published import results
from utils.report.published.protocol import Protocol, differences, own_protocol, short_steps
from utils.report.published.results import (
    PHASES,
    compare,
    find,
    find_incomplete,
)

CUBES = tasks.groups()["cube-double-play"]
WIDE = [512, 512, 512, 512]
SETTINGS = {
    "sampling": "uniform",
    "eval_policy": "sample",
    "restore_path": None,
    "agent.batch_size": 256,
    "agent.actor_hidden_dims": WIDE,
    "agent.value_hidden_dims": WIDE,
    "agent.tau": 0.005,
}


def own(settings=None, **changes):
    """The protocol of a run that keeps to OGBench's, but for some changes."""
    usual = {"metric": "success", "scored_at": [800_000, 900_000, 1_000_000], "episodes": 50}
    return own_protocol(SETTINGS | (settings or {}), **(usual | changes))


# The numbers --------------------------------------------------------------------------------------


def everything():
    return results._load()[1]


def test_the_file_holds_all_numbers_of_the_papers_tables():
    assert Counter(result.phase for result in everything()) == {
        "offline": 138,  # 13 groups, 11 methods, of which 5 have no images
        "before online": 105,  # 15 tasks, 7 methods
        "online": 105,
    }
    sums = {
        "offline": {
            "BC": 94,
            "IQL": 386,
            "ReBRAC": 507,
            "IDQL": 361,
            "SRPO": 268,
            "CAC": 326,
            "FAWAC": 252,
            "FBRAC": 422,
            "IFQL": 469,
            "FQL": 639,
            "DeFlow": 658,
        },
        "before online": {
            "IQL": 466,
            "ReBRAC": 647,
            "Cal-QL": 317,
            "RLPD": 3,
            "IFQL": 593,
            "FQL": 672,
            "DeFlow": 711,
        },
        "online": {
            "IQL": 676,
            "ReBRAC": 989,
            "Cal-QL": 631,
            "RLPD": 1134,
            "IFQL": 999,
            "FQL": 1349,
            "DeFlow": 1410,
        },
    }
    for phase, columns in sums.items():
        found = Counter()
        for result in everything():
            if result.phase == phase:
                found[result.method] += result.mean
        assert found == columns
    spreads = Counter()
    for result in everything():
        spreads[result.method] += result.std or 0
    assert spreads["FQL"] == 32
    assert spreads["DeFlow"] == 38
    assert sum(spreads.values()) == 70


def test_every_result_is_of_tasks_that_are_there_under_the_names_that_they_have_here():
    keys = [(result.method, result.tasks, result.phase) for result in everything()]
    assert len(set(keys)) == len(keys)
    for result in everything():
        assert result.phase in PHASES
        for name in result.tasks:
            assert tasks.resolve(name) == tasks.numbered(name) == name
        # A group's name must not be taken for a task's.
        assert (len(result.tasks) == 1) == (result.group == result.tasks[0])
    sizes = {result.group: len(result.tasks) for result in everything() if len(result.tasks) > 1}
    assert Counter(sizes.values()) == {5: 11, 6: 1, 12: 1}


def test_a_protocol_agrees_with_what_the_benchmark_prescribes_and_how_it_scores():
    for result in everything():
        protocol, name = result.protocol, result.tasks[0]
        assert protocol.metric == tasks.protocol(name)["metric"]
        if result.phase == "offline" and protocol.steps not in (None, 3_000_000):
            assert protocol.steps == tasks.prescribed(name)["offline_steps"]
            assert len(protocol.scored_at) == tasks.protocol(name)["evaluations"]
        if protocol.steps is not None:
            assert protocol.scored_at[-1] == protocol.steps
        for key, value in tasks.prescribed(name).items():
            if result.phase == "offline" and key != "offline_steps":
                assert protocol.settings[key] == value
        assert (protocol.success_timing == "post") == (protocol.metric == "success")


# Finding ------------------------------------------------------------------------------------------


def test_a_method_is_found_by_its_name_and_by_the_stem_of_its_agents_file():
    (by_name,) = find("DeFlow", CUBES, "offline")
    assert find("deflow", CUBES, "offline") == [by_name]
    assert (by_name.mean, by_name.std, by_name.seeds) == (40, 5, 8)
    assert by_name.text == "40 ± 5 (8 seeds)"
    assert by_name.source == "arXiv 2601.10471"
    assert find("my_agent", CUBES, "offline") == []
    (copied,) = find("bc", tasks.groups()["d4rl-antmaze"], "offline")
    assert copied.text == "17 (? seeds)"
    with pytest.raises(ValueError, match="no phase"):
        find("fql", CUBES, "later")


def test_a_mean_over_a_group_is_no_result_of_one_of_its_tasks():
    assert find("fql", CUBES[1], "offline") == []
    assert find("fql", CUBES[:4], "offline") == []
    ((missing, number),) = find_incomplete("fql", CUBES[:4], "offline")
    assert (missing.group, number) == ("cube-double-play", 1)
    assert find_incomplete("fql", CUBES, "offline") == []
    assert find_incomplete("fql", "pen-human-v1", "online") == []


def test_the_default_task_is_also_the_one_with_its_number():
    default = tasks.resolve("cube-double-play")
    assert [result.mean for result in find("deflow", default, "online")] == [93]
    assert [result.mean for result in find("deflow", CUBES[1], "before online")] == [48]
    assert find("deflow", CUBES[0], "online") == []
    others = [name for name in CUBES if name != CUBES[1]]
    assert [result.mean for result in find("fql", [*others, default], "offline")] == [29]


def test_a_task_that_is_no_longer_known_has_no_results():
    assert find("deflow", "/nowhere/my_task.py", "offline") == []


# Comparing ----------------------------------------------------------------------------------------


def test_the_difference_is_in_standard_errors_of_both_sides():
    (published,) = find("deflow", CUBES, "offline")
    scores = [np.array([30.0, 40.0]) + 10 * i for i in range(5)]
    found = compare(scores, [own(official_data=True)] * 5, published)
    # Each task's mean has variance 50 / 2, the mean of five tasks a fifth of that.
    error = math.sqrt(25 / 5 + 5**2 / 8)
    assert found.difference == pytest.approx(55 - 40)
    assert found.standard_errors == pytest.approx(15 / error)
    assert found.text == f"+15.0 = {15 / error:+.1f} SE"
    assert (found.obstacles, found.remarks) == ((), ())
    # Tasks may have different numbers of seeds.
    found = compare([*scores[:4], np.array([75.0] * 7)], [own()] * 5, published)
    assert found.standard_errors == pytest.approx(15 / math.sqrt(25 * 4 / 25 + 25 / 8))
    assert found.remarks == ("data not verified as the official file",)
    with pytest.raises(ValueError, match="1 tasks, published 5"):
        compare(scores[:1], [own()], published)


def test_without_a_spread_on_either_side_there_are_no_standard_errors():
    (published,) = find("deflow", CUBES, "offline")
    found = compare([np.array([60.0])] * 5, [own()] * 5, published)
    assert (found.difference, found.standard_errors) == (20, None)
    assert found.text == "+20.0, no standard error"
    assert "one own seed, whose spread is not known" in found.remarks
    (published,) = find("rebrac", CUBES, "offline")
    found = compare([np.array([10.0, 14.0])] * 5, [own()] * 5, published)
    assert (found.difference, found.standard_errors) == (0, None)
    assert "no published standard deviation" in found.remarks
    certain = dataclasses.replace(published, std=0)
    assert compare([np.array([12.0, 12.0])] * 5, [own()] * 5, certain).standard_errors is None


def test_scores_of_another_protocol_have_no_difference_but_a_reason():
    (published,) = find("deflow", CUBES, "offline")
    small = own(
        {"agent.actor_hidden_dims": [128] * 3, "agent.value_hidden_dims": [128] * 3},
        scored_at=[20_000],
        episodes=20,
    )
    found = compare([np.array([60.0, 50.0])] * 5, [own()] * 4 + [small], published)
    assert (found.difference, found.standard_errors) == (None, None)
    assert found.text == (
        "not comparable: 20K of 1M steps; networks (128, 128, 128), published "
        "(512, 512, 512, 512); 20 episodes, published 50"
    )
    found = compare([np.array([])] * 5, [own()] * 5, published)
    assert found.text == "not comparable: no score"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scored_at": [900_000, 950_000, 1_000_000]}, "scored at 900K, 950K, 1M, published 800K,"),
        ({"scored_at": [1_900_000, 2_000_000]}, "2M steps, published 1M"),
        ({"scored_at": [2_000_000], "online_start": 1_000_000}, "online from 1M, published offl"),
        ({"metric": "return"}, "return, published success"),
        ({"official_data": False}, "other data than the official file"),
        ({"settings": {"agent.batch_size": 64}}, "batch size 64, published 256"),
        ({"settings": {"agent.value_hidden_dims": [512] * 3}}, "networks (512, 512, 512, 512) and"),
        ({"settings": {"sampling": "n_step.py"}}, "sampling=n_step.py, published uniform"),
        ({"settings": {"eval_policy": "best_of_n"}}, "eval_policy=best_of_n, published sample"),
        ({"changed": {"agent.tau": 0.01}}, "tau=0.005, published 0.01"),
    ],
)
def test_what_differs_from_a_published_protocol_is_named(changes, reason):
    published = find("deflow", CUBES, "offline")[0].protocol
    widths = {"agent.batch_size": 512, "agent.actor_hidden_dims": (32,)}  # compared as they are
    assert differences(own(changed=widths), published) == ()
    assert any(text.startswith(reason) for text in differences(own(**changes), published))


def test_a_success_that_belongs_to_another_state_is_a_difference():
    published = find("deflow", CUBES, "offline")[0].protocol
    found = differences(dataclasses.replace(own(), success_timing="pre"), published)
    assert found == ("success pre, published post",)


def test_an_encoder_other_than_the_prescribed_one_is_a_difference():
    visual = next(x.tasks for x in everything() if x.group == "ogbench-pixels")
    (published,) = find("iql", visual, "offline")
    settings = {"agent.encoder": "impala_small", "p_aug": 0.5, "frame_stack": 3}
    steps = [300_000, 400_000, 500_000]
    assert differences(own(settings, scored_at=steps), published.protocol) == ()
    found = differences(
        own(settings | {"agent.encoder": "my.py"}, scored_at=steps), published.protocol
    )
    assert found == ("encoder=my.py, published impala_small",)


def test_what_the_sources_leave_open_cannot_be_compared_with():
    scene = tasks.groups()["scene-play"]
    (narrow,), (unknown,), (others,) = (
        find(name, scene, "offline") for name in ("iql", "ifql", "cac")
    )
    assert differences(own(), narrow.protocol) == (
        "networks (512, 512, 512, 512), published (256, 256, 256, 256)",
    )
    assert differences(own(), unknown.protocol) == ("published networks not stated",)
    assert differences(own(), others.protocol) == (
        "published steps, networks, batch size, episodes, evaluations not stated",
    )
    no_widths = dataclasses.replace(own(), networks=None)
    assert differences(no_widths, narrow.protocol)[0].startswith("networks not known, published")


def test_fine_tuning_is_compared_at_both_ends():
    task, settings = "pen-cloned-v1", {"utd": 1, "balanced_sampling": False}
    ends = [
        own(settings, metric="normalized_return", scored_at=[step], online_start=start)
        for step, start in ((1_000_000, None), (2_000_000, 1_000_000))
    ]
    for phase, end, other in zip(("before online", "online"), ends, ends[::-1], strict=True):
        (published,) = find("deflow", task, phase)
        assert differences(end, published.protocol) == ()
        assert differences(other, published.protocol)
        assert compare([np.array([60.0, 64.0])], [end], published).difference is not None
    # A method without an offline phase is published with half of each batch from the dataset.
    (published,) = find("rlpd", task, "online")
    fresh = dataclasses.replace(ends[1], steps=1_000_000, online_start=0, scored_at=(1_000_000,))
    assert differences(fresh, published.protocol) == ("balanced_sampling=False, published True",)
    assert differences(ends[1], published.protocol)[0] == "online from 1M, published online from 0"


def test_widths_are_read_from_settings_by_their_names_end():
    settings = {
        "agent.hidden_dims": [64, 64],
        "agent.q_hidden_dims": 32,
        "agent.v_hidden_dims": None,
        "agent.time_dims": 16,
        "hidden_dims": 8,  # no setting of the agent
    }
    found = own_protocol(settings, metric="success", scored_at=[], episodes=1)
    assert found == Protocol(
        steps=0,
        networks=((64, 64), (32,)),
        episodes=1,
        scored_at=(),
        metric="success",
        success_timing="post",
        settings=settings,
    )


@pytest.mark.parametrize(
    ("steps", "text"),
    [(0, "0"), (999, "999"), (1_000, "1K"), (20_000, "20K"), (1_234, "1234"), (1_500_000, "1.5M")],
)
def test_steps_are_written_short_where_nothing_is_lost(steps, text):
    assert short_steps(steps) == text
