"""Discrete diffusion: noise schedules, forward process, posterior, and all conversions.

Timesteps are 0-based: index t here is the papers' t + 1. Tables are built on the host in float64
and cast last. The conversions between x0, eps, score and v stand in this file and nowhere else.
"""

from collections.abc import Callable

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from posediff_jax.types import Array, Prediction, PyTree


@flax.struct.dataclass
class Schedule:
    """The tables of a discrete diffusion process, each `(T,)`.

    Attributes:
      betas: Variance added at each step.
      alphas_cumprod: abar_t, the share of signal variance left after step t.
      alphas_cumprod_prev: abar_{t-1}, with 1 at t = 0.
      sqrt_alphas_cumprod: sqrt(abar_t).
      sqrt_one_minus_alphas_cumprod: sqrt(1 - abar_t).
      log_one_minus_alphas_cumprod: log(1 - abar_t).
      sqrt_recip_alphas_cumprod: sqrt(1 / abar_t).
      sqrt_recipm1_alphas_cumprod: sqrt(1 / abar_t - 1).
      posterior_variance: Variance of q(x_{t-1} | x_t, x_0).
      posterior_log_variance_clipped: Its logarithm, with variances below 1e-20 lifted to 1e-20.
      posterior_mean_coef1: Weight of x_0 in the posterior mean.
      posterior_mean_coef2: Weight of x_t in the posterior mean.
    """

    betas: NDArray
    alphas_cumprod: NDArray
    alphas_cumprod_prev: NDArray
    sqrt_alphas_cumprod: NDArray
    sqrt_one_minus_alphas_cumprod: NDArray
    log_one_minus_alphas_cumprod: NDArray
    sqrt_recip_alphas_cumprod: NDArray
    sqrt_recipm1_alphas_cumprod: NDArray
    posterior_variance: NDArray
    posterior_log_variance_clipped: NDArray
    posterior_mean_coef1: NDArray
    posterior_mean_coef2: NDArray

    @property
    def num_timesteps(self) -> int:
        """T."""
        return self.betas.shape[0]

    def rates(self, t: Array) -> tuple[Array, Array]:
        """Signal and noise rate at timesteps t: sqrt(abar_t) and sqrt(1 - abar_t), like `t`."""
        signal, noise = self.sqrt_alphas_cumprod, self.sqrt_one_minus_alphas_cumprod
        return jnp.asarray(signal)[t], jnp.asarray(noise)[t]

    def astype(self, dtype: DTypeLike) -> "Schedule":
        """The same tables in another float type (widening keeps the rounded values)."""
        return jax.tree.map(lambda table: table.astype(dtype), self)


def schedule_from_betas(betas: ArrayLike, *, dtype: DTypeLike = np.float32) -> Schedule:
    """Derives all tables from the variances beta_t.

    Args:
      betas: `(T,)` variances, each in (0, 1).
      dtype: Type of the stored tables; the arithmetic is float64.

    Raises:
      ValueError: `betas` is not one-dimensional, is empty, or leaves (0, 1).
    """
    b = np.asarray(betas, np.float64)
    if b.ndim != 1 or b.size == 0:
        raise ValueError(f"betas: expected shape (T,) with T >= 1, got {b.shape}")
    # Written so that a NaN fails too.
    bad = np.flatnonzero(~((b > 0) & (b < 1)))
    if bad.size:
        raise ValueError(f"betas: expected values in (0, 1), got {b[bad[0]]} at t = {bad[0]}")
    abar = np.cumprod(1 - b)
    prev = np.append(1.0, abar[:-1])
    variance = b * (1 - prev) / (1 - abar)
    tables = (
        *(b, abar, prev, np.sqrt(abar), np.sqrt(1 - abar), np.log(1 - abar)),
        *(np.sqrt(1 / abar), np.sqrt(1 / abar - 1)),
        *(variance, np.log(np.maximum(variance, 1e-20))),
        b * np.sqrt(prev) / (1 - abar),
        (1 - prev) * np.sqrt(1 - b) / (1 - abar),
    )
    return Schedule(*(table.astype(dtype) for table in tables))


