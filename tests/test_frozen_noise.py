"""Numbers that another trace of the same function would have otherwise."""

import random

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from utils.errors import UserError
from utils.frozen_noise import require_same_numbers


def traced(function):
    """What a function of a number and a key is when it is traced once more."""
    return jax.make_jaxpr(lambda x, key: function(x, key))(1.0, jax.random.key(0))


@pytest.mark.parametrize(
    "function",
    [
        lambda x, key: x * np.random.normal(),
        lambda x, key: x + jnp.asarray(np.random.default_rng().normal(size=3)),
        lambda x, key: jax.jit(lambda y: y - random.random())(x),
        lambda x, key: jax.lax.fori_loop(0, 3, lambda i, y: y + np.random.normal(), x),
    ],
)
def test_another_generators_numbers_are_named_with_their_line(function):
    first, second = traced(function), traced(function)
    with pytest.raises(UserError, match=rf"^{__file__}, line \d+: a number here is another one"):
        require_same_numbers(first, second)
    require_same_numbers(first, first)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, key: x + jax.random.normal(key, (3,)) * jnp.arange(3) * 0.5,
        lambda x, key: x + jax.random.normal(jax.random.key(3)) + jnp.nan,
        lambda x, key: jnp.where(x > 0, np.linspace(0, 1, 5), -jnp.inf),
    ],
)
def test_keys_and_fixed_numbers_are_right(function):
    require_same_numbers(traced(function), traced(function))
