"""Operations of a traced program, against what they are by hand and by XLA."""

import jax
import jax.numpy as jnp
import pytest

from utils.flops import matmul_flops

X, W = jnp.ones((8, 16)), jnp.ones((16, 16))
ONE = 2 * 8 * 16 * 16


def nested(inner, x, outer=lambda y: y):
    """A loop of 10 rounds in one of 3."""

    def body(i, y):
        return jax.lax.fori_loop(0, 10, lambda j, z: inner(z), outer(y))

    return jax.lax.fori_loop(0, 3, body, x)


@pytest.mark.parametrize(
    ("function", "products"),
    [
        (lambda x, w: x @ w, 1),
        (jax.jit(lambda x, w: (x @ w) @ w), 2),
        (lambda x, w: jax.lax.fori_loop(0, 10, lambda i, y: jnp.tanh(y @ w), x), 10),
        (lambda x, w: jax.lax.cond(x[0, 0] > 0, lambda: x @ w @ w, lambda: x @ w), 2),
        (lambda x, w: jax.lax.while_loop(lambda y: y[0, 0] < 9, lambda y: y @ w, x), 1),
        (lambda x, w: jax.grad(lambda w: jnp.sum((x @ w) ** 2))(w), 2),
        (lambda x, w: jax.vmap(lambda row: row @ w)(x), 1),
        (lambda x, w: x + w[:8], 0),
        (lambda x, w: jax.lax.fori_loop(0, 10, lambda i, y: y + x @ w, x), 1),
        (lambda x, w: jax.lax.fori_loop(0, 10, lambda i, y: jnp.tanh((x @ w + y) @ w), x), 11),
        (lambda x, w: jnp.tanh(x @ w) + jax.jit(jnp.matmul)(x, w), 1),
        (lambda x, w: (x @ w) + (x @ w.T), 2),
        (lambda x, w: nested(lambda y: jnp.tanh((x @ w + y) @ w), x), 1 + 3 * 10),
        (lambda x, w: nested(lambda y: y @ w, x, outer=lambda y: y @ w), 3 + 3 * 10),
    ],
)
def test_products_are_counted_as_often_as_they_run(function, products):
    assert matmul_flops(function, X, W) == products * ONE


def test_a_convolution_is_counted_as_xla_counts_it():
    def convolve(images, kernel):
        return jax.lax.conv_general_dilated(
            images, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    arguments = jnp.ones((2, 9, 9, 3)), jnp.ones((3, 3, 3, 5))
    counted = jax.jit(convolve).lower(*arguments).compile().cost_analysis()["flops"]
    assert matmul_flops(convolve, *arguments) == pytest.approx(counted, rel=0.02)
