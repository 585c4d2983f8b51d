"""Trees whose shared arrays are one leaf."""

import jax
import jax.numpy as jnp
import numpy as np

from utils.once import Once


def test_a_shared_array_is_one_argument_of_a_program_and_shared_in_it():
    x, y = jnp.arange(3.0), jnp.ones(2)
    tree = {"a": x, "b": (y, x)}
    once = Once.of(tree)
    assert len(jax.tree.leaves(once)) == 2

    @jax.jit
    def double(given):
        tree = given.tree()
        assert tree["a"] is tree["b"][1]
        return jax.tree.map(lambda array: 2 * array, given)

    jax.tree.map(
        np.testing.assert_array_equal, double(once).tree(), jax.tree.map(lambda z: 2 * z, tree)
    )
