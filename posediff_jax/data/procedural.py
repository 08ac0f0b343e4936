"""Procedural motion: people of many builds who walk, reach, sit, crouch, kneel, lie and turn.

A clip is a body, a script of random postures with smooth passages between them (or a gait), small
sway on top, angles clipped to human limits, forward kinematics, and contact with the floor.
"""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from posediff_jax.data import gait, postures
from posediff_jax.data.contact import settle
from posediff_jax.data.kinematics import (
    LIMITS,
    SIDES,
    Body,
    clip_angles,
    forward_kinematics,
    random_body,
)
from posediff_jax.data.motion import MotionClip
from posediff_jax.data.postures import Posture

MOTIONS = ("walking", "reaching", "sitting", "crouching", "kneeling", "lying", "turning")
# Only by name, so that what is drawn without names stays what it was.
MORE_MOTIONS = ("leaning",)

Curves = dict[str, NDArray]
Scene = Callable[[], Sequence[Posture]]


def procedural_motion(
    seed: int,
    *,
    num_clips: int,
    frames: int,
    fps: float = 50.0,
    kinds: Sequence[str] = MOTIONS,
    stature: tuple[float, float] = (1.5, 1.95),
) -> tuple[MotionClip, ...]:
    """Generates motion clips of Human3.6M-17 joints. NumPy only.

    Clip i is a function of `(seed, i)` and the options, not of `num_clips`: asking for more clips
    keeps the first ones. Its kind is `kinds[i % len(kinds)]`, its person is new.

    Args:
      seed: Not negative.
      num_clips: Number of clips.
      frames: F, frames per clip.
      fps: Frames per second.
      kinds: Which of `MOTIONS` and `MORE_MOTIONS` to draw.
      stature: Least and greatest body height in metres.

    Returns:
      The clips; poses are float32 metres, the floor at y = 0.

    Raises:
      ValueError: A number is out of range or a kind is unknown.

    >>> clips = procedural_motion(0, num_clips=2, frames=5)
    >>> [(clip.action, clip.poses.shape) for clip in clips]
    [('walking', (5, 17, 3)), ('reaching', (5, 17, 3))]
    """
    for name, value, least in (
        ("seed", seed, 0),
        ("num_clips", num_clips, 1),
        ("frames", frames, 1),
    ):
        if value < least:
            raise ValueError(f"{name}: expected at least {least}, got {value}")
    if not fps > 0:
        raise ValueError(f"fps: expected more than 0, got {fps}")
    known = (*MOTIONS, *MORE_MOTIONS)
    if not kinds or not set(kinds) <= set(known):
        raise ValueError(f"kinds: expected some of {known}, got {tuple(kinds)}")
    if not 0 < stature[0] <= stature[1]:
        raise ValueError(f"stature: expected 0 < least <= greatest metres, got {stature}")
    times = np.arange(frames) / fps
    clips = []
    for i in range(num_clips):
        kind = kinds[i % len(kinds)]
        rng = np.random.default_rng((seed, i))
        body = random_body(rng, stature=stature)
        clips.append(
            MotionClip(
                name=f"procedural/{seed}/{i}",
                subject=f"person {seed}/{i}",
                action=kind,
                poses=_perform(rng, body, kind, times).astype(np.float32),
                fps=fps,
                skeleton="h36m_17",
            )
        )
    return tuple(clips)


def _perform(rng: np.random.Generator, body: Body, kind: str, times: NDArray) -> NDArray:
    """World positions `(F, 17, 3)`, float64."""
    curves = _SCRIPTS[kind](rng, body, times)
    if "root_yaw" not in curves:
        curves["root_yaw"] = np.full_like(times, rng.uniform(-180.0, 180.0))
    curves = _add(curves, _sway(rng, times, calm=kind == "lying"))
    seated = curves.pop("seated", np.zeros_like(times))
    relative = forward_kinematics(clip_angles(_arms_follow(curves)), body)
    return relative + settle(relative, stature=body.stature, seated=seated)[:, None]


