"""The rounding that the table of drift rests on."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.parity.precision import with_rounded_products

X, W = jax.random.normal(jax.random.key(0), (2, 8, 8))


def rounded(array, bits):
    return jax.lax.reduce_precision(array, 8, bits)


def looped(x, w):
    return jax.lax.fori_loop(0, 3, lambda i, y: jnp.tanh(y @ w), x)


@pytest.mark.parametrize("bits", [23, 10, 7])
def test_operands_are_rounded_in_loops_and_in_gradients(bits):
    expected = X
    for _ in range(3):
        expected = jnp.tanh(rounded(expected, bits) @ rounded(W, bits))
    np.testing.assert_allclose(with_rounded_products(looped, bits)(X, W), expected, atol=1e-6)

    def gradient(x, w):
        return jax.grad(lambda w: jnp.sum(jax.jit(jnp.matmul)(x, w) ** 2))(w)

    product = rounded(X, bits) @ rounded(W, bits)
    expected = rounded(X, bits).T @ rounded(2 * product, bits)
    np.testing.assert_allclose(with_rounded_products(gradient, bits)(X, W), expected, atol=1e-4)
    exact = gradient(X, W)
    assert (np.abs(expected - exact).max() > 1e-4) == (bits < 23)


@pytest.mark.parametrize("takes_product", [True, False])
def test_operands_are_rounded_in_the_branch_that_is_taken(takes_product):
    def branched(taken, x, w):
        return jax.lax.cond(taken, lambda: x @ w, lambda: x + w)

    found = with_rounded_products(branched, 7)(jnp.asarray(takes_product), X, W)
    expected = rounded(X, 7) @ rounded(W, 7) if takes_product else X + W
    np.testing.assert_allclose(found, expected, atol=1e-5)
