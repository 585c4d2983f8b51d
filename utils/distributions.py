"""Gaussian policies from noise that is given, squashed by tanh or not."""

import math

import flax
import jax
import jax.numpy as jnp


class Gaussian(flax.struct.PyTreeNode):
    """Gaussian with a diagonal covariance.

    Attributes:
        mean: (..., a).
        log_std: Logarithm of the standard deviation, (..., a).
    """

    mean: jax.Array
    log_std: jax.Array

    def mode(self) -> jax.Array:
        """Return the most likely point (..., a)."""
        return self.mean

    def std(self) -> jax.Array:
        """Return the standard deviation (..., a)."""
        return jnp.exp(self.log_std)

    def sample(self, noise: jax.Array, temperature: float = 1.0) -> jax.Array:
        """Return samples (..., a).

        Args:
            noise: Standard normal, (..., a).
            temperature: Factor of the standard deviation; 0 gives the mode.
        """
        return self.mean + temperature * self.std() * noise

    def log_prob(self, x: jax.Array) -> jax.Array:
        """Return log densities (...) at x (..., a)."""
        return self._log_density((x - self.mean) / self.std())

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return samples (..., a) from standard normal noise, and their log densities (...)."""
        return self.sample(noise), self._log_density(noise)

    def _log_density(self, noise: jax.Array) -> jax.Array:
        """Return log densities (...) of the points that standard normal noise (..., a) makes."""
        terms = -0.5 * noise**2 - self.log_std - 0.5 * math.log(2 * math.pi)  # (..., a)
        return terms.sum(axis=-1)


class TanhGaussian(flax.struct.PyTreeNode):
    """Tanh of a Gaussian, with values in (-1, 1) (Haarnoja et al., 2018, arXiv 1801.01290).

    Attributes:
        gaussian: Before tanh.
    """

    gaussian: Gaussian

    def mode(self) -> jax.Array:
        """Return tanh of the Gaussian's mode (..., a)."""
        return jnp.tanh(self.gaussian.mode())

    def std(self) -> jax.Array:
        """Return the Gaussian's standard deviation (..., a), before tanh."""
        return self.gaussian.std()

    def sample(self, noise: jax.Array, temperature: float = 1.0) -> jax.Array:
        """Return samples (..., a); `temperature` multiplies the standard deviation before tanh."""
        return jnp.tanh(self.gaussian.sample(noise, temperature))

    def sample_and_log_prob(self, noise: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Return samples (..., a) from standard normal noise, and their log densities (...)."""
        x, log_prob = self.gaussian.sample_and_log_prob(noise)
        # log(1 - tanh(x)^2), in a form that is exact far from 0 too.
        log_slope = 2.0 * (math.log(2.0) - x - jax.nn.softplus(-2.0 * x))  # (..., a)
        return jnp.tanh(x), log_prob - log_slope.sum(axis=-1)
