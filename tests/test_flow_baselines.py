"""What is particular to each baseline with a flow or a diffusion model."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import utils.agent
from tests import toys
from utils import diffusion, flow
from utils.errors import UserError

BATCH = toys.batch(size=16)
KEY = jax.random.key(0)
CRITIC = {"flow_critic_hidden_dims": (16,), "noise_samples": 3, "critic_flow_steps": 2}
PRIOR = {"prior_hidden_dim": 8, "prior_num_blocks": 1, "time_dim": 4, "time_hidden_dims": (8,)}
DIFFUSION = {"actor_hidden_dim": 8, "actor_num_blocks": 1, "time_dim": 4, "time_hidden_dims": (8,)}


def make(name, **settings):
    shallow = {key: toys.SHALLOW[key] for key in toys.SHALLOW if key in toys.tiny(name)[1]}
    return toys.make(name, **shallow | settings)


def reached(agent, loss):
    """Names of the networks that a loss of the parameters has a gradient for."""
    grads = jax.jit(jax.grad(lambda params: loss(params)[0]))(agent.network.params)
    return {name for name in grads if any(np.any(leaf) for leaf in jax.tree.leaves(grads[name]))}


# --- Acting ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "settings"), [("ifql", {}), ("idql", DIFFUSION)])
def test_the_best_of_the_proposed_actions_is_taken_for_each_of_a_batch(name, settings, monkeypatch):
    agent = make(name, num_samples=6, **settings)
    compared = []

    class Known(type(agent)):
        def propose(self, observations, z, *more):
            return jnp.tanh(z + observations[..., :3])

        def value(self, observations, actions):
            return -((actions - 0.1 * observations[..., :3]) ** 2).sum(-1)

    def recorded(candidates, values, best_of=utils.agent.best_of):
        compared.append(candidates)
        return best_of(candidates, values)

    monkeypatch.setattr(utils.agent, "best_of", recorded)
    observations = BATCH["observations"][:8].reshape(2, 4, 5)
    actions = Known(agent.network, agent.config).sample_actions(observations, KEY, 0.0)
    assert actions.shape == (2, 4, 3)
    (candidates,) = compared
    assert candidates.shape == (2, 4, 6, 3)
    assert len(np.unique(candidates)) == candidates.size
    distance = np.abs(candidates - 0.1 * observations[:, :, None, :3]) ** 2
    best = distance.sum(-1).argmin(-1)
    expected = np.take_along_axis(np.asarray(candidates), best[..., None, None], axis=2)[:, :, 0]
    np.testing.assert_allclose(actions, expected, rtol=1e-6)


def test_idql_acts_by_averages_and_its_model_stands_still_online():
    agent = make("idql", **DIFFUSION).start_online()
    after = agent
    for _ in range(2):
        after, _ = after.update(BATCH, KEY)
    for before_of, after_of in (
        (agent.network.params, after.network.params),
        (agent.network.target_params, after.network.target_params),
    ):
        same = jax.tree.map(np.array_equal, before_of["actor"], after_of["actor"])
        assert all(jax.tree.leaves(same))
        moved = jax.tree.map(np.array_equal, before_of["critic"], after_of["critic"])
        assert not all(jax.tree.leaves(moved))

    def acted(network):
        return agent.replace(network=network).sample_actions(BATCH["observations"], KEY)

    network, doubled = agent.network, jax.tree.map(lambda x: 2 * x, agent.network.params)
    np.testing.assert_array_equal(acted(network), acted(network.replace(params=doubled)))
    averages = network.target_params | {"actor": doubled["actor"]}
    assert not np.allclose(acted(network), acted(network.replace(target_params=averages)))


def test_cac_draws_actions_by_the_softmax_of_q_at_both_temperatures():
    agent = make("cac", num_samples=3)
    calls = []

    class Known(type(agent)):
        def act(self, model, observations, z):
            calls.append(z.shape)
            return jnp.broadcast_to(jnp.array([[-0.5], [0.0], [0.5]]), z.shape[1:])

        def value(self, observations, actions):
            return jnp.log(jnp.array([0.1, 0.2, 0.7]))

    observations = jnp.ones((50, 40, 5))
    for temperature in (0.0, 1.0):
        known = Known(agent.network, agent.config)
        actions = known.sample_actions(observations, KEY, temperature)
        assert actions.shape == (50, 40, 3)
        for action, share in ((-0.5, 0.1), (0.0, 0.2), (0.5, 0.7)):
            np.testing.assert_allclose(np.mean(actions == action), share, atol=0.03)
    assert calls == [(2, 50, 40, 3, 3)] * 2  # one call of the policy for all


# --- Losses ---------------------------------------------------------------------------------------


def test_fbracs_policy_learns_through_all_steps_of_its_flow():
    agent = make("fbrac", flow_steps=3)
    noise = agent.sample_noise(KEY, BATCH)

    def q_loss(params):
        velocity = partial(agent.network.select("actor_flow", params), BATCH["observations"])
        return agent.q_loss(BATCH, velocity, noise)

    assert reached(agent, q_loss) == {"actor_flow"}
    assert reached(agent, lambda params: agent.critic_loss(BATCH, params, noise)) == {"critic"}


def test_fawac_reports_the_share_of_weights_at_their_cap():
    agent = make("fawac")
    noise = agent.sample_noise(KEY, BATCH)

    def with_advantage(advantage):
        class Known(type(agent)):
            def advantage(self, batch):
                return jnp.full(16, advantage)

        return Known(agent.network, agent.config).flow_loss(BATCH, agent.network.params, noise)[1]

    none, low, high = map(with_advantage, (0.0, 0.1, 10.0))
    assert low["actor/clipped"] == 0 < high["actor/clipped"] == 1
    plain = none["flow/flow_loss"]
    np.testing.assert_allclose(low["flow/flow_loss"], np.exp(0.3) * plain, rtol=1e-5)
    np.testing.assert_allclose(high["flow/flow_loss"], 100 * plain, rtol=1e-5)


@pytest.mark.parametrize("name", ["floq", "deflowvf"])
def test_the_flow_critics_losses_reach_both_critics_and_no_policy(name):
    agent = make(name, **CRITIC)
    noise = agent.sample_noise(KEY, BATCH)
    more = [noise["next_z"]] if name == "deflowvf" else []  # actions at s'

    def loss(params):
        return agent.critic_loss(BATCH, params, noise, *more)

    assert reached(agent, loss) == {"critic", "flow_critic"}
    assert set(agent.network.target_params) == {"flow_critic"}


@pytest.mark.parametrize("name", ["floq", "deflowvf"])
def test_the_range_of_rewards_is_that_of_the_data(name):
    agent_class, config = toys.tiny(name)
    data = {"rewards": np.array([2.0, 0.5, 1.0], np.float32)}
    assert agent_class.settings_from_data(data, config) == {"r_min": 0.5, "r_max": 2.0}
    agent = make(name, **CRITIC, r_min=0.5, r_max=2.0, noise_coverage=0.1, discount=0.9)
    assert agent.noise_range().at(np.array([0.0, 1.0])) == pytest.approx([0.5, 2.0])


def test_deflowvf_solves_the_base_flow_once_for_all_states(monkeypatch):
    solved, original = [], flow.euler
    monkeypatch.setattr(
        flow, "euler", lambda v, x0, steps: solved.append(x0.shape) or original(v, x0, steps)
    )
    agent = make("deflowvf", **CRITIC)
    jax.eval_shape(lambda *inputs: type(agent).update(*inputs), agent, BATCH, KEY)
    # One s and three s' in every row; then the returns at s' and at s, of two fields.
    assert sorted(solved) == [(2, 16, 3, 1), (2, 16, 3, 1), (16, 4, 3)]


def test_deflowvfs_behaviour_cloning_has_no_critics():
    agent = make("deflowvf", bc_only=True, **CRITIC)
    assert set(agent.network.params) == {"base_flow"}
    assert agent.network.target_params == {}


def test_a_field_learned_at_time_0_is_solved_in_one_step():
    agent_class, config = toys.tiny("floq", train_at_zero_only=True)
    with pytest.raises(UserError, match=r"give --agent.critic_flow_steps=1 with it"):
        agent_class.check_config(config)
    config.critic_flow_steps = 1
    agent_class.check_config(config)
    agent = make("floq", **CRITIC | {"critic_flow_steps": 1}, train_at_zero_only=True)
    noise = agent.sample_noise(KEY, BATCH)
    losses = [
        agent.critic_loss(BATCH, agent.network.params, noise | {"critic_t": t})[0]
        for t in (noise["critic_t"], 1.0 - noise["critic_t"])
    ]
    assert losses[0] == losses[1]


def test_settings_of_embeddings_that_are_not_used_are_said_to_do_nothing():
    file = toys.load(toys.AGENTS / "floq.py")
    config = file.config.copy_and_resolve_references()
    assert "time_embed_dim" in file.check(config)
    config.update(time_embedding="fourier", use_prob_embed=False)
    assert {"num_bins", "sigma"} <= set(file.check(config))
    assert "time_embed_dim" not in file.check(config)


# --- Stages and schedules -------------------------------------------------------------------------


def test_srpos_policy_learns_after_the_others_and_alone_and_online_with_all_but_the_prior():
    """Its rate has fallen to 0 by then, and is constant online."""
    first = make("srpo", **PRIOR, pretrain_steps=1, decay_steps=1)
    second, _ = first.update(BATCH, KEY)
    third, _ = second.update(BATCH, KEY)
    assert toys.moved(first, second) == ({"prior", "value", "critic"}, {"critic"})
    assert toys.moved(second, third) == ({"actor"}, set())
    online = third.start_online()
    after, _ = online.update(BATCH, KEY)
    assert toys.moved(online, after) == ({"value", "critic", "actor"}, {"critic"})


def test_srpos_schedule_begins_when_its_policy_learns():
    """Of an update's length, which for Adam under a constant gradient is the rate."""

    def length(steps):
        optimizer = agent_class.optimizer(config, "actor")
        state, grads = optimizer.init(1.0), 1.0
        for _ in range(steps):
            update, state = optimizer.update(grads, state)
        return float(update)

    agent_class, config = toys.tiny("srpo", pretrain_steps=5, decay_steps=4, actor_lr=0.1)
    assert length(5) == 0.0
    np.testing.assert_allclose(length(6), -0.1, rtol=1e-4)
    np.testing.assert_allclose(length(8), -0.05, rtol=1e-4)
    assert length(10) == 0.0


