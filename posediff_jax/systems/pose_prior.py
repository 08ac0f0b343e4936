"""The pose priors of ZeDO: score matching in continuous time, and DDPM's discrete steps (Table 5).

A prior says what a network is trained on, how it takes part in ZeDO's loop, and how poses are
drawn from it. All networks here estimate the noise z of x_t = signal x_0 + noise rate * z.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp

from posediff_jax.config import read_options
from posediff_jax.denoisers.score_mlp import LABEL_SCALE
from posediff_jax.process.schedules import (
    Schedule,
    linear_schedule,
    prediction_from_eps,
    q_sample,
)
from posediff_jax.process.sdes import SDE, VP, SubVP, perturb
from posediff_jax.samplers.continuous import sample_sde
from posediff_jax.samplers.discrete import sample_ddim, sample_ddpm
from posediff_jax.samplers.zero_shot import LoopSteps, discrete_steps, score_steps
from posediff_jax.systems.score_prior import (
    Reduction,
    Weighting,
    draw_time,
    score_matching_loss,
)
from posediff_jax.types import Array, Prediction

EstimateNoise = Callable[[Array, Array], Array]

PROCESSES = ("subvp", "vp", "ddpm", "ddim")


@dataclasses.dataclass(frozen=True)
class ProcessOptions:
    """The section `process` of a config.

    Attributes:
      name: "subvp" (as released) or "vp": a score network in continuous time. "ddpm" or "ddim": a
        network over the discrete steps of DDPM's linear schedule, with the steps of that sampler
        in the loop; both are trained alike.
      beta_min: beta(0) of the continuous processes.
      beta_max: beta(1).
      num_steps: Steps of the discretisation, or T of the discrete process.
    """

    name: str = "subvp"
    beta_min: float = 0.1
    beta_max: float = 20.0
    num_steps: int = 1000


@dataclasses.dataclass(frozen=True)
class LossOptions:
    """The section `loss` of a config.

    Attributes:
      reduction: "half_sum" over J * 3 as released, or "mean".
      weighting: "sigma2" or "likelihood", see `score_matching_loss`.
      time_eps: Smallest training time of the continuous processes.
      flip_prob: Chance that a pose is mirrored in training.
      rotation_prob: Chance that it is turned by a uniform rotation.
      upright_prob: Chance that it is seen by another upright camera (`turn_upright`), for poses
        that level cameras see; 0 as published.
      tilt_degrees: Least and greatest pitch of that camera.
      proportion_spread: Of bodies (`vary_proportions`); 0 for those of the data, as published.
    """

    reduction: Reduction = "half_sum"
    weighting: Weighting = "sigma2"
    time_eps: float = 1e-5
    flip_prob: float = 0.5
    rotation_prob: float = 0.5
    upright_prob: float = 0.0
    tilt_degrees: tuple[float, float] = (-10.0, 30.0)
    proportion_spread: float = 0.0

    def __post_init__(self) -> None:
        for name in ("flip_prob", "rotation_prob", "upright_prob"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(
                    f"loss.{name}: expected a chance in [0, 1], got {getattr(self, name)}"
                )
        if not 0 <= self.proportion_spread < 1:
            raise ValueError(
                f"loss.proportion_spread: expected a share in [0, 1), got {self.proportion_spread}"
            )
        if len(self.tilt_degrees) != 2 or not -90 <= self.tilt_degrees[0] <= self.tilt_degrees[1]:
            raise ValueError(f"loss.tilt_degrees: expected low <= high, got {self.tilt_degrees}")
        if not 0 < self.time_eps < 1:
            raise ValueError(f"loss.time_eps: expected a time in (0, 1), got {self.time_eps}")


class PosePrior(Protocol):
    """What training, the loop and generation ask of a prior; times are the prior's own."""

    def draw(self, key: Array, pose: Array) -> tuple[Array, Array, Array]:
        """A training time, the noisy pose and its noise, for one pose `(J, 3)`."""
        ...

    def loss(self, t: Array, eps: Array, noise: Array) -> Array:
        """The loss of each pose: `(...)` and `(..., J, 3)` to `(...)`."""
        ...

    def times(self, t_range: tuple[float, float], count: int) -> Array:
        """Times spread evenly between two shares of the process, `(count,)`."""
        ...

    def perturb(self, pose: Array, t: Array, noise: Array) -> Array:
        """The forward process."""
        ...

    def label(self, t: Array) -> Array:
        """What the network is told of a time."""
        ...

    def loop_steps(
        self,
        *,
        num_iterations: int,
        t_range: tuple[float, float],
        rescale_dt: bool,
        score_factor: float,
    ) -> LoopSteps:
        """The denoising of each iteration of ZeDO's loop."""
        ...

    def generate(self, key: Array, estimate_noise: EstimateNoise, shape: tuple[int, ...]) -> Array:
        """Draws poses of a shape, with `estimate_noise(x, label)` the network."""
        ...


