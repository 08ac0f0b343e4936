"""ZeDO's optimiser in the loop: poses between a prior and their rays (after `initial_fit`).

A scan over a whole batch, pure and without randomness unless asked for; hypotheses are a batch
axis like any other. Items do not see each other: one that cannot be solved becomes NaN and leaves
the rest as it is.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.camera import fit_translation
from posediff_jax.geometry import check_pose_pair
from posediff_jax.keys import check_key
from posediff_jax.process.schedules import Schedule
from posediff_jax.process.sdes import SDE, SubVP
from posediff_jax.samplers.ray_geometry import (
    clamp_confidence,
    face_forward,
    snap_to_rays,
    unit_rays,
)
from posediff_jax.types import Array, PyTree


class LoopSteps(NamedTuple):
    """The denoising of each iteration, x' = state x - estimate eps + noise z; leaves `(N,)`.

    Attributes:
      time: What the noise estimator is told.
      state: Factor of the pose.
      estimate: Factor of the estimated noise.
      noise: Factor of fresh noise, which ZeDO leaves out.
    """

    time: Array
    state: Array
    estimate: Array
    noise: Array


class Optimised(NamedTuple):
    """What `optimise_poses` returns, and with `return_trajectory` each iteration as `(N, ...)`.

    Attributes:
      pose: `(..., J, 3)`, metres. Not re-rooted: joint 0 drifts a little from the origin.
      translation: T of the last iteration, `(..., 3)`, metres.
      projected: The pose on its rays, before it was denoised; None but in a trajectory.
      trajectory: The states on the way; None unless asked for.
    """

    pose: Array
    translation: Array
    projected: Array | None = None
    trajectory: Any = None


def score_steps(
    sde: SDE | None = None,
    *,
    num_iterations: int = 1000,
    t_range: tuple[float, float] = (0.1, 0.01),
    rescale_dt: bool = False,
    score_factor: float = 1.0,
) -> LoopSteps:
    """One Euler step of the reverse SDE at each of linspace(*t_range, N), ZeDO's denoising.

    state = 1 - f / n and estimate = score_factor g^2 / (n std), n the steps of the process. The
    paper draws t uniformly; the released code lets it descend.

    Args:
      sde: The process; None means `SubVP()`, as released.
      num_iterations: N.
      t_range: First and last time.
      rescale_dt: Steps of 1 / N in place of 1 / n: fewer iterations, the same denoising in all.
        Without it N = 100 denoises a tenth as much as N = n = 1000.
      score_factor: 1.0 as released, see `reverse_drift`.

    Raises:
      ValueError: N or the times are out of range.
    """
    sde = SubVP() if sde is None else sde
    if num_iterations < 1:
        raise ValueError(f"num_iterations: expected at least 1, got {num_iterations}")
    if not all(0 < t <= 1 for t in t_range):
        raise ValueError(f"t_range: expected two times in (0, 1], got {t_range}")
    dt = 1 / (num_iterations if rescale_dt else sde.num_steps)
    t = jnp.linspace(*t_range, num_iterations)
    g = sde.diffusion(t)
    return LoopSteps(
        time=t,
        state=1 - sde.drift(t) * dt,
        estimate=score_factor * g**2 * dt / sde.rates(t)[1],
        noise=g * dt**0.5,
    )


def discrete_steps(
    schedule: Schedule, *, num_iterations: int = 1000, share: float = 0.1, eta: float = 0.0
) -> LoopSteps:
    """One DDIM (eta 0) or DDPM (eta 1) step k -> k - 1 for each of N steps in the lowest `share`.

    For the noise-predicting priors of ZeDO's Table 5, for which no code was released: the grid,
    evenly spaced from the top of the lowest share to step 1, is this package's convention. An
    estimator is told the index k.

    Args:
      schedule: Tables of the process.
      num_iterations: N.
      share: Of the T steps.
      eta: Share of DDPM's variance; its noise is added only where the loop adds noise.

    Raises:
      ValueError: N, `share` or `eta` out of range, or no step in the share.
    """
    if num_iterations < 1:
        raise ValueError(f"num_iterations: expected at least 1, got {num_iterations}")
    top = round(share * schedule.num_timesteps) - 1 if 0 < share <= 1 else 0
    if top < 1:
        raise ValueError(
            f"share: expected at most 1 and at least two of {schedule.num_timesteps} steps, "
            f"got {share}"
        )
    if not 0 <= eta <= 1:
        raise ValueError(f"eta: expected a value in [0, 1], got {eta}")
    k = np.round(np.linspace(top, 1, num_iterations)).astype(np.int32)
    now, after = (np.asarray(schedule.alphas_cumprod, np.float64)[i] for i in (k, k - 1))
    sigma = eta * np.sqrt((1 - after) / (1 - now) * (1 - now / after))
    ratio = np.sqrt(after / now)
    estimate = ratio * np.sqrt(1 - now) - np.sqrt(1 - after - sigma**2)
    tables = (jnp.asarray(table, jnp.result_type(float)) for table in (ratio, estimate, sigma))
    return LoopSteps(jnp.asarray(k), *tables)


def optimise_poses(
    estimate_noise: Callable[[Array, PyTree], Array],
    pose: Array,
    translation: Array,
    camera_rays: Array,
    *,
    steps: LoopSteps,
    features: PyTree = None,
    confidence: Array | None = None,
    warmup: int | None = None,
    noise: Array | None = None,
    noise_key: Array | None = None,
    resize: Callable[[Array], Array] | None = None,
    return_trajectory: bool = False,
) -> Optimised:
    """Optimises poses under a prior and their rays (ZeDO, Algorithm 1).

    Each iteration solves the translation from the pose (`solve_translation`; the given one during
    warm-up), puts every joint on its ray, and takes one denoising step.

    Args:
      estimate_noise: `(x, feature) -> eps`, the noise in poses `(..., J, 3)`; weights are bound.
      pose: Start, `(..., J, 3)`, metres, such as from `fit_initial_pose`.
      translation: Start, `(..., 3)`, metres.
      camera_rays: From `camera.rays`, `(..., J, 3)`; broadcasts against `pose`, so hypotheses
        `(B, H, J, 3)` meet `(B, 1, J, 3)`.
      steps: From `score_steps` or `discrete_steps`.
      features: What the estimator gets at each iteration, a pytree of `(N, ...)`, computed once
        ahead of the loop (`ScoreMLP.embed_time`); None means `steps.time`.
      confidence: Weighs the joints in the translation, `(..., J)`; a joint of confidence 0 is
        missing and moves by the prior alone, like one without a ray.
      warmup: Iterations with the given translation; None means N // 5, 200 of 1000 as published.
      noise: Normals z, `(N, *pose.shape)`, for the noisy variant.
      noise_key: Draws them in place of `noise`; without both nothing is random.
      resize: `poses (..., J, 3) -> factors (...)`, by which poses on their rays and translations
        are multiplied in each iteration: they stay on the rays, for a picture does not tell size.
        None leaves size to the prior, which at these times hardly sees it, as published.
      return_trajectory: Also return each iteration.

    Returns:
      Poses and translations; NaN for an item with fewer than two seen joints or whose rays all
      coincide. A joint whose ray is not finite moves by the prior alone.

    Raises:
      ValueError: Shapes do not fit, `warmup` is negative, or both `noise` and `noise_key` given.
      TypeError: As `check_key`.
    """
    num_iterations = steps.time.shape[0]
    warmup = num_iterations // 5 if warmup is None else warmup
    _check_loop(pose, translation, camera_rays, confidence, warmup, num_iterations)
    _check_loop_noise(noise, noise_key, (num_iterations, *jnp.shape(pose)))
    seen = jnp.all(jnp.isfinite(camera_rays), axis=-1)
    if confidence is not None:
        seen = seen & (confidence > 0)
    u = jnp.where(seen[..., None], camera_rays, jnp.array([0.0, 0.0, 1.0], camera_rays.dtype))
    directions = unit_rays(u)
    solve, solvable = _translation_solver(u, pose, seen, confidence)

    def iterate(state: tuple[Array, Array], inputs: tuple) -> tuple[tuple[Array, Array], Any]:
        x, T = state
        step, is_warm, feature, z = inputs
        T = jnp.where(is_warm, T, solve(x))
        on_rays = jnp.where(seen[..., None], snap_to_rays(directions, x, T), x)
        if resize is not None:
            factor = resize(on_rays)[..., None]
            on_rays, T = factor[..., None] * on_rays, factor * T
        eps = estimate_noise(on_rays, feature)
        new = step.state * on_rays - step.estimate * eps
        if noise_key is not None:
            z = jax.random.normal(z, x.shape, x.dtype)
        if z is not None:
            new = new + step.noise * z
        new, T = new.astype(x.dtype), T.astype(translation.dtype)
        kept = Optimised(new, T, on_rays) if return_trajectory else None
        return (new, T), kept

    times = steps.time if features is None else features
    draws = noise if noise_key is None else jax.random.split(noise_key, num_iterations)
    xs = (steps, jnp.arange(num_iterations) < warmup, times, draws)
    (x, T), trajectory = jax.lax.scan(iterate, (pose, translation), xs)

    def known(points: Array, axes: int) -> Array:
        return jnp.where(solvable[(..., *(None,) * axes)], points, jnp.nan)

    if trajectory is not None:
        trajectory = Optimised(
            pose=known(trajectory.pose, 2),
            translation=known(trajectory.translation, 1),
            projected=known(trajectory.projected, 2),
        )
    return Optimised(pose=known(x, 2), translation=known(T, 1), trajectory=trajectory)


def _translation_solver(
    u: Array, pose: Array, seen: Array, confidence: Array | None
) -> tuple[Callable[[Array], Array], Array]:
    """The translation as a function of the pose, and which items have one."""
    weights = jnp.ones(seen.shape, u.dtype)
    if confidence is not None:
        weights = clamp_confidence(confidence) ** 4
    weights = jnp.where(seen, weights, 0.0)

    def fit(x: Array) -> Array:
        return fit_translation(u, x, weights=weights)

    # The fit is linear in the pose, so its linearisation is the fit itself, with all that depends
    # on rays and weights alone computed here, outside the loop.
    value, solve = jax.linearize(fit, pose)
    solvable = (jnp.sum(seen, axis=-1) >= 2) & jnp.isfinite(value[..., 2])
    return (lambda x: face_forward(solve(x))), solvable


def _check_loop(
    pose: Array,
    translation: Array,
    camera_rays: Array,
    confidence: Array | None,
    warmup: int,
    num_iterations: int,
) -> None:
    check_pose_pair(camera_rays, pose, names=("camera_rays", "pose"), weights=confidence)
    if jnp.shape(translation) != (*jnp.shape(pose)[:-2], 3):
        raise ValueError(
            f"translation: expected shape {(*jnp.shape(pose)[:-2], 3)}, one per pose, "
            f"got {jnp.shape(translation)}"
        )
    if warmup < 0:
        raise ValueError(f"warmup: expected 0 to {num_iterations} iterations, got {warmup}")


def _check_loop_noise(
    noise: Array | None, noise_key: Array | None, expected: tuple[int, ...]
) -> None:
    if noise is not None and noise_key is not None:
        raise ValueError("noise, noise_key: expected at most one of them, got both")
    if noise_key is not None:
        check_key(noise_key, name="noise_key")
    if noise is not None and jnp.shape(noise) != expected:
        raise ValueError(
            f"noise: expected shape {expected} (iterations first), got {jnp.shape(noise)}"
        )