def cosine_schedule(
    num_timesteps: int,
    *,
    offset: float = 0.008,
    max_beta: float = 0.999,
    dtype: DTypeLike = np.float32,
) -> Schedule:
    """The cosine schedule of Nichol and Dhariwal (2021), DiffuPose's default.

    abar_t = g(t + 1) / g(0), g(i) = cos^2((i / T + s) / (1 + s) * pi / 2); beta_t is clipped to
    [0, 0.999] and abar is the product of the clipped values, so the clip at the last step matters.

    Args:
      num_timesteps: T.
      offset: s.
      max_beta: Upper end of the clip; DiffHPE has 0.5.
      dtype: Type of the stored tables.

    Raises:
      ValueError: `num_timesteps` is below 1, or `max_beta` outside (0, 1).
    """
    _check_num_timesteps(num_timesteps)
    if not 0 < max_beta < 1:
        raise ValueError(f"max_beta: expected a value in (0, 1), got {max_beta}")
    i = np.arange(num_timesteps + 1, dtype=np.float64)
    g = np.cos((i / num_timesteps + offset) / (1 + offset) * np.pi / 2) ** 2
    abar = g / g[0]
    return schedule_from_betas(np.clip(1 - abar[1:] / abar[:-1], 0, max_beta), dtype=dtype)


def linear_schedule(num_timesteps: int, *, dtype: DTypeLike = np.float32) -> Schedule:
    """DDPM's linear schedule, 1e-4 to 0.02 over 1000 steps, rescaled to T steps.

    beta runs from 0.1 / T to 20 / T (Ho et al. 2020; the v1 paper's ablation uses T = 100).

    Raises:
      ValueError: T <= 20, where the last beta reaches 1.
    """
    _check_num_timesteps(num_timesteps)
    if num_timesteps <= 20:
        raise ValueError(
            "num_timesteps: the linear schedule ends at beta = 20 / T, which must stay below 1, "
            f"so expected T > 20, got {num_timesteps}; use the cosine schedule for few steps"
        )
    return schedule_from_betas(
        np.linspace(0.1 / num_timesteps, 20 / num_timesteps, num_timesteps), dtype=dtype
    )


def power_schedule(
    num_timesteps: int,
    *,
    beta_start: float,
    beta_end: float,
    power: int = 1,
    dtype: DTypeLike = np.float32,
) -> Schedule:
    """Variances whose root of order `power` rises linearly; DiffHPE's "linear" (1) and "quad" (2).

    Args:
      num_timesteps: T.
      beta_start: First variance.
      beta_end: Last variance.
      power: Order of the root.
      dtype: Type of the stored tables.

    Raises:
      ValueError: `num_timesteps` is below 1, or a variance outside (0, 1).
    """
    _check_num_timesteps(num_timesteps)
    for name, beta in (("beta_start", beta_start), ("beta_end", beta_end)):
        if not 0 < beta < 1:
            raise ValueError(f"{name}: expected a value in (0, 1), got {beta}")
    start, end = beta_start ** (1 / power), beta_end ** (1 / power)
    return schedule_from_betas(np.linspace(start, end, num_timesteps) ** power, dtype=dtype)


def make_schedule(name: str, num_timesteps: int, *, dtype: DTypeLike = np.float32) -> Schedule:
    """Builds a schedule by its name in a config, "cosine" or "linear".

    Raises:
      ValueError: Unknown name, or a T that the schedule does not allow.
    """
    builders: dict[str, Callable[..., Schedule]] = {
        "cosine": cosine_schedule,
        "linear": linear_schedule,
    }
    if name not in builders:
        raise ValueError(f"schedule: expected one of {sorted(builders)}, got {name!r}")
    return builders[name](num_timesteps, dtype=dtype)


def q_sample(schedule: Schedule, x0: PyTree, t: Array, noise: PyTree) -> PyTree:
    """Forward process: x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps (DiffuPose Eq. 2).

    Args:
      schedule: Tables.
      x0: Clean state; a pytree of `(..., *item)` arrays.
      t: Timesteps, `(...)`; broadcast over each leaf's trailing axes.
      noise: Standard normals, like `x0`.
    """
    return jax.tree.map(
        lambda x, e: (
            _at(schedule.sqrt_alphas_cumprod, t, x) * x
            + _at(schedule.sqrt_one_minus_alphas_cumprod, t, x) * e
        ),
        x0,
        noise,
    )


