"""The protocol `cmu17-val-v1`: what every figure on real motion in this repository is measured on.

The 23 validation clips of `cmu17`, each seen whole by four virtual cameras (`virtual_views` with
its defaults); every 12th frame is scored, five a second, unless a joint is outside the image. 2D
joints are exact or carry Gaussian noise of 5 pixels on each coordinate. Change nothing here: a
change of the protocol is a new name.
"""

import dataclasses
import hashlib
from collections.abc import Sequence
from pathlib import Path

import jax
import numpy as np
from numpy.typing import NDArray

from posediff_jax.data.bodies import random_bodies
from posediff_jax.data.bvh import load_bvh
from posediff_jax.data.cmu17 import load_cmu17
from posediff_jax.data.motion import MotionClip
from posediff_jax.data.scored import ScoredViews
from posediff_jax.data.sequences import PoseSequence, PoseSequences
from posediff_jax.data.synthetic import virtual_views
from posediff_jax.skeleton import H36M_17

NAME = "cmu17-val-v1"
STRIDE = 12
VIEWS_PER_CLIP = 4
NOISE_PX = (0.0, 5.0)
BODIES = ("own", "scaled", "bvh")
_SEED = 17
_BVH = "131_01.bvh"
_SPREAD = 0.15
_PIXEL_UNIT, _METRE_UNIT = 1e-3, 1e-5

# Of the arrays, see `fingerprint`.
_FINGERPRINTS = {
    ("own", 0.0): "fd707742bfa2f71e612494ccdbe6319068c5b002f1eea04cf3b7c3c93ecf4820",
    ("own", 5.0): "a7cf5fda418856bddd0249528ec15afd5c11d1ef3bcaa0d7a4cdc05196e63c8e",
    ("scaled", 0.0): "d49288c3336ed0a4581874764ac2acdb8026af0df6acec6522bd2d1529537bbb",
    ("scaled", 5.0): "10be6056147ec2940d5724b475879408e02c02f144c6b21a2aaf1355828d4b5a",
    ("bvh", 0.0): "b5023bf3133c66cdc96fb4d4df614aa2a09eaacb65e7835fbd91dd9a02cb6de1",
    ("bvh", 5.0): "098791d886579a61d7459dc7fcbe227002af72b62373410f2cc8de05ea10f60b",
}


def cmu17_val_v1(root: str | Path, *, noise_px: float = 0.0, bodies: str = "own") -> ScoredViews:
    """The sequences and scored frames of `cmu17-val-v1`.

    Args:
      root: Folder that holds `val.npz`, see `load_cmu17`; for "bvh" the one with `131_01.bvh`.
      noise_px: 0 or 5.
      bodies: "own"; "scaled": every clip with another body (`random_bodies`, spread 0.15), the
        motion and the cameras' draws the same; "bvh": the one clip of a subject that is in no
        other file, read by `load_bvh`.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: An unknown option, or arrays that are not those of the protocol.
    """
    if noise_px not in NOISE_PX:
        raise ValueError(f"noise_px: expected one of {NOISE_PX}, got {noise_px}")
    if bodies not in BODIES:
        raise ValueError(f"bodies: expected one of {BODIES}, got {bodies!r}")
    if bodies == "bvh":
        clips: Sequence[MotionClip] = [load_bvh(Path(root) / _BVH).every(2)]
    else:
        clips = load_cmu17(root, "val")
    result = photograph(clips, noise_px=noise_px, bodies=bodies)
    found, expected = fingerprint(result), _FINGERPRINTS[bodies, float(noise_px)]
    if found != expected:
        raise ValueError(
            f"root: {root} does not give the arrays of {NAME} (fingerprint {found}, expected "
            f"{expected}); figures would not compare with others. Motion of your own is scored by "
            "the protocol 'val'"
        )
    return result


def photograph(
    clips: Sequence[MotionClip], *, noise_px: float = 0.0, bodies: str = "own"
) -> ScoredViews:
    """Applies the protocol's cameras to any clips; same arguments as `cmu17_val_v1`."""
    if bodies == "scaled":
        clips = random_bodies(_SEED, clips, spread=_SPREAD)
    # In float64, so that the rounding below gives the same digits on every machine.
    with jax.enable_x64(True):
        wide = [
            MotionClip(c.name, c.subject, c.action, c.poses.astype(np.float64), c.fps, c.skeleton)
            for c in clips
        ]
        clean, seen = (
            virtual_views(_SEED, wide, H36M_17, views_per_clip=VIEWS_PER_CLIP, noise_px=px)
            for px in (0.0, noise_px)
        )
    scored = tuple(_scored(sequence) for sequence in clean.sequences)
    return ScoredViews(PoseSequences(tuple(map(_rounded, seen.sequences)), H36M_17), scored)


def fingerprint(scored_views: ScoredViews) -> str:
    """SHA-256 over names, scored frames, keypoints (0.001 px), poses and roots (0.01 mm)."""
    digest = hashlib.sha256()
    for sequence, scored in zip(scored_views.views.sequences, scored_views.scored, strict=True):
        digest.update(sequence.name.encode())
        digest.update(np.packbits(scored).tobytes())
        for array, unit in (
            (sequence.keypoints_px, _PIXEL_UNIT),
            (sequence.pose, _METRE_UNIT),
            (sequence.root, _METRE_UNIT),
        ):
            digest.update(np.rint(np.asarray(array, np.float64) / unit).astype("<i8").tobytes())
    return digest.hexdigest()


def _scored(clean: PoseSequence) -> NDArray[np.bool_]:
    size = np.asarray(clean.camera.image_size)
    visible = ((clean.keypoints_px >= 0) & (clean.keypoints_px < size)).all(axis=(1, 2))
    return visible & (np.arange(clean.num_frames) % STRIDE == 0)


def _rounded(sequence: PoseSequence) -> PoseSequence:
    """Float32 values next to whole multiples of the fingerprint's units."""

    def to(unit: float, array: NDArray | None) -> NDArray:
        return (np.rint(np.asarray(array) / unit) * unit).astype(np.float32)

    return dataclasses.replace(
        sequence,
        keypoints_px=to(_PIXEL_UNIT, sequence.keypoints_px),
        confidence=sequence.confidence.astype(np.float32),
        pose=to(_METRE_UNIT, sequence.pose),
        root=to(_METRE_UNIT, sequence.root),
    )
