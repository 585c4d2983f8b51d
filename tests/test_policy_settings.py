import pytest

from utils import policies
from utils.errors import UserError
from utils.policies import BestOfN, GuidedFlow, IteratedRefinement, Langevin, load_policy


def test_a_policy_has_the_settings_that_follow_its_name():
    assert load_policy("best_of_n") == BestOfN()
    assert load_policy("best_of_n:samples=8:q=min") == BestOfN(samples=8, q="min")
    assert load_policy("iterated_refinement:budget=batch") == IteratedRefinement(budget="batch")
    expected = Langevin(steps=0, temperature=0.5, score=False)
    assert load_policy("langevin:steps=0:temperature=0.5:score=False") == expected
    assert load_policy("guided_flow:temperature=1e3") == GuidedFlow(temperature=1000.0)
    assert load_policy("sample") is policies.sample


def test_equal_settings_are_one_policy_to_jax():
    assert hash(load_policy("langevin:steps=8")) == hash(load_policy("langevin"))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("best_of_n:samples=0", "best_of_n:samples=0 must be a whole number of at least 1"),
        ("best_of_n:samples=1.5", "samples=1.5 must be a whole number of at least 1"),
        ("best_of_n:samples", "samples= must be a whole number of at least 1"),
        ("best_of_n:n=3", "best_of_n has no setting 'n'; its settings are: samples, q, deviations"),
        ("best_of_n:q=max", "q=max must be one of value, mean, min, lower"),
        ("langevin:time=1", "time=1 must be a number between 0.01 and 0.999"),
        ("langevin:temperature=inf", "temperature=inf must be a number of at least 1e-09"),
        ("langevin:temperature=nan", "temperature=nan must be a number of at least 1e-09"),
        ("langevin:score=yes", "score=yes must be one of True, False"),
        ("langevin:steps=1:steps=2", "langevin is given steps twice; give it once"),
        ("sample:steps=1", "sample has no setting 'steps'; its settings are: none"),
        ("none_such:steps=1", "--eval_policy=none_such is not one of sample, propose, best_of_n"),
    ],
)
def test_a_wrong_setting_is_named_with_the_right_ones(name, message):
    with pytest.raises(UserError) as caught:
        load_policy(name)
    assert message in str(caught.value)
