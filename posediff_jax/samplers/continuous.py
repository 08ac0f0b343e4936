"""Samplers of continuous diffusion: Euler-Maruyama, reverse diffusion, ancestral; one step each.

A step takes the score, or rather the noise estimate from which a process derives it, at one time;
`sample_sde` chains steps from the prior. The update x_mean is the noise-free one; x adds noise.
"""

import math
from typing import NamedTuple, Protocol

import jax
import jax.numpy as jnp

from posediff_jax.keys import check_key
from posediff_jax.process.sdes import (
    SDE,
    VP,
    SubVP,
    reverse_drift,
    reverse_step,
    score_from_noise,
    spread_over,
)
from posediff_jax.types import Array, PredictFn, SampleResult


class Step(NamedTuple):
    """One step backward: `x` with the noise it was given, `x_mean` without."""

    x: Array
    x_mean: Array


class StepFn(Protocol):
    """The update rule of one step."""

    def __call__(
        self,
        sde: SDE,
        x: Array,
        t: Array,
        score: Array,
        noise: Array | None,
        *,
        score_factor: float,
    ) -> Step:
        """Steps from time t; without `noise` x is x_mean."""
        ...


def euler_maruyama_step(
    sde: SDE,
    x: Array,
    t: Array,
    score: Array,
    noise: Array | None = None,
    *,
    score_factor: float = 1.0,
) -> Step:
    """x_mean = x - (f x - score_factor g^2 score) / N; x = x_mean + g sqrt(1 / N) z.

    The step is 1 / N whatever the spacing of the times it is called at.

    Args:
      sde: The process.
      x: State, `(..., *item)`.
      t: Times, `(...)`.
      score: grad log p_t(x), like `x`.
      noise: Standard normals z, like `x`; None adds none.
      score_factor: 1.0 or 0.5, see `reverse_drift`.
    """
    x_mean = x - reverse_drift(sde, x, t, score, score_factor=score_factor) / sde.num_steps
    return _noised(x_mean, noise, sde.diffusion(t) / math.sqrt(sde.num_steps))


def reverse_diffusion_step(
    sde: SDE,
    x: Array,
    t: Array,
    score: Array,
    noise: Array | None = None,
    *,
    score_factor: float = 1.0,
) -> Step:
    """x_mean = x - (F x - score_factor G^2 score); x = x_mean + G z (Song et al. 2021, Eq. 46).

    F and G are those of the process's own discrete step. Arguments as for `euler_maruyama_step`.
    """
    x_mean = x - reverse_step(sde, x, t, score, score_factor=score_factor)
    return _noised(x_mean, noise, sde.step(t)[1])


def ancestral_step(
    sde: SDE,
    x: Array,
    t: Array,
    score: Array,
    noise: Array | None = None,
    *,
    score_factor: float = 1.0,
) -> Step:
    """x_mean = (x + beta_k score) / sqrt(1 - beta_k); x = x_mean + sqrt(beta_k) z: DDPM's, for VP.

    Arguments as for `euler_maruyama_step`.

    Raises:
      ValueError: The process is not `VP`, or `score_factor` is not 1.
    """
    if not isinstance(sde, VP) or isinstance(sde, SubVP):
        raise ValueError(f"sde: ancestral steps are defined for VP, got {sde}")
    if score_factor != 1.0:
        raise ValueError(f"score_factor: ancestral steps have no other than 1, got {score_factor}")
    beta = sde.step_beta(t)
    wide = spread_over(beta, x)
    return _noised((x + wide * score) / jnp.sqrt(1 - wide), noise, jnp.sqrt(beta))


STEPS: dict[str, StepFn] = {
    "euler_maruyama": euler_maruyama_step,
    "reverse_diffusion": reverse_diffusion_step,
    "ancestral": ancestral_step,
}


def sample_sde(
    key: Array,
    predict: PredictFn,
    x_init: Array,
    *,
    sde: SDE,
    step: StepFn = euler_maruyama_step,
    eps: float = 1e-3,
    probability_flow: bool = False,
    score_factor: float | None = None,
    noise: Array | None = None,
    return_trajectory: bool = False,
) -> SampleResult:
    """Samples from the prior, by `sde.num_steps` steps on linspace(T, eps, N).

    The last step adds no noise, as everywhere in the papers' code ("noise removal").

    Args:
      key: Random key; unused where `noise` is given or the flow has none.
      predict: Bound denoiser at times in [0, T]; its `eps` counts.
      x_init: Start state, normal with std `sde.prior_std`, any shape.
      sde: The process.
      step: Update rule.
      eps: The last time, above 0.
      probability_flow: Add no noise.
      score_factor: Factor of the score; by default 1.0 with noise, the reverse SDE, and 0.5
        without, the ODE with the same marginals. GFPose's "probability flow" has 1.0.
      noise: Normals z to use in place of drawn ones, `(N, ...)`.
      return_trajectory: Also return the state after each step, `(N, ...)`.

    Returns:
      The final state, and the trajectory if asked for.

    Raises:
      ValueError: `eps` is not in (0, T), or `noise` does not match `x_init` and N.
      TypeError: As `check_key`.
    """
    if not 0 < eps < sde.horizon:
        raise ValueError(f"eps: expected a time between 0 and {sde.horizon} (T), got {eps}")
    expected = (sde.num_steps, *jnp.shape(x_init))
    if noise is not None and jnp.shape(noise) != expected:
        raise ValueError(f"noise: expected shape {expected} (steps first), got {jnp.shape(noise)}")
    if noise is None:
        check_key(key)
    factor = (0.5 if probability_flow else 1.0) if score_factor is None else score_factor

    def advance(state: Step, inputs: tuple) -> tuple[Step, Array | None]:
        t, z = inputs
        x = state.x
        if probability_flow:
            z = None
        elif noise is None:
            z = jax.random.normal(z, x.shape, x.dtype)
        score = score_from_noise(sde, t, predict(x, t).eps)
        new = step(sde, x, t, score, z, score_factor=factor)
        new = Step(new.x.astype(x.dtype), new.x_mean.astype(x.dtype))
        return new, (new.x if return_trajectory else None)

    times = jnp.linspace(sde.horizon, eps, sde.num_steps, dtype=x_init.dtype)
    randomness = jax.random.split(key, sde.num_steps) if noise is None else noise
    end, trajectory = jax.lax.scan(advance, Step(x_init, x_init), (times, randomness))
    return SampleResult(samples=end.x_mean, trajectory=trajectory)


def _noised(x_mean: Array, noise: Array | None, scale: Array) -> Step:
    if noise is None:
        return Step(x_mean, x_mean)
    return Step(x_mean + spread_over(scale, x_mean) * noise, x_mean)
