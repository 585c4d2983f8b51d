"""Denoising diffusion: DDPM in discrete time (Ho et al., 2020, arXiv 2006.11239), VP in continuous.

The latter is the variance-preserving process of Song et al., 2021 (arXiv 2011.13456).
"""

from collections.abc import Callable, Mapping, Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from utils.networks import MLP

kernel_init = nn.initializers.xavier_uniform()


def vp_betas(num_steps: int) -> np.ndarray:
    """Return the variances (num_steps,) of a variance-preserving schedule.

    Its rates grow from 0.1 to 10, as in Hansen-Estruch et al., 2023 (arXiv 2304.10573).

    Args:
        num_steps: T, the number of steps.
    """
    t = np.arange(1, num_steps + 1)
    slope = 0.5 * (10.0 - 0.1) * (2 * t - 1) / num_steps**2
    return (1.0 - np.exp(-0.1 / num_steps - slope)).astype(np.float32)


def noised(x: jax.Array, eps: jax.Array, t: jax.Array, betas: np.ndarray) -> jax.Array:
    """Return data as they are after t + 1 steps of noise.

    Args:
        x: Data (..., d).
        eps: Standard normal noise (..., d).
        t: Steps in 0 to T - 1, integers (...).
        betas: Variances (T,).
    """
    kept = jnp.asarray(np.cumprod(1.0 - betas))[t][..., None]  # (..., 1)
    return jnp.sqrt(kept) * x + jnp.sqrt(1.0 - kept) * eps