def test_srpos_weight_and_normalised_guidance():
    agent = make("srpo", **PRIOR, normalize_guidance=True)
    actions = jnp.tanh(BATCH["actions"])
    q, gradient = agent.guidance(BATCH["observations"], actions)
    np.testing.assert_allclose(jnp.mean(gradient**2, axis=-1), np.ones(16), rtol=1e-4)
    values = agent.network.select_target("critic")(BATCH["observations"], actions)
    np.testing.assert_allclose(q, values.mean(), rtol=1e-5)
    t = jnp.array([0.3])
    alpha, sigma = diffusion.vp_marginal(t)
    for weighting, expected in (("VDS", sigma**2), ("stable", 1.0), ("score", alpha / sigma)):
        found = make("srpo", **PRIOR, weighting=weighting).weight(t)
        np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_cacs_number_of_times_grows_and_begins_anew_and_pairs_are_of_neighbours():
    agent = make("cac", iterations=1000)
    for step, scales in ((0, 2), (500, 107), (999, 150), (1000, 2)):
        network = agent.network.replace(step=jnp.asarray(step))
        noise = agent.replace(network=network).sample_noise(KEY, toys.batch(size=512))
        assert noise["num_scales"] == scales
        index = np.asarray(noise["index"])
        assert index.min() >= 0
        assert index.max() <= scales - 2
        assert scales == 2 or np.ptp(index) > 0.9 * (scales - 2)


