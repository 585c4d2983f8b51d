"""The diffusion's schedule, noising and sampling, by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from utils import diffusion

BETAS = diffusion.vp_betas(5)


def test_the_schedule_keeps_less_and_less_of_the_data():
    kept = np.cumprod(1.0 - BETAS)
    # The rates' integral over the whole time is 0.1 + (10 - 0.1) / 2.
    np.testing.assert_allclose(kept[-1], np.exp(-0.1 - 0.5 * 9.9), rtol=1e-5)
    assert (np.diff(BETAS) > 0).all()
    assert 0 < BETAS[0] < BETAS[-1] < 1


def test_noise_and_data_together_keep_the_variance():
    one, none = jnp.ones((5, 1)), jnp.zeros((5, 1))
    t = jnp.arange(5)
    of_data = diffusion.noised(one, none, t, BETAS)
    of_noise = diffusion.noised(none, one, t, BETAS)
    np.testing.assert_allclose(of_data**2 + of_noise**2, np.ones((5, 1)), rtol=1e-6)
    np.testing.assert_allclose(of_noise[0, 0] ** 2, BETAS[0], rtol=1e-4)


def test_in_continuous_time_noise_replaces_the_data_at_a_rate_from_0_1_to_20():
    t = jnp.array([0.0, 0.5, 1.0])
    alpha, sigma = diffusion.vp_marginal(t)
    np.testing.assert_allclose(alpha**2 + sigma**2, np.ones(3), rtol=1e-6)
    rate = jax.vmap(jax.grad(lambda t: -2.0 * jnp.log(diffusion.vp_marginal(t)[0])))(t)
    np.testing.assert_allclose(rate, [0.1, 10.05, 20.0], rtol=1e-5)
    np.testing.assert_allclose(alpha[0], 1.0)


def test_random_frequencies_do_not_learn():
    features = diffusion.RandomFourierTime(8, scale=30.0)
    t = jnp.full((5, 1), 0.3)
    params = features.init(jax.random.key(0), t)
    grads = jax.grad(lambda params: features.apply(params, t).sum())(params)
    assert not np.any(grads["params"]["kernel"])
    kernel = params["params"]["kernel"]
    expected = [*np.sin(0.6 * np.pi * kernel), *np.cos(0.6 * np.pi * kernel)]
    np.testing.assert_allclose(features.apply(params, t)[0], expected, atol=1e-4)


def test_a_perfect_prediction_leads_to_the_data():
    data = jnp.array([[0.3, -0.8]])
    kept = jnp.asarray(np.cumprod(1.0 - BETAS))

    def predict(x, t):
        left = kept[t.astype(int)]
        return (x - jnp.sqrt(left) * data) / jnp.sqrt(1.0 - left)

    z, step_z = (jax.random.normal(jax.random.key(i), (*((5,) * i), 1, 2)) for i in (0, 1))
    sample = diffusion.ancestral_sample(predict, z, step_z, BETAS)
    np.testing.assert_allclose(sample, data, atol=1e-5)


def test_noise_is_added_after_every_step_but_the_last_and_samples_stay_in_the_box():
    def predict(x, t):
        return jnp.zeros_like(x)

    z = jnp.full((1, 1), 0.01)
    silent = jnp.zeros((5, 1, 1))
    for step in range(5):
        sample = diffusion.ancestral_sample(predict, z, silent.at[step].set(0.01), BETAS)
        plain = diffusion.ancestral_sample(predict, z, silent, BETAS)
        assert (sample != plain).all() == (step < 4)
    assert diffusion.ancestral_sample(predict, 10.0 + z, silent, BETAS) == 1.0


def test_the_mask_of_dropout_reaches_its_block_alone():
    model = diffusion.Denoiser(8, 2, diffusion.FourierTime(4), (6, 6))
    observations, x, t = jnp.ones((3, 5)), jnp.ones((3, 2)), jnp.ones((3, 1))
    params = jax.jit(model.init)(jax.random.key(0), observations, x, t)
    apply = jax.jit(model.apply)
    keep, drop = jnp.ones((3, 8)), jnp.ones((3, 8)).at[:, :4].set(0.0)
    outputs = [
        apply(params, observations, x, t, *masks)
        for masks in ((), (keep, keep), (drop, keep), (keep, drop))
    ]
    np.testing.assert_allclose(outputs[0], outputs[1], rtol=1e-6)
    assert not np.allclose(outputs[0], outputs[2])
    assert not np.allclose(outputs[0], outputs[3])
    assert not np.allclose(outputs[2], outputs[3])


def test_dropout_keeps_its_share_and_the_mean_and_is_nothing_at_rate_0():
    noise = diffusion.sample_dropout(jax.random.key(0), 0.25, (1000, 8), num_blocks=2)
    assert set(noise) == {"dropout0", "dropout1"}
    masks = diffusion.dropout_masks(noise | {"t": jnp.ones(())}, 0.25)
    assert not np.array_equal(*masks)
    for mask in masks:
        assert set(np.unique(mask)) == {0.0, np.float32(1 / 0.75)}
        np.testing.assert_allclose(mask.mean(), 1.0, atol=0.03)
    assert diffusion.sample_dropout(jax.random.key(0), 0.0, (4, 8), 2) == {}
    assert diffusion.dropout_masks({}, 0.0) == []
