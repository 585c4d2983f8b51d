import pytest

from utils.analysis.entries import parse_entries
from utils.errors import UserError
from utils.policies import BestOfN, Langevin, sample


def parsed(names, **budgets):
    return [(str(one), one.policy) for one in parse_entries(names, budgets)]


def test_every_policy_with_a_budget_has_all_of_its_unit():
    assert parsed("sample,best_of_n:q=min,langevin", samples=[1, 8], steps=[2]) == [
        ("sample", sample),
        ("best_of_n:q=min, 1 sample", BestOfN(1, "min")),
        ("best_of_n:q=min, 8 samples", BestOfN(8, "min")),
        ("langevin, 2 steps", Langevin(2)),
    ]


def test_a_budget_among_the_settings_goes_before_and_without_any_there_is_the_default():
    assert parsed("langevin:steps=3:score=False,langevin", steps=[0]) == [
        ("langevin:score=False, 3 steps", Langevin(3, score=False)),
        ("langevin, 0 steps", Langevin(0)),
    ]
    assert parsed("best_of_n") == [("best_of_n, 32 samples", BestOfN())]


def test_what_is_named_twice_plays_once():
    assert len(parsed("sample,best_of_n:samples=2,best_of_n,sample", samples=[2])) == 2


def test_a_file_is_a_policy_without_a_budget(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def policy(agent, observation, key):\n    return observation\n")
    (entry,) = parse_entries(str(path), {})
    assert (str(entry), entry.unit, entry.budget, entry.is_file) == (str(path), "", 0, True)


@pytest.mark.parametrize(
    ("names", "budgets", "message"),
    [
        ("sample", {"samples": [1]}, "--samples is no budget of sample; leave it out, or add"),
        ("best_of_n", {"steps": [1]}, "--steps is no budget of best_of_n"),
        ("best_of_n", {"samples": [0]}, "best_of_n:samples=0 must be a whole number of at least 1"),
        ("", {}, "--eval_policy names no policy"),
        ("sample,none", {}, "--eval_policy=none is not one of sample"),
    ],
)
def test_what_cannot_be_is_named(names, budgets, message):
    with pytest.raises(UserError, match=message):
        parse_entries(names, budgets)
