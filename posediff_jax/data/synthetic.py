"""Virtual cameras: motion in the world becomes 2D keypoints whose 3D is known."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from posediff_jax.camera import project, world_to_camera
from posediff_jax.data.motion import MotionClip
from posediff_jax.data.sequences import PoseSequence, PoseSequences
from posediff_jax.skeleton import Skeleton, joint_map
from posediff_jax.types import Camera

# Rounded means of the four Human3.6M lenses.
_RADIAL, _TANGENTIAL = (-0.206, 0.249, -0.003), (-0.001, -0.0014)
_NEAREST = 1.0  # metres between the camera plane and the nearest joint, at any time
_TRIES = 50
_MISSING_RATE = 0.01


_Range = tuple[float, float]


def virtual_views(
    seed: int,
    clips: Sequence[MotionClip],
    skeleton: Skeleton,
    *,
    views_per_clip: int = 1,
    distance: _Range = (3.0, 6.0),
    pitch_degrees: _Range = (-10.0, 30.0),
    focal: _Range = (1143.0, 1150.0),
    image_size: tuple[int, int] = (1000, 1000),
    center_jitter: float = 8.0,
    distortion: bool = False,
    noise_px: float = 0.0,
    detector: bool = False,
) -> PoseSequences:
    """Looks at each clip with cameras like those of Human3.6M.

    A camera looks at the clip's mean root from a uniform azimuth, distance and pitch (positive:
    from above). All joints stay at least 1 m in front of it: a view that fails is drawn again, up
    to 50 times, then moved back. Somebody who walks far may leave the image; `MotionClip.split`
    gives each piece its own camera. View v of clip i is a function of (seed, i, v) and the options.

    Noise, independent for each frame and joint: with `detector=False` each coordinate gets
    `noise_px * N(0, 1)` and the confidence is 1. With `detector=True` the offset is `noise_px * s *
    n`, `n ~ N(0, I_2)`, `s^2 = 3 / chi^2_3` (Student's t of 3 degrees of freedom: one joint in 47
    is off by more than `6 noise_px`), the confidence `clip(exp(-|s n| / 6) + 0.05 N(0, 1), 0.05,
    1)`, so it falls with the error. One joint in 100 is missing: confidence 0, position uniform in
    the bounding box of the person. So is every joint outside the image, at its noisy position.

    Args:
      seed: Not negative.
      clips: Motion in y-up worlds, metres.
      skeleton: Joint order of the result; clips of another one are converted by `joint_map`.
      views_per_clip: Cameras per clip.
      distance: Least and greatest metres from camera to mean root.
      pitch_degrees: Least and greatest pitch.
      focal: Least and greatest focal length in pixels, drawn for each axis.
      image_size: Width and height in pixels.
      center_jitter: The principal point is within this many pixels of
        `(0.512 width, 0.512 height)`.
      distortion: Bend the image like a Human3.6M lens; the camera records it.
      noise_px: Scale of the 2D noise.
      detector: Heavy tails, confidence and missing joints as said above.

    Returns:
      Clips in order, views of one clip beside each other; root-relative poses and roots included.

    Raises:
      ValueError: An option is out of range, there is no clip, or a clip's joints cannot be
        converted.
    """
    if not clips:
        raise ValueError("clips: expected at least one, got none")
    for name, number, least in (
        ("seed", seed, 0),
        ("views_per_clip", views_per_clip, 1),
        ("noise_px", noise_px, 0),
        ("center_jitter", center_jitter, 0),
    ):
        if not number >= least:
            raise ValueError(f"{name}: expected at least {least}, got {number}")
    _check_range("distance", distance, above=0.0)
    _check_range("focal", focal, above=0.0)
    _check_range("pitch_degrees", pitch_degrees, above=-90.0, below=90.0)
    size, shift = np.asarray(image_size, np.float64), (_RADIAL, _TANGENTIAL)
    views, rngs = [], []
    for i, clip in enumerate(clips):
        points = _convert(clip, skeleton)
        for v in range(views_per_clip):
            rng = np.random.default_rng((seed, i, v))
            extrinsics = _place(rng, points, skeleton.root, distance, pitch_degrees)
            lens = _lens(rng, focal, size, center_jitter, shift if distortion else None)
            views.append((clip, v, points, lens | extrinsics))
            rngs.append(rng)
    seen = _photograph([(points, camera) for _, _, points, camera in views])
    sequences = []
    for (clip, v, _, camera), rng, (pixels, joints) in zip(views, rngs, seen, strict=True):
        noisy, confidence = _detect(rng, pixels, size, noise_px, detector)
        sequences.append(
            PoseSequence(
                name=f"{clip.name}/view{v}",
                subject=clip.subject,
                action=clip.action,
                fps=clip.fps,
                keypoints_px=noisy,
                confidence=confidence,
                camera=_camera(camera, np.float32),
                pose=joints - joints[:, skeleton.root : skeleton.root + 1],
                root=joints[:, skeleton.root],
            )
        )
    return PoseSequences(tuple(sequences), skeleton)


def _check_range(name: str, value: _Range, *, above: float, below: float = np.inf) -> None:
    low, high = value
    if not above < low <= high < below:
        raise ValueError(
            f"{name}: expected {above} < least <= greatest < {below}, got {tuple(value)}"
        )


def _convert(clip: MotionClip, skeleton: Skeleton) -> NDArray:
    if clip.skeleton == skeleton.name:
        return clip.poses
    try:
        return joint_map(clip.skeleton, skeleton.name).apply(clip.poses)
    except ValueError as error:
        raise ValueError(f"clip {clip.name!r}: {error}") from None


def _place(
    rng: np.random.Generator, points: NDArray, root: int, distance: _Range, pitch: _Range
) -> dict[str, NDArray]:
    """Extrinsics that look at the mean root with everybody in front."""
    target = points[:, root].mean(axis=0, dtype=np.float64)
    for _ in range(_TRIES):
        metres = rng.uniform(*distance)
        azimuth = rng.uniform(-np.pi, np.pi)
        above = np.radians(rng.uniform(*pitch))
        level = np.cos(above)
        away = np.array([level * np.sin(azimuth), np.sin(above), level * np.cos(azimuth)])
        nearest = metres - ((points - target) @ away).max()
        if nearest >= _NEAREST:
            break
    else:
        metres += _NEAREST - nearest
    return {"orientation": _facing(azimuth, above), "position": target + metres * away}


def _facing(azimuth: float, pitch: float) -> NDArray:
    """Quaternion from camera to world axes, y down: about y by azimuth after x by pi - pitch."""
    half_turn, half_tilt = azimuth / 2.0, (np.pi - pitch) / 2.0
    cos, sin = np.cos(half_turn), np.sin(half_turn)
    up, over = np.cos(half_tilt), np.sin(half_tilt)
    return np.array([cos * up, cos * over, sin * up, -sin * over])


def _lens(
    rng: np.random.Generator,
    focal: _Range,
    size: NDArray,
    jitter: float,
    distortion: tuple[tuple[float, ...], tuple[float, ...]] | None,
) -> dict[str, NDArray]:
    radial, tangential = distortion or ((0.0,) * 3, (0.0,) * 2)
    return {
        "focal": rng.uniform(*focal, size=2),
        "center": 0.512 * size + rng.uniform(-jitter, jitter, size=2),
        "image_size": size,
        "radial": np.array(radial),
        "tangential": np.array(tangential),
    }


def _photograph(views: Sequence[tuple[NDArray, dict[str, NDArray]]]) -> list[tuple]:
    """Pixels and camera-axes joints of each view.

    All frames go through one call: one shape, so one compilation, however many clip lengths.
    """
    lengths = [len(points) for points, _ in views]
    frames = np.concatenate([points for points, _ in views])
    stacked = {
        name: np.repeat(np.stack([camera[name] for _, camera in views]), lengths, axis=0)
        for name in views[0][1]
    }
    camera = _camera(stacked, frames.dtype)
    joints = world_to_camera(camera, jnp.asarray(frames))
    pixels = project(camera, joints)
    cuts = np.cumsum(lengths)[:-1]
    split = (np.split(np.array(jax.device_get(x)), cuts) for x in (pixels, joints))
    return list(zip(*split, strict=True))


def _camera(leaves: dict[str, NDArray], dtype: Any) -> Camera:
    values: dict[str, Any] = {name: x.astype(dtype) for name, x in leaves.items()}
    return Camera(**values)


def _detect(
    rng: np.random.Generator, pixels: NDArray, size: NDArray, noise_px: float, detector: bool
) -> tuple[NDArray, NDArray]:
    """Noisy keypoints `(F, J, 2)` and confidence `(F, J)`."""
    normal = rng.standard_normal(pixels.shape)
    if not detector:
        confidence = np.ones(pixels.shape[:2], pixels.dtype)
        return (pixels + noise_px * normal).astype(pixels.dtype), confidence
    offset = normal * np.sqrt(3.0 / rng.chisquare(3.0, size=(*pixels.shape[:2], 1)))
    noisy = pixels + noise_px * offset
    trust = np.exp(-np.linalg.norm(offset, axis=-1) / 6.0)
    confidence = np.clip(trust + 0.05 * rng.standard_normal(trust.shape), 0.05, 1.0)
    confidence[((noisy < 0) | (noisy > size)).any(axis=-1)] = 0.0
    low, high = (edge(pixels, axis=1, keepdims=True) for edge in (np.min, np.max))
    missing = rng.random(trust.shape) < _MISSING_RATE
    noisy = np.where(missing[..., None], low + (high - low) * rng.random(pixels.shape), noisy)
    confidence[missing] = 0.0
    return noisy.astype(pixels.dtype), confidence.astype(pixels.dtype)