@dataclasses.dataclass(frozen=True)
class ScorePrior:
    """Denoising score matching (ZeDO Eq. 1 to 3); a network is told 999 t.

    Attributes:
      sde: The process.
      time_eps: Smallest training time.
      weighting: See `score_matching_loss`.
      reduction: Likewise.
    """

    sde: SDE
    time_eps: float = 1e-5
    weighting: Weighting = "sigma2"
    reduction: Reduction = "half_sum"

    def draw(self, key: Array, pose: Array) -> tuple[Array, Array, Array]:
        """Time uniform in [time_eps, T]; see `PosePrior.draw`."""
        time_key, noise_key = jax.random.split(key)
        t = draw_time(time_key, self.sde, eps=self.time_eps)
        noise = jax.random.normal(noise_key, pose.shape, pose.dtype)
        return t, self.perturb(pose, t, noise), noise

    def times(self, t_range: tuple[float, float], count: int) -> Array:
        """See `PosePrior.times`."""
        return self.sde.horizon * jnp.linspace(*t_range, count)

    def perturb(self, pose: Array, t: Array, noise: Array) -> Array:
        """See `process.sdes.perturb`."""
        return perturb(self.sde, pose, t, noise)

    def loss(self, t: Array, eps: Array, noise: Array) -> Array:
        """See `score_matching_loss`."""
        return score_matching_loss(
            self.sde, t, eps, noise, weighting=self.weighting, reduction=self.reduction
        )

    def label(self, t: Array) -> Array:
        """999 t."""
        return LABEL_SCALE * t

    def loop_steps(
        self,
        *,
        num_iterations: int,
        t_range: tuple[float, float],
        rescale_dt: bool,
        score_factor: float,
    ) -> LoopSteps:
        """See `score_steps`."""
        return score_steps(
            self.sde,
            num_iterations=num_iterations,
            t_range=t_range,
            rescale_dt=rescale_dt,
            score_factor=score_factor,
        )

    def generate(self, key: Array, estimate_noise: EstimateNoise, shape: tuple[int, ...]) -> Array:
        """By `sample_sde`: all Euler-Maruyama steps of the process, from T to 1e-3."""
        start_key, noise_key = jax.random.split(key)

        def predict(x_t: Array, t: Array) -> Prediction:
            return Prediction(x0=None, eps=estimate_noise(x_t, self.label(t)))

        x_init = self.sde.prior_std * jax.random.normal(start_key, shape)
        return sample_sde(noise_key, predict, x_init, sde=self.sde).samples


