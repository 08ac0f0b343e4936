"""Stepping: joint-angle curves of walking, and of turning on the spot."""

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.kinematics import SIDES

Curves = dict[str, NDArray]


def walk(rng: np.random.Generator, times: NDArray) -> Curves:
    """Walking on a curved path, from slow to brisk, now and then stopping or going backwards.

    Args:
      rng: Draws the style.
      times: Seconds, `(F,)`.

    Returns:
      Degrees, each `(F,)`.
    """
    pace = rng.uniform(0.0, 1.0)
    cadence = 0.70 + 0.38 * pace + rng.normal(0.0, 0.03)
    if rng.random() < 0.1:
        cadence = -cadence
    effort = _effort(rng, times) if rng.random() < 0.3 else np.ones_like(times)
    yaw = rng.uniform(-180.0, 180.0) + np.cumsum(_wander(rng, times, 12.0)) * _step(times)
    curves = _steps(
        rng,
        _cycle(rng, times, cadence),
        effort,
        thigh=rng.uniform(14.0, 21.0) + 9.0 * pace,
        knee=rng.uniform(42.0, 55.0) + 8.0 * pace,
    )
    curves["root_yaw"] = curves["root_yaw"] + yaw
    return curves


def turn(rng: np.random.Generator, times: NDArray) -> Curves:
    """Turning on the spot in small steps, by 60 to 270 degrees, with rests; the head goes first.

    Args:
      rng: Draws the style.
      times: Seconds, `(F,)`.

    Returns:
      Degrees, each `(F,)`.
    """
    yaw, effort, lead = np.full_like(times, rng.uniform(-180.0, 180.0)), 0.0 * times, 0.0 * times
    clock = times[0] - rng.uniform(0.0, 1.5)
    while clock < times[-1]:
        angle = rng.uniform(60.0, 270.0) * rng.choice((-1.0, 1.0))
        duration = abs(angle) / rng.uniform(55.0, 110.0)
        yaw = yaw + angle * smooth_step((times - clock) / duration)
        effort = effort + _plateau(times, clock, clock + duration, 0.35)
        lead = lead + np.sign(angle) * _plateau(times, clock - 0.3, clock + 0.7 * duration, 0.4)
        clock += duration + (rng.uniform(0.2, 1.2) if rng.random() < 0.7 else 0.0)
    curves = _steps(
        rng,
        _cycle(rng, times, rng.uniform(0.75, 1.05)),
        np.clip(effort, 0.0, 1.0),
        thigh=rng.uniform(1.0, 8.0),
        knee=rng.uniform(28.0, 48.0),
    )
    curves["root_yaw"] = curves["root_yaw"] + yaw
    curves["neck_twist"] = rng.uniform(15.0, 40.0) * lead
    return curves


def smooth_step(progress: NDArray) -> NDArray:
    """The minimum-jerk rise from 0 to 1: `10 s^3 - 15 s^4 + 6 s^5`, s clipped to [0, 1].

    >>> smooth_step(np.array([-1.0, 0.0, 0.5, 2.0])).tolist()
    [0.0, 0.0, 0.5, 1.0]
    """
    s = np.clip(progress, 0.0, 1.0)
    return s**3 * (10.0 - 15.0 * s + 6.0 * s**2)


def _steps(
    rng: np.random.Generator, cycle: NDArray, effort: NDArray, *, thigh: float, knee: float
) -> Curves:
    """One gait cycle per unit of `cycle`, the left heel striking at whole numbers.

    Shapes follow published gait curves: the knee yields after heel strike and bends most in early
    swing, the pelvis turns and drops with the steps, trunk and arms turn against it.
    """
    bent = rng.uniform(0.0, 6.0) if rng.random() < 0.8 else rng.uniform(10.0, 40.0)
    pitch = rng.normal(2.0, 2.5) + 0.15 * bent
    width, stiff = rng.uniform(-4.0, 3.0), rng.uniform(4.0, 9.0)
    yields, sway, drop = rng.uniform(8.0, 16.0), rng.uniform(2.0, 6.0), rng.uniform(1.0, 4.0)
    swing = rng.uniform(0.2, 1.2) * thigh
    fold = rng.uniform(12.0, 40.0)
    roll = effort * drop * np.sin(2.0 * np.pi * cycle)
    forward = effort * np.cos(2.0 * np.pi * cycle)
    curves = {
        "root_pitch": np.full_like(cycle, pitch),
        "root_roll": roll,
        "root_yaw": -sway * forward,
        "lumbar_bend": -0.5 * roll,
        "lumbar_flexion": rng.normal(2.0, 4.0) + effort * np.cos(4.0 * np.pi * cycle),
        "thoracic_flexion": np.full_like(cycle, rng.normal(2.0, 4.0)),
        "thoracic_twist": 2.0 * sway * forward,
    }
    for side, shift, sign in zip(SIDES, (0.0, 0.5), (-1.0, 1.0), strict=True):
        phase = cycle + shift
        curves[f"{side}_hip_flexion"] = (
            pitch
            + 0.5 * (bent + stiff)
            + effort * (8.0 + thigh * np.cos(2.0 * np.pi * (phase + 0.06)))
        )
        curves[f"{side}_knee_flexion"] = (
            stiff
            + bent
            + effort * (yields * _pulse(phase - 0.14, 8.0) + knee * _pulse(phase - 0.72, 4.0))
        )
        curves[f"{side}_hip_abduction"] = width + sign * roll
        curves[f"{side}_hip_rotation"] = np.full_like(cycle, rng.uniform(-12.0, 3.0))
        back = -effort * np.cos(2.0 * np.pi * phase)
        curves[f"{side}_swing"] = swing * back
        curves[f"{side}_fold"] = fold * (0.6 + 0.4 * back)
    return curves


def _cycle(rng: np.random.Generator, times: NDArray, cadence: float) -> NDArray:
    return rng.uniform() + np.cumsum(cadence * (1.0 + _wander(rng, times, 0.04))) * _step(times)


def _pulse(phase: NDArray, sharpness: float) -> NDArray:
    """A periodic bump of height 1 at whole numbers."""
    return np.exp(sharpness * (np.cos(2.0 * np.pi * phase) - 1.0))


def _wander(rng: np.random.Generator, times: NDArray, size: float) -> NDArray:
    """A slow curve around zero."""
    waves = [
        rng.normal(0.0, size)
        * np.sin(2.0 * np.pi * (rng.uniform(0.05, 0.25) * times + rng.random()))
        for _ in range(2)
    ]
    return np.sum(waves, axis=0)


def _effort(rng: np.random.Generator, times: NDArray) -> NDArray:
    """1 while walking, 0 while standing, one stop somewhere."""
    start = rng.uniform(times[0] - 1.0, times[-1])
    return 1.0 - _plateau(times, start, start + rng.uniform(0.8, 2.5), 0.6)


def _plateau(times: NDArray, start: float, end: float, ramp: float) -> NDArray:
    return smooth_step((times - start) / ramp) - smooth_step((times - end) / ramp)


def _step(times: NDArray) -> float:
    """Seconds between frames."""
    return float(times[1] - times[0]) if len(times) > 1 else 0.0
