"""One optimiser step: which networks it moves, and with what."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from utils.errors import UserError
from utils.networks import MLP, Scalar
from utils.train_state import TrainState, delayed_update, own_buffers

INPUTS = jnp.linspace(-1.0, 1.0, 12).reshape(4, 3)
OPTIMIZERS = dict.fromkeys(("first", "second", "number"), optax.adam(1e-2))


def make(targets=("first",)):
    networks = {
        "first": (MLP((5,), 2), (INPUTS,)),
        "second": (MLP((5,), 2), (INPUTS,)),
        "number": (Scalar(0.5), ()),
    }
    return TrainState.create(jax.random.key(0), networks, OPTIMIZERS, targets)


def loss_of(network):
    """A loss that all networks take part in."""

    def loss(params):
        first, second = (network.select(name, params)(INPUTS) for name in ("first", "second"))
        value = jnp.mean((first - 1.0) ** 2) + jnp.mean((second + network.select("number")()) ** 2)
        value += network.select("number", params)() ** 2
        return value, {"loss": value}

    return loss


def step(network, **options):
    """An update as a compiled one does it."""
    return jax.jit(lambda state: state.apply_loss_fn(loss_of(state), OPTIMIZERS, **options))(
        network
    )


def same(first, second):
    return all(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))


def moved(before, after):
    """Networks whose parameters changed; those whose moments changed must be the same."""
    names = {name for name in before.params if not same(before.params[name], after.params[name])}
    assert names == {
        name for name in before.params if not same(before.opt_state[name], after.opt_state[name])
    }
    return names


def test_all_networks_move_by_default_and_targets_do_not():
    before = make()
    after, metrics = step(before)
    assert moved(before, after) == {"first", "second", "number"}
    chex.assert_trees_all_equal(after.target_params, before.target_params)
    assert set(metrics) == {"loss"}


@pytest.mark.parametrize("names", [["second"], ("first", "number"), []])
def test_only_named_networks_move_and_only_their_moments(names):
    before, _ = step(make())  # with moments
    after, metrics = step(before, networks=names)
    assert moved(before, after) == set(names)
    full, same_metrics = step(before)
    for name in names:  # as far as they move, they move as in the full step
        chex.assert_trees_all_close(after.params[name], full.params[name], rtol=1e-5)
    np.testing.assert_allclose(metrics["loss"], same_metrics["loss"], rtol=1e-6)


def test_frozen_networks_keep_parameters_and_moments_even_if_named():
    before, _ = step(make())
    frozen = before.replace(frozen=("first",))
    assert moved(before, step(frozen)[0]) == {"second", "number"}
    assert moved(before, step(frozen, networks=["first", "second"])[0]) == {"second"}
    assert moved(before, step(before.replace(frozen=("first",)).replace(frozen=()))[0]) == {
        "first",
        "second",
        "number",
    }


def test_gradient_norms_are_those_of_each_network():
    network = make()
    _, metrics = step(network, grad_norms=True, networks=["first", "number"])
    grads = jax.grad(lambda params: loss_of(network)(params)[0])(network.params)
    assert set(metrics) == {"loss", "grad_norm/first", "grad_norm/number"}
    for name in ("first", "number"):
        squares = [np.sum(np.square(leaf)) for leaf in jax.tree.leaves(grads[name])]
        np.testing.assert_allclose(metrics[f"grad_norm/{name}"], np.sqrt(sum(squares)), rtol=1e-5)
    np.testing.assert_allclose(metrics["grad_norm/number"], 1.0)  # d/dn of n ** 2 at 0.5


def test_optimisers_are_built_from_settings_that_may_be_mapped():
    """Learning rates as a traced, mapped argument give what each rate gives as a number."""
    network = make()

    def update(network, rate):
        optimizers = dict.fromkeys(OPTIMIZERS, optax.adam(rate))
        return network.apply_loss_fn(loss_of(network), optimizers)[0]

    rates = jnp.array([0.0, 1e-3, 0.1])
    together = jax.jit(jax.vmap(update, (None, 0)))(network, rates)
    for i, rate in enumerate((0.0, 1e-3, 0.1)):
        alone = jax.jit(lambda network, rate=rate: update(network, rate))(network)
        ours = jax.tree.map(lambda x, i=i: x[i], together.params)
        chex.assert_trees_all_close(ours, alone.params, rtol=1e-5, atol=1e-7)
        assert same(alone.params, network.params) == (rate == 0.0)


def test_targets_move_by_their_own_rates():
    network = make(targets=("first", "number"))
    followed = jax.tree.map(lambda x: x + 1.0, network.params)
    after = network.update_targets(followed, {"first": 0.25, "number": jnp.float32(1.0)})
    chex.assert_trees_all_close(
        after.target_params["first"],
        jax.tree.map(lambda x: x + 0.25, network.params["first"]),
        atol=1e-6,
    )
    np.testing.assert_allclose(after.select_target("number")(), 1.5)
    only = network.update_targets(followed, {"number": 0.5})
    chex.assert_trees_all_equal(only.target_params["first"], network.target_params["first"])


def test_gradients_flow_where_params_is_written():
    network = make()

    def gradient(loss):
        return jax.grad(loss)(network.params)

    learns = gradient(lambda params: network.select("first", params)(INPUTS).sum())
    assert not same(learns["first"], jax.tree.map(jnp.zeros_like, network.params["first"]))
    for select in (network.select, network.select_target):
        constant = gradient(lambda params, select=select: select("first")(INPUTS).sum())
        assert same(constant, jax.tree.map(jnp.zeros_like, network.params))


def test_an_unknown_network_is_named_with_those_there_are():
    network = make()
    with pytest.raises(UserError, match="no network third; there are first, second, number"):
        network.select("third")
    with pytest.raises(UserError, match="no target network second; there are first"):
        network.select_target("second")
    with pytest.raises(UserError, match="no target network first; there are none"):
        make(targets=()).select_target("first")


def test_every_third_update_is_a_full_one_whose_metrics_count_three_times():
    def update(full):
        return jnp.float32(full), {"both": jnp.float32(1.0)} | ({"own": 5.0} if full else {})

    step = jax.jit(lambda number: delayed_update(3, number, update))
    agents, metrics = zip(*(step(number) for number in range(1, 7)), strict=True)
    assert [float(agent) for agent in agents] == [0, 0, 1, 0, 0, 1]
    assert [float(row["own"]) for row in metrics] == [0, 0, 15, 0, 0, 15]
    assert {float(row["both"]) for row in metrics} == {1.0}


def test_what_shares_a_buffer_can_be_donated_once_it_has_its_own():
    shared = jnp.ones(3)
    tree = own_buffers({"network": shared, "target": shared, "step": 1})
    assert tree["step"].dtype == jnp.int32
    assert not tree["step"].weak_type
    after = jax.jit(lambda x: jax.tree.map(lambda leaf: leaf + 1, x), donate_argnums=0)(tree)
    np.testing.assert_array_equal(after["network"], after["target"])