def test_cacs_average_starts_late_and_moves_in_every_fifth_update_counted_from_0():
    agent = make("cac", ema_start=1000, ema_every=5, ema_decay=0.995)

    def rates(step):
        network = agent.network.replace(step=jnp.asarray(step))
        return agent.replace(network=network).target_rates()

    moving = [step for step in (0, 5, 995, 999, 1000, 1001, 1004, 1005) if rates(step)["actor"]]
    assert moving == [1000, 1005]
    np.testing.assert_allclose(rates(1000)["actor"], 0.005, rtol=1e-4)
    assert rates(0)["critic"] == 0.005


def test_cacs_policy_learns_from_both_of_its_evaluations():
    """And the gradient of Q is that of the critic that the coin chose."""
    agent = make("cac")
    noise = agent.sample_noise(KEY, BATCH)
    assert reached(agent, lambda params: agent.q_loss(BATCH, params, noise)) == {"actor"}
    assert reached(agent, lambda params: agent.critic_loss(BATCH, params, noise)) == {"critic"}

    def loss(z):
        return agent.q_loss(BATCH, agent.network.params, noise | {"z": z})[0]

    by_start, by_second = jax.jit(jax.grad(loss))(noise["z"])
    assert np.any(by_start)
    assert np.any(by_second)
