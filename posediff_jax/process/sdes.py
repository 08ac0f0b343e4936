"""Continuous diffusion (Song et al. 2021): sub-VP, VP and VE, forward and reverse.

dx = f(t) x dt + g(t) dw on t in [0, T]. All three drifts are linear in x, so each process is told
by scalar functions of time, which a sampler can tabulate before its loop. Time axes come first:
`t` is `(...)` and the state `(..., *item)`.
"""

import dataclasses
import math
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from posediff_jax.types import Array


class SDE(Protocol):
    """What losses and samplers ask of a process; `t` has any shape, results have the same."""

    @property
    def num_steps(self) -> int:
        """N: number of steps between t = 0 and t = 1 in a discretisation."""
        ...

    @property
    def horizon(self) -> float:
        """T, where the process ends."""
        ...

    @property
    def prior_std(self) -> float:
        """Standard deviation of the prior, a centred Gaussian."""
        ...

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """Signal and noise rate: x_t = signal x_0 + noise z."""
        ...

    def drift(self, t: ArrayLike) -> Array:
        """f(t), the factor of x in the drift."""
        ...

    def diffusion(self, t: ArrayLike) -> Array:
        """g(t)."""
        ...

    def step(self, t: ArrayLike) -> tuple[Array, Array]:
        """F and G of one discrete step forward, x' = x + F x + G z."""
        ...


@dataclasses.dataclass(frozen=True)
class VP:
    """Variance preserving: signal^2 + noise^2 = 1, beta(t) = beta_min + t (beta_max - beta_min).

    Its discrete step is DDPM's, from a table of N variances.

    Attributes:
      beta_min: beta(0).
      beta_max: beta(1).
      num_steps: N.
      horizon: T.

    Raises:
      ValueError: Not 0 < beta_min <= beta_max, N below 2, or T not in (0, 1].
    """

    beta_min: float = 0.1
    beta_max: float = 20.0
    num_steps: int = 1000
    horizon: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(
                "beta_min, beta_max: expected 0 < beta_min <= beta_max, "
                f"got {self.beta_min} and {self.beta_max}"
            )
        _check_grid(self.num_steps, self.horizon)

    @property
    def prior_std(self) -> float:
        """1."""
        return 1.0

    def beta(self, t: ArrayLike) -> Array:
        """The rate of the noise at t."""
        return self.beta_min + jnp.asarray(t) * (self.beta_max - self.beta_min)

    def log_signal(self, t: ArrayLike) -> Array:
        """L(t) = -t^2 (beta_max - beta_min) / 4 - t beta_min / 2, the logarithm of the signal."""
        t = jnp.asarray(t)
        return -0.25 * t**2 * (self.beta_max - self.beta_min) - 0.5 * t * self.beta_min

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """e^L and sqrt(1 - e^2L)."""
        log_signal = self.log_signal(t)
        return jnp.exp(log_signal), jnp.sqrt(-jnp.expm1(2 * log_signal))

    def drift(self, t: ArrayLike) -> Array:
        """-beta / 2."""
        return -0.5 * self.beta(t)

    def diffusion(self, t: ArrayLike) -> Array:
        """sqrt(beta)."""
        return jnp.sqrt(self.beta(t))

    def step_beta(self, t: ArrayLike) -> Array:
        """beta_k of the step that t falls into, from linspace(beta_min / N, beta_max / N, N)."""
        low, high = self.beta_min / self.num_steps, self.beta_max / self.num_steps
        table = np.linspace(low, high, self.num_steps)
        return _lookup(table, t, self.num_steps, self.horizon)

    def step(self, t: ArrayLike) -> tuple[Array, Array]:
        """sqrt(1 - beta_k) - 1 and sqrt(beta_k)."""
        beta = self.step_beta(t)
        return jnp.sqrt(1 - beta) - 1, jnp.sqrt(beta)


@dataclasses.dataclass(frozen=True)
class SubVP(VP):
    """VP with less noise, std = 1 - e^2L: the process of ZeDO and GFPose (ZeDO Eq. 1).

    What ZeDO's Eq. 1 to 3 call a variance, sigma, is this standard deviation.
    """

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """e^L and 1 - e^2L; the plain difference is 1.2 % wrong at t = 1e-5 in float32."""
        log_signal = self.log_signal(t)
        return jnp.exp(log_signal), -jnp.expm1(2 * log_signal)

    def diffusion(self, t: ArrayLike) -> Array:
        """sqrt(beta (1 - e^4L))."""
        return jnp.sqrt(self.beta(t) * -jnp.expm1(4 * self.log_signal(t)))

    def step(self, t: ArrayLike) -> tuple[Array, Array]:
        """An Euler step of 1 / N: f / N and g / sqrt(N)."""
        return self.drift(t) / self.num_steps, self.diffusion(t) / math.sqrt(self.num_steps)


