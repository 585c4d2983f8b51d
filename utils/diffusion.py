"""Denoising diffusion in discrete time, DDPM (Ho et al., 2020, arXiv 2006.11239)."""

from collections.abc import Callable, Sequence

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


class ResidualBlock(nn.Module):
    """Dropout, LayerNorm and two layers, of which the inner one is four times as wide."""

    @nn.compact
    def __call__(self, x: jax.Array, mask: jax.Array | float) -> jax.Array:
        """Map features (..., d), of which the mask leaves some out, to (..., d)."""
        width = x.shape[-1]
        inner = nn.Dense(4 * width)(nn.LayerNorm()(x * mask))
        return x + nn.Dense(width)(nn.swish(inner))


class Denoiser(nn.Module):
    """Residual network that predicts the noise in an action (arXiv 2304.10573).

    Attributes:
        hidden_dim: Width of the blocks.
        num_blocks: Number of blocks.
        time_dim: Number of Fourier features of time.
        time_hidden_dims: Widths of the MLP on them.
    """

    hidden_dim: int
    num_blocks: int
    time_dim: int
    time_hidden_dims: Sequence[int]

    @nn.compact
    def __call__(
        self, observations: jax.Array, x: jax.Array, t: jax.Array, *masks: jax.Array
    ) -> jax.Array:
        """Return the noise (..., a) in actions x (..., a) at steps t (..., 1).

        Args:
            observations: (..., o).
            x: Noised actions.
            t: Steps.
            *masks: Of dropout, one (..., hidden_dim) per block, 0 or 1 / (1 - rate); none when
                acting.
        """
        *inner, last = self.time_hidden_dims
        time = FourierTime(self.time_dim, name="time")(t)
        time = MLP(inner, last, False, nn.swish, kernel_init, name="time_mlp")(time)
        inputs = jnp.concatenate([x, observations, time], axis=-1)
        features = nn.Dense(self.hidden_dim, kernel_init=kernel_init, name="input")(inputs)
        for k in range(self.num_blocks):
            features = ResidualBlock(name=f"block{k}")(features, masks[k] if masks else 1.0)
        output = nn.Dense(x.shape[-1], kernel_init=kernel_init, name="output")
        return output(nn.swish(features))
