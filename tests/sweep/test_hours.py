"""What a sweep amounts to."""

import pytest

from utils.errors import UserError
from utils.runs.meaning import Meaning
from utils.sweep.hours import describe, parse_rates

RUNS = [
    Meaning("task", agent, f"exp/{agent}{i}", 4, 3_600_000, 0, 3_600_000)
    for agent in ("a", "b")
    for i in range(2)
]


def test_the_hours_are_updates_by_the_rate_of_each_agent():
    assert parse_rates("1500") == {"": 1500.0}
    assert parse_rates("a:1000, b:500") == {"a": 1000.0, "b": 500.0}
    start = "4 runs, 16 seeds, 14,400,000 updates, "
    end = "without what evaluations take"
    assert describe(RUNS, {"": 1000.0}, "") == f"{start}4 GPU hours (a 2, b 2), {end}"
    rates = parse_rates("a:1000,b:500")
    assert describe(RUNS, rates, "") == f"{start}6 GPU hours (a 2, b 4), {end}"
    assert describe(RUNS[:2], {"": 500.0}, "").endswith(f"4 GPU hours, {end}")


def test_rates_that_do_not_fit_the_sweep_are_refused():
    with pytest.raises(UserError, match="--rate lacks b; add b:UPDATES_PER_SECOND"):
        describe(RUNS, {"a": 1.0}, "")
    with pytest.raises(UserError, match="--rate names c, of which the sweep has no run"):
        describe(RUNS, {"": 1.0, "c": 1.0}, "")
    for text in ("", "0", "-1", "inf", "nan", "a:", "a=3"):
        with pytest.raises(UserError, match="is no positive number of updates per second"):
            parse_rates(text)