@dataclasses.dataclass(frozen=True)
class VE:
    """Variance exploding: std = sigma_min (sigma_max / sigma_min)^t, no drift.

    Attributes:
      sigma_min: std at t = 0.
      sigma_max: std at t = 1.
      num_steps: N.
      horizon: T.

    Raises:
      ValueError: Not 0 < sigma_min < sigma_max, N below 2, or T not in (0, 1].
    """

    sigma_min: float = 0.01
    sigma_max: float = 50.0
    num_steps: int = 1000
    horizon: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.sigma_min < self.sigma_max:
            raise ValueError(
                "sigma_min, sigma_max: expected 0 < sigma_min < sigma_max, "
                f"got {self.sigma_min} and {self.sigma_max}"
            )
        _check_grid(self.num_steps, self.horizon)

    @property
    def prior_std(self) -> float:
        """sigma_max."""
        return self.sigma_max

    def rates(self, t: ArrayLike) -> tuple[Array, Array]:
        """1 and sigma(t)."""
        sigma = self.sigma_min * (self.sigma_max / self.sigma_min) ** jnp.asarray(t)
        return jnp.ones_like(sigma), sigma

    def drift(self, t: ArrayLike) -> Array:
        """0."""
        return jnp.zeros_like(self.rates(t)[1])

    def diffusion(self, t: ArrayLike) -> Array:
        """Sigma sqrt(2 ln(sigma_max / sigma_min))."""
        return self.rates(t)[1] * math.sqrt(2 * math.log(self.sigma_max / self.sigma_min))

    def step(self, t: ArrayLike) -> tuple[Array, Array]:
        """0 and sqrt(sigma_k^2 - sigma_{k-1}^2), with sigma_{-1} = 0, from a geometric table."""
        ends = math.log(self.sigma_min), math.log(self.sigma_max)
        sigma = np.exp(np.linspace(*ends, self.num_steps))
        table = np.sqrt(np.diff(sigma**2, prepend=0.0))
        G = _lookup(table, t, self.num_steps, self.horizon)
        return jnp.zeros_like(G), G


SDES: dict[str, type[VP] | type[VE]] = {"subvp": SubVP, "vp": VP, "ve": VE}


def perturb(sde: SDE, x0: Array, t: ArrayLike, noise: Array) -> Array:
    """Forward process: x_t = signal x_0 + noise rate * z.

    Args:
      sde: The process.
      x0: Clean state, `(..., *item)`.
      t: Times in [0, T], `(...)`.
      noise: Standard normals z, like `x0`.
    """
    signal, std = sde.rates(t)
    return spread_over(signal, x0) * x0 + spread_over(std, x0) * noise


def score_from_noise(sde: SDE, t: ArrayLike, eps: Array) -> Array:
    """Score = -eps / std(t): how a network that estimates noise tells grad log p_t(x)."""
    return -eps / spread_over(sde.rates(t)[1], eps)


def noise_from_score(sde: SDE, t: ArrayLike, score: Array) -> Array:
    """Eps = -std(t) score, the inverse of `score_from_noise`."""
    return -spread_over(sde.rates(t)[1], score) * score


def reverse_drift(
    sde: SDE, x: Array, t: ArrayLike, score: Array, *, score_factor: float = 1.0
) -> Array:
    """Drift of the reverse process, f x - score_factor g^2 score (Song et al. 2021, Eq. 6, 13).

    1.0 with noise g dw is the reverse SDE; 0.5 without noise is the probability-flow ODE, which
    has the same marginals. GFPose and ZeDO keep 1.0 and drop the noise: the mean path of the SDE,
    which they call probability flow.

    Args:
      sde: The process.
      x: State, `(..., *item)`.
      t: Times, `(...)`.
      score: grad log p_t(x), like `x`.
      score_factor: See above.
    """
    f, g = spread_over(sde.drift(t), x), spread_over(sde.diffusion(t), x)
    return f * x - score_factor * g**2 * score


def reverse_step(
    sde: SDE, x: Array, t: ArrayLike, score: Array, *, score_factor: float = 1.0
) -> Array:
    """What one discrete step backward subtracts from x: F x - score_factor G^2 score.

    Arguments as for `reverse_drift`.
    """
    F, G = (spread_over(rate, x) for rate in sde.step(t))
    return F * x - score_factor * G**2 * score


def prior_log_density(sde: SDE, x: Array, *, item_axes: int = 2) -> Array:
    """Log density of states under the prior, a Gaussian with std `sde.prior_std`.

    Args:
      sde: The process.
      x: States, `(..., *item)`.
      item_axes: Number of axes of one item; 2 for poses `(J, 3)`.

    Returns:
      `(...)`.

    Raises:
      ValueError: `x` has fewer axes.
    """
    if jnp.ndim(x) < item_axes or item_axes < 1:
        raise ValueError(
            f"item_axes: expected 1 to the number of axes of x {jnp.shape(x)}, got {item_axes}"
        )
    axes = tuple(range(-item_axes, 0))
    size = math.prod(jnp.shape(x)[-item_axes:])
    variance = sde.prior_std**2
    square = jnp.sum(x**2, axis=axes)
    return -0.5 * size * math.log(2 * math.pi * variance) - square / (2 * variance)


def spread_over(rate: Array, like: Array) -> Array:
    """Adds trailing axes to `rate` `(...)`, so that it meets the first axes of `(..., *item)`."""
    return jnp.reshape(rate, jnp.shape(rate) + (1,) * (jnp.ndim(like) - jnp.ndim(rate)))


def _lookup(table: np.ndarray, t: ArrayLike, num_steps: int, horizon: float) -> Array:
    """table[floor(t (N - 1) / T)], as the released code finds its step."""
    t = jnp.asarray(t)
    index = jnp.floor(t * (num_steps - 1) / horizon).astype(jnp.int32)
    return jnp.asarray(table, t.dtype)[jnp.clip(index, 0, num_steps - 1)]


def _check_grid(num_steps: int, horizon: float) -> None:
    if num_steps < 2:
        raise ValueError(f"num_steps: expected at least 2, got {num_steps}")
    if not 0 < horizon <= 1:
        raise ValueError(f"horizon: expected a value in (0, 1], got {horizon}")
