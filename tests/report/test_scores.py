import math

import pytest

from utils.report.scores import failed_seeds, protocol_score, score_line


def test_ogbench_score_is_the_mean_of_the_last_three_evaluations_per_seed():
    rows = [
        {"step": step, "seed": seed, "success": rate + seed / 10, "return": 5.0}
        for step, rate in [(1, 0.0), (2, 0.9), (3, 0.3), (4, 0.6), (5, 0.9)]
        for seed in (0, 1)
    ]
    rows = rows[::-1]  # the order of the rows does not matter
    score = protocol_score(rows)
    assert score["evaluations_used"] == [3, 4, 5]
    assert score["per_seed"] == pytest.approx({0: 60.0, 1: 70.0})
    assert score["mean"] == pytest.approx(65.0)
    assert score["std"] == pytest.approx(5.0)
    assert score_line(score) == (
        "score: success 65.0 % (mean of the last 3 evaluations at 3, 4, 5; 2 seeds, std 5.0)"
    )


def test_d4rl_score_is_the_last_evaluation():
    rows = [{"step": i, "seed": 0, "normalized_return": 10.0 * i, "success": 0.0} for i in (1, 2)]
    score = protocol_score(rows)
    assert (score["metric"], score["mean"], score["std"]) == ("normalized_return", 20.0, None)
    assert score_line(score) == "score: normalized return 20.0 (last evaluation, at 2; 1 seed)"


def test_offline_to_online_scores_are_those_of_both_phases_ends():
    rows = [
        {"step": step, "seed": seed, "success": rate + seed / 10}
        for step, rate in [(1, 0.1), (2, 0.3), (3, 0.8), (4, 0.9)]
        for seed in (0, 1)
    ]
    score = protocol_score(rows, online_start=2)
    assert score["offline"]["per_seed"] == pytest.approx({0: 30.0, 1: 40.0})
    assert score["per_seed"] == pytest.approx({0: 90.0, 1: 100.0})
    assert score_line(score) == (
        "score: success 35.0 -> 95.0 % (offline at 2 -> online at 4; 2 seeds, std 5.0 -> 5.0)"
    )
    # Without an offline phase the evaluation before the first step is the score before.
    rows = [{"step": step, "success": rate} for step, rate in [(0, 0.0), (5, 0.5)]]
    assert score_line(protocol_score(rows, online_start=0)) == (
        "score: success 0.0 -> 50.0 % (offline at 0 -> online at 5; 1 seed)"
    )


def test_a_given_protocol_says_metric_and_number_of_evaluations():
    rows = [
        {"step": step, "success": rate, "return": 2 * step}
        for step, rate in [(1, 0.1), (2, 0.3), (3, 0.8)]
    ]
    score = protocol_score(rows, {"metric": "return", "evaluations": 2})
    assert (score["metric"], score["mean"]) == ("return", 5.0)
    assert score["evaluations_used"] == [2, 3]
    score = protocol_score(rows, {"metric": None, "evaluations": 1})  # the first that is known
    assert (score["metric"], score["mean"]) == ("success", 80.0)
    assert score_line(score) == "score: success 80.0 % (last evaluation, at 3; 1 seed)"
    # Online, the last evaluation alone counts, whatever the number.
    score = protocol_score(rows, {"metric": "success", "evaluations": 3}, online_start=1)
    assert (score["offline"]["mean"], score["mean"]) == (10.0, 80.0)
    # A metric that the rows lack is not replaced by another.
    score = protocol_score(rows, {"metric": "normalized_return", "evaluations": 1})
    assert (score["metric"], score["mean"]) == ("normalized_return", None)


def test_fewer_evaluations_than_the_protocol_has_are_told():
    rows = [{"step": 10, "success": 0.2}, {"step": 20, "success": 0.4}]
    assert score_line(protocol_score(rows)) == (
        "score: success 30.0 % (mean of the last 2 evaluations at 10, 20, "
        "where the protocol has 3; 1 seed)"
    )
    assert score_line(protocol_score(rows[:1])) == (
        "score: success 20.0 % (evaluation at 10, where the protocol has 3; 1 seed)"
    )
    assert score_line(protocol_score([])) == "score: no evaluation yet"
    assert protocol_score([])["mean"] is None


def test_untrained_and_incomplete_evaluations_do_not_count():
    rows = [{"step": step, "seed": s, "success": 0.5} for step in (0, 10, 20) for s in (0, 1)]
    rows.append({"step": 30, "seed": 0, "success": 1.0})  # a run that was killed in between
    score = protocol_score(rows)
    assert score["evaluations_used"] == [10, 20]
    assert score["mean"] == 50.0
    assert protocol_score(rows[:2])["evaluations_used"] == [0]


def test_diverged_seed_shows_in_the_score():
    rows = [{"step": 1, "seed": s, "success": v} for s, v in enumerate([0.5, math.nan])]
    assert math.isnan(protocol_score(rows)["mean"])
    assert "nan" in score_line(protocol_score(rows))


def test_failed_seeds_are_named_and_in_no_mean():
    rows = [
        {"step": step, "seed": seed, "success": 0.5 + seed / 10}
        for step in (1, 2, 3)
        for seed in (0, 1, 2)
        if (step, seed) != (3, 1)
    ]
    rows.append({"step": 3, "seed": 1, "failed": 1})
    failed = failed_seeds([{"step": 2, "seed": 1, "failed": 1}], rows)
    assert failed == {1: 2}
    score = protocol_score(rows, failed=failed)
    assert score["failed"] == {1: 2}
    assert score["per_seed"] == pytest.approx({0: 50.0, 2: 70.0})
    assert score["evaluations_used"] == [1, 2, 3]
    assert score_line(score).endswith("; 2 seeds, std 10.0); failed and left out: seed 1 at step 2")
    online = protocol_score(rows, online_start=1, failed=failed)
    assert set(online["per_seed"]) == set(online["offline"]["per_seed"]) == {0, 2}
    assert failed_seeds(rows[:3]) == {}