@dataclasses.dataclass(frozen=True)
class DiscretePrior:
    """Noise prediction over T discrete steps; a network is told the 0-based step.

    No code was released for these backbones of Table 5: their loss is the library's
    `get_ddpm_loss`, and the steps of the loop are this package's convention, see `discrete_steps`.

    Attributes:
      schedule: Tables of the process.
      eta: 1 for DDPM, 0 for DDIM.
      reduction: "half_sum" or "mean" over J * 3.
    """

    schedule: Schedule
    eta: float
    reduction: Reduction = "half_sum"

    def draw(self, key: Array, pose: Array) -> tuple[Array, Array, Array]:
        """Step uniform in 0 .. T - 1; see `PosePrior.draw`."""
        step_key, noise_key = jax.random.split(key)
        k = jax.random.randint(step_key, (), 0, self.schedule.num_timesteps)
        noise = jax.random.normal(noise_key, pose.shape, pose.dtype)
        return k, self.perturb(pose, k, noise), noise

    def times(self, t_range: tuple[float, float], count: int) -> Array:
        """See `PosePrior.times`."""
        last = self.schedule.num_timesteps - 1
        return jnp.round(last * jnp.linspace(*t_range, count)).astype(jnp.int32)

    def perturb(self, pose: Array, t: Array, noise: Array) -> Array:
        """See `q_sample`."""
        return q_sample(self.schedule, pose, t, noise)

    def loss(self, t: Array, eps: Array, noise: Array) -> Array:
        """|z - eps|^2, summed or averaged as `reduction` says."""
        # The weight of a time that "sigma2" stands for is 1, whatever the process.
        return score_matching_loss(SubVP(), t, eps, noise, reduction=self.reduction)

    def label(self, t: Array) -> Array:
        """The step, as a float."""
        return t.astype(jnp.result_type(float))

    def loop_steps(
        self,
        *,
        num_iterations: int,
        t_range: tuple[float, float],
        rescale_dt: bool,
        score_factor: float,
    ) -> LoopSteps:
        """See `discrete_steps`; `t_range[0]` is the share, the other options have no meaning."""
        del rescale_dt, score_factor
        return discrete_steps(
            self.schedule, num_iterations=num_iterations, share=t_range[0], eta=self.eta
        )

    def generate(self, key: Array, estimate_noise: EstimateNoise, shape: tuple[int, ...]) -> Array:
        """By all steps of the sampler that the prior is named after."""
        start_key, noise_key = jax.random.split(key)

        def predict(x_t: Array, t: Array) -> Prediction:
            return prediction_from_eps(self.schedule, x_t, t, estimate_noise(x_t, self.label(t)))

        x_init = jax.random.normal(start_key, shape)
        if self.eta:
            return sample_ddpm(noise_key, predict, x_init, schedule=self.schedule).samples
        return sample_ddim(
            noise_key,
            predict,
            x_init,
            schedule=self.schedule,
            num_steps=self.schedule.num_timesteps,
        ).samples


def make_prior(process: Mapping[str, Any], loss: LossOptions) -> PosePrior:
    """The prior that a config describes.

    Args:
      process: Fields of `ProcessOptions`.
      loss: How it is trained.

    Raises:
      ValueError: Unknown field or process, a value that the process refuses, or the weighting
        "likelihood" for a discrete process.
      TypeError: A value of the wrong type.
    """
    options = read_options(ProcessOptions, process, where="process")
    if options.name not in PROCESSES:
        raise ValueError(f"process.name: expected one of {PROCESSES}, got {options.name!r}")
    reduction: Any = loss.reduction
    weighting: Any = loss.weighting
    if options.name in ("ddpm", "ddim"):
        if weighting != "sigma2":
            raise ValueError(
                f"loss.weighting: {weighting!r} is defined for 'subvp' and 'vp', "
                f"got process.name {options.name!r}"
            )
        schedule = linear_schedule(options.num_steps)
        return DiscretePrior(schedule, eta=float(options.name == "ddpm"), reduction=reduction)
    sde_of = {"subvp": SubVP, "vp": VP}[options.name]
    sde = sde_of(options.beta_min, options.beta_max, options.num_steps)
    return ScorePrior(sde, loss.time_eps, weighting, reduction)
