"""What is particular to each baseline, beside its recorded update steps."""

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from tests import toys

BATCH = toys.batch(size=16)
KEY = jax.random.key(0)


def updated(agent, batch):
    return jax.jit(type(agent).update)(agent, batch, KEY)[0]


def with_settings(agent, **settings):
    """The same agent under other settings, which change none of its networks."""
    config = ml_collections.FrozenConfigDict(agent.config.to_dict() | settings)
    return agent.replace(config=config)


def slope(agent, network, loss, *more):
    """Derivative of `loss(params, *more)` by the one number that a network is."""
    grads = jax.grad(lambda params: loss(params, *more)[0])(agent.network.params)
    return float(grads[network]["value"])


# --- Behaviour ------------------------------------------------------------------------------------


def test_targets_lag_by_one_step_as_in_the_published_code_and_do_not_in_that_of_cal_ql():
    """At published rates this is less than the recorded steps show."""
    after_step = {
        path.stem: toys.load(path).agent_class.TARGETS_AFTER_STEP
        for path in toys.AGENTS.glob("[!_]*.py")
    }
    lagging = {name for name, after in after_step.items() if not after}
    assert {"deflow", "fql", "iql", "rebrac", "rlpd"} <= lagging
    assert after_step["calql"]


def test_iql_reports_the_share_of_weights_at_their_cap():
    agent = toys.make("iql", **toys.SHALLOW)

    def with_advantage(advantage):
        class Known(type(agent)):
            def advantage(self, batch):
                return jnp.full(16, advantage)

        return Known(agent.network, agent.config).actor_loss(BATCH, agent.network.params, {})[1]

    low, high = with_advantage(0.1), with_advantage(10.0)
    assert low["actor/clipped"] == 0 < high["actor/clipped"] == 1
    np.testing.assert_allclose(low["actor/actor_loss"], -np.e * low["actor/bc_log_prob"], rtol=1e-5)
    np.testing.assert_allclose(high["actor/actor_loss"], -100 * low["actor/bc_log_prob"], rtol=1e-5)


def test_rebrac_moves_targets_in_full_updates_alone_and_its_actor_by_momentum_in_between():
    batch = BATCH | {"next_actions": BATCH["actions"]}
    first = toys.make("rebrac", **toys.SHALLOW)
    second = updated(first, batch)
    third = updated(second, batch)
    fourth = updated(third, batch)
    assert toys.moved(first, second) == ({"critic"}, set())  # no momentum yet
    assert toys.moved(second, third) == ({"critic", "actor"}, {"critic", "actor"})
    assert toys.moved(third, fourth) == ({"critic", "actor"}, set())


def test_rebrac_reports_its_actor_in_every_update_and_its_gradient_on_held_out_data():
    batch = BATCH | {"next_actions": BATCH["actions"]}
    agent = toys.make("rebrac", **toys.SHALLOW)

    @jax.jit
    def metrics(agent):
        noise = agent.sample_noise(KEY, batch)
        _, reported = agent.total_loss(batch, agent.network.params, noise)
        return reported, agent.evaluate_loss(batch, KEY)

    partial, full = (
        metrics(agent.replace(network=agent.network.replace(step=jnp.asarray(step))))
        for step in (0, 1)
    )
    for one, other in zip(jax.tree.leaves(partial), jax.tree.leaves(full), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)
    assert full[1]["grad_norm/actor"] > 0


def test_the_temperature_rises_while_the_entropy_is_below_its_target():
    for name, sign in (("rlpd", 1), ("calql", -1)):  # one takes the entropy, one E log pi
        agent = with_settings(toys.make(name, **toys.SHALLOW), target_entropy=-3.0)
        for entropy, rises in ((-4.0, True), (-2.0, False)):
            found = slope(agent, "log_alpha", agent.temperature_loss, sign * entropy)
            assert (found < 0) == rises


def test_entropy_targets_are_by_default_those_of_the_published_code():
    for name, per_dimension in (("rlpd", -0.5), ("calql", -1.0)):
        agent_class, config = toys.tiny(name)
        agent = agent_class(None, ml_collections.FrozenConfigDict(dict(config, action_dim=3)))
        assert agent.target_entropy() == 3 * per_dimension


def test_cal_ql_raises_the_policys_values_to_the_datas_returns_and_no_others():
    agent = toys.make("calql", cql_n_actions=4, cql_lagrange=True, **toys.SHALLOW)
    noise = agent.sample_noise(KEY, BATCH)
    returns = 1000.0 * jnp.where(jnp.arange(16) < 4, 1.0, -1.0)
    batch = BATCH | {"mc_returns": returns}
    actions, _ = agent.other_actions(batch, noise)
    q, metrics = agent.calibrated_q(batch, agent.network.params, actions)  # (2, 16, 12)
    assert (np.asarray(q == 1000.0)[:, :4] == (np.arange(12) >= 4)).all()
    assert (np.abs(q[:, 4:]) < 100.0).all()
    assert metrics["conservative/raised"] == 0.25


def test_cal_qls_multiplier_rises_while_the_differences_exceed_their_target():
    agent = toys.make("calql", cql_n_actions=4, cql_lagrange=True, **toys.SHALLOW)
    for differences, rises in (([0.7, 1.0], True), ([0.7, 0.8], False)):  # the target is 0.8
        found = slope(agent, "log_alpha_prime", agent.multiplier_loss, jnp.array(differences))
        assert (found < 0) == rises


def test_cal_qls_failed_episodes_go_on_for_ever():
    agent_class, config = toys.tiny("calql", reward_scale=10.0, reward_bias=5.0, discount=0.9)
    rewards = agent_class.scale_rewards(np.full(3, -1.0, np.float32), config)
    episode = {"rewards": rewards, "masks": np.ones(3, np.float32)}
    (column,) = agent_class.columns(config).values()
    np.testing.assert_allclose(column(episode), np.full(3, -50.0), rtol=1e-6)
    config.sparse_rewards = False
    (column,) = agent_class.columns(config).values()
    np.testing.assert_allclose(column(episode), [-13.55, -9.5, -5.0], rtol=1e-6)