def x0_from_eps(schedule: Schedule, x_t: PyTree, t: Array, eps: PyTree) -> PyTree:
    """x_0 = sqrt(1 / abar_t) x_t - sqrt(1 / abar_t - 1) eps."""
    return jax.tree.map(
        lambda x, e: (
            _at(schedule.sqrt_recip_alphas_cumprod, t, x) * x
            - _at(schedule.sqrt_recipm1_alphas_cumprod, t, x) * e
        ),
        x_t,
        eps,
    )


def eps_from_x0(schedule: Schedule, x_t: PyTree, t: Array, x0: PyTree) -> PyTree:
    """Eps = (sqrt(1 / abar_t) x_t - x_0) / sqrt(1 / abar_t - 1), the inverse of `x0_from_eps`."""
    return jax.tree.map(
        lambda x, c: (
            (_at(schedule.sqrt_recip_alphas_cumprod, t, x) * x - c)
            / _at(schedule.sqrt_recipm1_alphas_cumprod, t, x)
        ),
        x_t,
        x0,
    )


def eps_from_score(schedule: Schedule, t: Array, score: PyTree) -> PyTree:
    """Eps = -sqrt(1 - abar_t) * score, with score = grad log q_t(x_t)."""
    return jax.tree.map(lambda s: -_at(schedule.sqrt_one_minus_alphas_cumprod, t, s) * s, score)


def score_from_eps(schedule: Schedule, t: Array, eps: PyTree) -> PyTree:
    """Score = -eps / sqrt(1 - abar_t), the inverse of `eps_from_score`."""
    return jax.tree.map(lambda e: -e / _at(schedule.sqrt_one_minus_alphas_cumprod, t, e), eps)


def v_from_x0_eps(schedule: Schedule, t: Array, x0: PyTree, eps: PyTree) -> PyTree:
    """V = sqrt(abar_t) eps - sqrt(1 - abar_t) x_0 (Salimans and Ho 2022)."""
    return jax.tree.map(
        lambda c, e: (
            _at(schedule.sqrt_alphas_cumprod, t, e) * e
            - _at(schedule.sqrt_one_minus_alphas_cumprod, t, c) * c
        ),
        x0,
        eps,
    )


def prediction_from_v(schedule: Schedule, x_t: PyTree, t: Array, v: PyTree) -> Prediction:
    """x_0 = sqrt(abar_t) x_t - sqrt(1 - abar_t) v; eps = sqrt(abar_t) v + sqrt(1 - abar_t) x_t."""

    def combine(sign: float, a: PyTree, b: PyTree) -> PyTree:
        return jax.tree.map(
            lambda p, q: (
                _at(schedule.sqrt_alphas_cumprod, t, p) * p
                + sign * _at(schedule.sqrt_one_minus_alphas_cumprod, t, q) * q
            ),
            a,
            b,
        )

    return Prediction(x0=combine(-1.0, x_t, v), eps=combine(1.0, v, x_t))


def prediction_from_eps(
    schedule: Schedule, x_t: PyTree, t: Array, eps: PyTree, *, clip: float | None = None
) -> Prediction:
    """Completes a noise estimate with its x_0, clipped to [-clip, clip] where `clip` is given.

    `eps` is passed on as estimated; whether a sampler derives it anew from the clipped x_0 is the
    sampler's own option (`rederive`).
    """
    x0 = x0_from_eps(schedule, x_t, t, eps)
    if clip is not None:
        x0 = jax.tree.map(lambda c: jnp.clip(c, -clip, clip), x0)
    return Prediction(x0=x0, eps=eps)


def posterior_mean(schedule: Schedule, x0: PyTree, x_t: PyTree, t: Array) -> PyTree:
    """Mean of q(x_{t-1} | x_t, x_0): c1_t x_0 + c2_t x_t (DiffuPose v1 Eq. 3; v2 misprints c2)."""
    return jax.tree.map(
        lambda c, x: (
            _at(schedule.posterior_mean_coef1, t, c) * c
            + _at(schedule.posterior_mean_coef2, t, x) * x
        ),
        x0,
        x_t,
    )


def _at(table: NDArray, t: Array, like: Array) -> Array:
    """Reads `table[t]` with trailing axes added, so that it broadcasts against `like`."""
    values = jnp.asarray(table)[t]
    return values.reshape(values.shape + (1,) * (jnp.ndim(like) - values.ndim))


def _check_num_timesteps(num_timesteps: int) -> None:
    if num_timesteps != int(num_timesteps) or num_timesteps < 1:
        raise ValueError(f"num_timesteps: expected at least 1, got {num_timesteps}")