def vp_marginal(t: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return how much of the data is left, and the noise's deviation, at continuous times.

    The rate of the noise grows from 0.1 at time 0 to 20 at time 1, as in Song et al., 2021 (arXiv
    2011.13456).

    Args:
        t: Times in [0, 1], (...).

    Returns:
        The factors alpha and sigma (...) of data and noise, alpha^2 + sigma^2 = 1.
    """
    log_alpha = -0.25 * t**2 * (20.0 - 0.1) - 0.5 * t * 0.1
    return jnp.exp(log_alpha), jnp.sqrt(1.0 - jnp.exp(2.0 * log_alpha))


def ancestral_sample(
    predict: Callable, z: jax.Array, step_z: jax.Array, betas: np.ndarray
) -> jax.Array:
    """Denoise by ancestral sampling, clipped to [-1, 1] after every step.

    Args:
        predict: Maps x (..., d) and steps (..., 1), as float32, to the noise (..., d) in x.
        z: Start, standard normal (..., d).
        step_z: The noise added after each step, standard normal (T, ..., d), in order of use; that
            of the last step is not used.
        betas: Variances (T,).

    Returns:
        Samples (..., d).
    """
    num_steps = len(betas)
    alphas, kept = 1.0 - betas, np.cumprod(1.0 - betas)
    of_noise = jnp.asarray((1.0 - alphas) / np.sqrt(1.0 - kept))
    of_x, deviation = jnp.asarray(1.0 / np.sqrt(alphas)), jnp.asarray(np.sqrt(betas)).at[0].set(0.0)

    def step(i: jax.Array, x: jax.Array) -> jax.Array:
        t = num_steps - 1 - i
        eps = predict(x, jnp.full((*x.shape[:-1], 1), t, x.dtype))
        x = of_x[t] * (x - of_noise[t] * eps) + deviation[t] * step_z[i]
        return jnp.clip(x, -1.0, 1.0)

    return jax.lax.fori_loop(0, num_steps, step, z)


class FourierTime(nn.Module):
    """Learnable Fourier features of time."""

    output_dim: int

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        """Map times (..., 1) to features (..., output_dim)."""
        kernel = self.param("kernel", nn.initializers.normal(0.2), (self.output_dim // 2, 1))
        angle = 2.0 * jnp.pi * t @ kernel.T
        return jnp.concatenate([jnp.cos(angle), jnp.sin(angle)], axis=-1)


class RandomFourierTime(nn.Module):
    """Fourier features of time whose random frequencies stay as they are.

    Attributes:
        output_dim: Number of features.
        scale: Standard deviation of the frequencies.
    """

    output_dim: int
    scale: float

    @nn.compact
    def __call__(self, t: jax.Array) -> jax.Array:
        """Map times (..., 1) to features (..., output_dim)."""
        kernel = self.param("kernel", nn.initializers.normal(self.scale), (self.output_dim // 2,))
        angle = 2.0 * jnp.pi * t * jax.lax.stop_gradient(kernel)
        return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


class ResidualBlock(nn.Module):
    """Dropout, LayerNorm and two layers, of which the inner one is four times as wide.

    Attributes:
        activation: Of the inner layer.
        kernel_init: Of both layers.
        epsilon: Of LayerNorm.
    """

    activation: Callable
    kernel_init: Callable
    epsilon: float

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | float) -> jax.Array:
        """Map features (..., d), of which the mask leaves some out, to (..., d)."""
        width = x.shape[-1]
        normalized = nn.LayerNorm(self.epsilon)(x * mask)
        inner = nn.Dense(4 * width, kernel_init=self.kernel_init)(normalized)
        return x + nn.Dense(width, kernel_init=self.kernel_init)(self.activation(inner))


class Denoiser(nn.Module):
    """Residual network that predicts the noise in an action (arXiv 2304.10573).

    Attributes:
        hidden_dim: Width of the blocks.
        num_blocks: Number of blocks.
        time: Maps times (..., 1) to features.
        time_hidden_dims: Widths of the MLP on them.
        activation: Of all layers.
        kernel_init: Of the layers outside the blocks.
        block_init: Of those in them.
        epsilon: Of LayerNorm.
    """

    hidden_dim: int
    num_blocks: int
    time: nn.Module
    time_hidden_dims: Sequence[int]
    activation: Callable = nn.swish
    kernel_init: Callable = kernel_init
    block_init: Callable = nn.initializers.lecun_normal()
    epsilon: float = 1e-6

    @nn.compact
    def __call__(
        self, observations: jax.Array, x: jax.Array, t: jax.Array, *masks: jax.Array
    ) -> jax.Array:
        """Return the noise (..., a) in actions x (..., a) at times t (..., 1).

        Args:
            observations: (..., o).
            x: Noised actions.
            t: Times, or numbers of steps.
            *masks: Of dropout, one (..., hidden_dim) per block, 0 or 1 / (1 - rate); none when
                acting.
        """
        *inner, last = self.time_hidden_dims
        mlp = MLP(inner, last, False, self.activation, self.kernel_init, name="time_mlp")
        inputs = jnp.concatenate([x, observations, mlp(self.time(t))], axis=-1)
        features = nn.Dense(self.hidden_dim, kernel_init=self.kernel_init, name="input")(inputs)
        for k in range(self.num_blocks):
            block = ResidualBlock(self.activation, self.block_init, self.epsilon, name=f"block{k}")
            features = block(features, masks[k] if masks else 1.0)
        output = nn.Dense(x.shape[-1], kernel_init=self.kernel_init, name="output")
        return output(self.activation(features))


def sample_dropout(
    rng: jax.Array, rate: float, shape: Sequence[int], num_blocks: int
) -> dict[str, jax.Array]:
    """Sample what dropout keeps, as noise of a loss; nothing at rate 0.

    Args:
        rng: Key.
        rate: Share that is left out.
        shape: Of one block's features, (b, width).
        num_blocks: Number of blocks.

    Returns:
        `dropout0`, `dropout1`, ..., true where kept.
    """
    if not rate:
        return {}
    kept = jax.random.bernoulli(rng, 1.0 - rate, (num_blocks, *shape))
    return {f"dropout{k}": block for k, block in enumerate(kept)}


def dropout_masks(noise: Mapping[str, jax.Array], rate: float) -> list[jax.Array]:
    """Return dropout's factor (b, width) of every block, from its noise."""
    blocks = [name for name in noise if name.startswith("dropout")]
    return [noise[f"dropout{k}"] / (1.0 - rate) for k in range(len(blocks))]
