"""Samplers of discrete diffusion: ancestral DDPM and DDIM, one pure function per algorithm.

A sampler knows the update rule only. What the network predicts, how its estimate is clipped and
what it is conditioned on are bound in `predict` (see `posediff_jax.types.PredictFn`). The state is
any pytree, for one item or for a batch; callers vmap, pmap and jit. Instead of a vmap a caller may
pass a key per chain, `(P,)`, and a state whose leaves have a leading axis of chains: each chain
draws what it would draw alone, and the network sees all of them as one batch.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.keys import check_key
from posediff_jax.process.schedules import Schedule, eps_from_x0, posterior_mean
from posediff_jax.types import Array, PredictFn, Prediction, PyTree, SampleResult


def sample_ddpm(
    key: Array,
    predict: PredictFn,
    x_init: PyTree,
    *,
    schedule: Schedule,
    last_steps: int | None = None,
    noise: PyTree | None = None,
    return_trajectory: bool = False,
) -> SampleResult:
    """Ancestral sampling through all T steps (Ho et al. 2020, Algorithm 2; DiffuPose section III).

    x_{t-1} = c1_t x0_hat + c2_t x_t + [t > 0] sqrt(posterior variance) z

    Args:
      key: Random key, or one per chain; unused where `noise` is given.
      predict: Bound denoiser.
      x_init: Start state, standard normal; a pytree of arrays of any shape.
      schedule: Tables of the process.
      last_steps: K: only the last K steps, t = K - 1 to 0, from a state given as `x_init`.
      noise: Normals z to use in place of drawn ones, `(T, ...)` (or `(K, ...)`) per leaf in the
        order of the loop (first t = T - 1); the last is multiplied by zero.
      return_trajectory: Also return the state after each step, `(T, ...)` per leaf.

    Returns:
      The final state, and the trajectory if asked for.

    Raises:
      ValueError: `last_steps` out of range, or `noise` does not match `x_init` and T.
      TypeError: As `check_key`.
    """
    num_steps = _steps_left(schedule, last_steps)
    _check_noise(noise, x_init, num_steps)
    # Nothing is added at t = 0.
    scale = jnp.exp(0.5 * jnp.asarray(schedule.posterior_log_variance_clipped)).at[0].set(0)

    def step(x: PyTree, inputs: tuple) -> tuple[PyTree, PyTree]:
        t, sigma, z = inputs
        z = _draw(z, x) if noise is None else z
        mean = posterior_mean(schedule, predict(x, t).x0, x, t)
        x = _like(jax.tree.map(lambda m, n: m + sigma * n, mean, z), x)
        return x, (x if return_trajectory else None)

    times = np.arange(num_steps)[::-1].astype(np.int32)
    randomness = _step_keys(key, num_steps) if noise is None else noise
    xs = (jnp.asarray(times), scale[times], randomness)
    samples, trajectory = jax.lax.scan(step, x_init, xs)
    return SampleResult(samples=samples, trajectory=trajectory)


def sample_ddim(
    key: Array,
    predict: PredictFn,
    x_init: PyTree,
    *,
    schedule: Schedule,
    num_steps: int,
    eta: float = 0.0,
    rederive: bool = True,
    last_steps: int | None = None,
    noise: PyTree | None = None,
    return_trajectory: bool = False,
    record: Callable[[Prediction], PyTree] | None = None,
    last_record_like: PyTree | None = None,
) -> SampleResult:
    """DDIM over a sub-grid of the T steps (Song et al. 2021, Eq. 12 and 16).

    x' = sqrt(abar') x0_hat + sqrt(1 - abar' - sigma^2) eps_hat + sigma z, and x' = x0_hat at the
    end; sigma = eta sqrt((1 - abar') / (1 - abar)) sqrt(1 - abar / abar'). The grid is that of
    `ddim_times`. DiffuPose tabulates DDIM (Table VI) but released no code for it: grid, eta and
    `rederive` are this package's convention, not the authors'.

    Args:
      key: Random key, or one per chain; unused where `noise` is given or `eta` is 0.
      predict: Bound denoiser.
      x_init: Start state, standard normal; a pytree of arrays of any shape.
      schedule: Tables of the process.
      num_steps: Number of network calls, 1 to T.
      eta: 0 gives the deterministic sampler, 1 the variance of DDPM.
      rederive: Compute eps_hat from the (clipped) x0_hat, not from the network. Without clipping
        both are the same.
      last_steps: K: a sub-grid of the last K steps, from a state given as `x_init`.
      noise: Normals z to use in place of drawn ones, `(num_steps, ...)` per leaf.
      return_trajectory: Also return the state after each step, `(num_steps, ...)` per leaf.
      record: Reads off each prediction what to return as `records`, steps first.
      last_record_like: Arrays like a record: keep that of the last step alone, without the axis of
        steps.

    Returns:
      The final state, and the trajectory and records if asked for.

    Raises:
      ValueError: `num_steps`, `last_steps` or `eta` out of range, or `noise` does not match.
      TypeError: As `check_key`.
    """
    if not 0.0 <= eta <= 1.0:
        raise ValueError(f"eta: expected a value in [0, 1], got {eta}")
    times = ddim_times(_steps_left(schedule, last_steps), num_steps)
    _check_noise(noise, x_init, num_steps)
    signal, direction, sigma = _ddim_coefficients(schedule, times, eta)
    stochastic = eta > 0

    def step(carry: tuple[PyTree, PyTree], inputs: tuple) -> tuple[tuple, tuple]:
        x, _ = carry
        t, a, b, s, z = inputs
        prediction = predict(x, t)
        x0, eps = prediction[:2]
        if rederive:
            eps = eps_from_x0(schedule, x, t, x0)
        new = jax.tree.map(lambda c, e: a * c + b * e, x0, eps)
        if stochastic:
            z = _draw(z, x) if noise is None else z
            new = jax.tree.map(lambda n, e: n + s * e, new, z)
        new = _like(new, x)
        kept = None if record is None else record(prediction)
        last, every = (None, kept) if last_record_like is None else (kept, None)
        return (new, last), (new if return_trajectory else None, every)

    randomness = _step_keys(key, num_steps) if noise is None else noise
    xs = (jnp.asarray(times[:-1]), signal, direction, sigma, randomness)
    start = (x_init, last_record_like)
    (samples, last), (trajectory, every) = jax.lax.scan(step, start, xs)
    records = every if last is None else last
    return SampleResult(samples=samples, trajectory=trajectory, records=records)


def ddim_times(num_timesteps: int, num_steps: int) -> NDArray[np.int32]:
    """The S + 1 timesteps of a DDIM run, from T - 1 down to -1 (the clean end), evenly spaced.

    Raises:
      ValueError: `num_steps` is not in 1..T.

    >>> ddim_times(100, 5).tolist()
    [99, 79, 59, 39, 19, -1]
    """
    if not 1 <= num_steps <= num_timesteps:
        raise ValueError(f"num_steps: expected 1 to {num_timesteps} (T), got {num_steps}")
    return np.linspace(-1, num_timesteps - 1, num_steps + 1).astype(np.int32)[::-1].copy()


def _ddim_coefficients(
    schedule: Schedule, times: NDArray[np.int32], eta: float
) -> tuple[Array, Array, Array]:
    """Weights of x0, eps and z for each step; at the clean end, abar = 1, they are 1, 0, 0."""
    # On the host in float64: differences of numbers near 1. Index -1 is the clean end.
    abar = np.append(np.asarray(schedule.alphas_cumprod, np.float64), 1)
    now, after = abar[times[:-1]], abar[times[1:]]
    sigma = eta * np.sqrt((1 - after) / (1 - now) * (1 - now / after))
    direction = np.sqrt(np.maximum(1 - after - sigma**2, 0))
    signal, direction, sigma = (jnp.asarray(c) for c in (np.sqrt(after), direction, sigma))
    return signal, direction, sigma


def _steps_left(schedule: Schedule, last_steps: int | None) -> int:
    T = schedule.num_timesteps
    if last_steps is not None and not 1 <= last_steps <= T:
        raise ValueError(f"last_steps: expected 1 to {T} (T), got {last_steps}")
    return T if last_steps is None else last_steps


def _step_keys(key: Array, num_steps: int) -> Array:
    """Keys of the steps, `(N,)`, or `(N, P)` for a key per chain."""
    check_key(key)
    if key.ndim == 0:
        return jax.random.split(key, num_steps)
    return jax.vmap(lambda k: jax.random.split(k, num_steps), out_axes=1)(key)


def _draw(key: Array, like: PyTree) -> PyTree:
    """Standard normals shaped like the state, with a key of its own for each leaf."""
    if key.ndim:
        return jax.vmap(_draw)(key, like)
    leaves, structure = jax.tree.flatten(like)
    keys = jax.random.split(key, len(leaves))
    normals = [jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)]
    return jax.tree.unflatten(structure, normals)


def _like(x: PyTree, reference: PyTree) -> PyTree:
    """Gives the new state the old one's float type, which a scan's carry must keep."""
    return jax.tree.map(lambda a, r: a.astype(r.dtype), x, reference)


def _check_noise(noise: PyTree | None, x_init: PyTree, num_steps: int) -> None:
    if noise is None:
        return
    expected = jax.tree.map(lambda x: (num_steps, *jnp.shape(x)), x_init)
    found = jax.tree.map(jnp.shape, noise)
    if expected != found:
        raise ValueError(f"noise: expected shapes {expected} (steps first), got {found}")