def _walking(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    return _stepping(rng, body, times, gait.walk(rng, times))


def _turning(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    return _stepping(rng, body, times, gait.turn(rng, times))


def _reaching(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    def scene() -> list[Posture]:
        lean = rng.uniform(10.0, 50.0) if rng.random() < 0.3 else 0.0
        return [postures.stand(rng, body, lean=lean)]

    legs = _play(rng, times, scene, pace=(0.9, 2.5))
    return _with_arms(rng, body, times, legs, postures.STANDING_ARMS, reach=0.75)


def _sitting(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    seat = rng.uniform(0.85, 1.1)

    def rise() -> list[Posture]:
        up = postures.squat(rng, body, (70.0, 85.0))
        down = postures.squat(rng, body, (70.0, 85.0))
        return [up, postures.stand(rng, body), down, postures.sit(rng, body, seat)]

    def scene() -> Sequence[Posture]:
        if on_floor:
            return [postures.sit_on_floor(rng, body)]
        return rise() if rng.random() < 0.2 else [postures.sit(rng, body, seat)]

    on_floor = rng.random() < 0.25
    legs = _play(rng, times, scene, pace=(0.8, 2.0))
    if on_floor:
        legs = _heels_up(legs, body)
    arms = ("prop", "knees", "lap", "mouth") if on_floor else postures.SEATED_ARMS
    return _with_arms(rng, body, times, legs, arms, reach=0.4)


def _crouching(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    def scene() -> Sequence[Posture]:
        down = postures.stoop if rng.random() < 0.3 else postures.squat
        low = [down(rng, body) for _ in range(rng.integers(1, 3))]
        return [*low, postures.stand(rng, body)] if rng.random() < 0.5 else low

    legs = _play(rng, times, scene, pace=(0.9, 2.0))
    return _with_arms(rng, body, times, legs, ("relaxed", "carry", "photo", "point"), reach=0.4)


def _leaning(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    """Bent forward or to a side, hands reaching down or on the knees, now and then upright."""

    def scene() -> Sequence[Posture]:
        if rng.random() < 0.5:
            low = postures.stoop(rng, body)
        else:
            low = postures.stand(rng, body, lean=rng.uniform(10.0, 60.0))
            aside = rng.choice((-1.0, 1.0)) * rng.uniform(0.0, 20.0)
            for name in ("lumbar_bend", "thoracic_bend"):
                low[name] += aside
        return [low, postures.stand(rng, body)] if rng.random() < 0.2 else [low]

    legs = _play(rng, times, scene, pace=(0.8, 2.0))
    return _with_arms(rng, body, times, legs, ("relaxed", "relaxed", "knees", "carry"), reach=0.3)


def _kneeling(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    front = SIDES[rng.integers(2)]

    def scene() -> Sequence[Posture]:
        half = postures.half_kneel(rng, body, front)
        if style < 0.35:
            return [postures.kneel(rng, body)]
        if style < 0.6:
            return [half]
        step = [postures.step_up(rng, body, front), postures.split(rng, body, front), half]
        low = [postures.half_kneel(rng, body, front), postures.kneel(rng, body)]
        back = [postures.half_kneel(rng, body, front), postures.split(rng, body, front)]
        return [postures.stand(rng, body), *step, *low, *back]

    style = rng.random()
    legs = _play(rng, times, scene, pace=(0.7, 1.4))
    arms = ("relaxed", "carry", "mouth", "photo", "point", "desk")
    return _with_arms(rng, body, times, legs, arms, reach=0.4)


def _lying(rng: np.random.Generator, body: Body, times: NDArray) -> Curves:
    style, under = rng.random(), SIDES[rng.integers(2)]

    def back() -> Sequence[Posture]:
        if style < 0.12:
            return [postures.lie_on_back(rng, body), postures.sit_on_floor(rng, body)]
        return [postures.lie_on_back(rng, body)]

    if style < 0.5:
        curves = _heels_up(_play(rng, times, back, pace=(0.9, 2.2)), body)
        supine = functools.partial(postures.arms, rng, body, postures.SUPINE_ARMS)
        arms = _play(rng, times, lambda: [supine()], pace=(0.7, 2.0))
    elif style < 0.75:
        curves = _play(rng, times, lambda: [postures.lie_on_front(rng, body)], pace=(0.9, 2.2))
        prone = functools.partial(postures.arms, rng, body, postures.PRONE_ARMS)
        arms = _play(rng, times, lambda: [prone()], pace=(0.9, 2.2))
    else:
        curves = _play(
            rng, times, lambda: [postures.lie_on_side(rng, body, under)], pace=(0.9, 2.2)
        )
        arms = _play(rng, times, lambda: [postures.side_arms(rng, body, under)], pace=(0.9, 2.2))
    look = _play(rng, times, lambda: [postures.head(rng, spread=0.6)], pace=(0.8, 2.0))
    if 0.5 <= style < 0.75:
        look["neck_twist"] = look["neck_twist"] + rng.choice((-1.0, 1.0)) * 55.0
    return _add(curves, arms, look)


_SCRIPTS: dict[str, Callable[[np.random.Generator, Body, NDArray], Curves]] = {
    "walking": _walking,
    "reaching": _reaching,
    "sitting": _sitting,
    "crouching": _crouching,
    "leaning": _leaning,
    "kneeling": _kneeling,
    "lying": _lying,
    "turning": _turning,
}


def _stepping(rng: np.random.Generator, body: Body, times: NDArray, curves: Curves) -> Curves:
    """Adds arms to a gait: both swing, or one or both are busy."""
    swing = {side: (curves.pop(f"{side}_swing"), curves.pop(f"{side}_fold")) for side in SIDES}
    how_many, one = rng.random(), SIDES[rng.integers(2)]
    busy = SIDES if how_many < 0.2 else (one,) if how_many < 0.6 else ()
    arms = _play(
        rng, times, lambda: [postures.arms(rng, body, postures.STANDING_ARMS)], pace=(0.8, 2.5)
    )
    for side in SIDES:
        if side in busy:
            continue
        shoulder, fold = swing[side]
        arms[f"{side}_shoulder_flexion"] = rng.normal(2.0, 4.0) + shoulder
        arms[f"{side}_shoulder_abduction"] = np.full_like(times, rng.uniform(3.0, 14.0))
        arms[f"{side}_shoulder_rotation"] = np.full_like(times, rng.uniform(0.0, 30.0))
        arms[f"{side}_elbow_flexion"] = 6.0 + fold
        arms[f"{side}_hang"] = np.full_like(times, 0.6)
    look = _play(rng, times, lambda: [postures.head(rng, spread=0.7)], pace=(0.7, 2.0))
    return _add(curves, arms, look)


def _with_arms(
    rng: np.random.Generator,
    body: Body,
    times: NDArray,
    curves: Curves,
    names: Sequence[str],
    *,
    reach: float,
) -> Curves:
    """Adds arms and head; `reach` is the chance that the hands move freely at a cue."""

    def arms() -> list[Posture]:
        if rng.random() > reach:
            return [postures.arms(rng, body, names)]
        if rng.random() < 0.4:
            return [postures.gesture(rng, body)]
        if rng.random() < 0.4:
            return [postures.arms(rng, body, postures.REACHING_ARMS)]
        one = SIDES[rng.integers(2)]
        return [postures.arms(rng, body, names) | postures.gesture(rng, body, (one,))]

    moves = _play(rng, times, arms, pace=(0.4, 1.3))
    look = _play(rng, times, lambda: [postures.head(rng)], pace=(0.5, 1.6))
    return _add(curves, moves, look)


def _play(
    rng: np.random.Generator, times: NDArray, scene: Scene, *, pace: tuple[float, float]
) -> Curves:
    """Strings scenes together until the clip ends; each posture is reached, and often held.

    Args:
      rng: Draws durations.
      times: Seconds, `(F,)`.
      scene: Draws the next postures.
      pace: Least and greatest seconds from one posture to the next.
    """
    # Starting in the past lets a short clip begin in the middle of a passage.
    clock = times[0] - rng.uniform(0.0, sum(pace))
    cues: list[tuple[float, Posture]] = []
    while not cues or clock <= times[-1]:
        for posture in scene():
            cues.append((clock, posture))
            if rng.random() < 0.4:
                clock += rng.uniform(0.1, 0.6)
                cues.append((clock, posture))
            clock += rng.uniform(*pace)
    cues.append((clock, cues[-1][1]))
    return _interpolate(cues, times)


def _interpolate(cues: Sequence[tuple[float, Posture]], times: NDArray) -> Curves:
    """Minimum-jerk passages between cues; a name that a posture lacks is zero there."""
    starts = np.array([time for time, _ in cues])
    left = np.clip(np.searchsorted(starts, times, side="right") - 1, 0, len(cues) - 2)
    progress = gait.smooth_step((times - starts[left]) / (starts[left + 1] - starts[left]))
    curves = {}
    for name in sorted({name for _, posture in cues for name in posture}):
        values = np.array([posture.get(name, 0.0) for _, posture in cues])
        curves[name] = values[left] + progress * (values[left + 1] - values[left])
    return curves


def _heels_up(curves: Curves, body: Body) -> Curves:
    """Raises the thighs of somebody on the floor where a passage would push the heels through."""
    out, soft = dict(curves), 4.0
    for side in SIDES:
        thigh = postures.reach(
            body, postures.FLOOR_DROP * body.stature, curves[f"{side}_knee_flexion"]
        )
        # Crossed legs bend in another plane, for which this linkage does not hold.
        outward = gait.smooth_step((curves[f"{side}_hip_abduction"] - 15.0) / 20.0)
        least = thigh + curves["root_pitch"] - 60.0 * outward - soft * np.log(2.0)
        # A soft maximum: heels come to the floor without a bump.
        excess = curves[f"{side}_hip_flexion"] - least
        out[f"{side}_hip_flexion"] = least + soft * np.logaddexp(0.0, excess / soft)
    return out


def _arms_follow(curves: Curves) -> Curves:
    """Hanging arms stay upright when the trunk leans; raised arms lift the shoulder girdle."""
    out = dict(curves)
    lean = sum(curves.get(n, 0.0) for n in ("root_pitch", "lumbar_flexion", "thoracic_flexion"))
    for side in SIDES:
        flexion = out[f"{side}_shoulder_flexion"] + out.pop(f"{side}_hang", 0.0) * lean
        raised = np.maximum(flexion, out[f"{side}_shoulder_abduction"])
        out[f"{side}_shoulder_flexion"] = flexion
        girdle = 0.3 * np.maximum(raised - 50.0, 0.0)
        for name, follows in (("elevation", girdle), ("protraction", 0.12 * flexion)):
            out[f"{side}_clavicle_{name}"] = out[f"{side}_clavicle_{name}"] + follows
    return out


def _sway(rng: np.random.Generator, times: NDArray, *, calm: bool) -> Curves:
    """Slow waves on all joints but the pelvis: nobody stands still."""
    liveliness = rng.uniform(0.3, 1.2) * (0.4 if calm else 1.0)
    curves = {}
    for name in LIMITS:
        leg = "hip" in name or "knee" in name
        size = 0.5 if leg else 3.0 if "shoulder" in name or "elbow" in name else 1.4
        rates, phases = rng.uniform(0.15, 0.7, 2), rng.uniform(0.0, 2.0 * np.pi, 2)
        waves = np.sin(2.0 * np.pi * rates[:, None] * times + phases[:, None]).sum(axis=0)
        curves[name] = liveliness * size * rng.normal(0.0, 0.7) * waves
    return curves


def _add(*parts: Curves) -> Curves:
    total: Curves = {}
    for part in parts:
        for name, curve in part.items():
            total[name] = total.get(name, 0.0) + curve
    return total
