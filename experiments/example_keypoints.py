"""Writes the example keypoints: two procedural people as AlphaPose would report them.

python -m experiments.example_keypoints [--output=FILE]

No recording: procedural motion (one walks, one reaches) before one camera, 60 frames of 1920 x 1080
at 25 a second, COCO-17 keypoints with 2 px of noise, confidences, and joints missing now and then.
"""

import json
from pathlib import Path

import numpy as np
from absl import app, flags
from numpy.typing import NDArray

from experiments.common import start
from posediff_jax.data import procedural_motion
from posediff_jax.skeleton import COCO_17, H36M_17

EXAMPLE = "experiments/examples/two_people_alphapose.json"
IMAGE_SIZE = (1920, 1080)
# What a lift without --camera does not know.
FOCAL, CAMERA_HEIGHT = 1500.0, 1.3
FRAMES, FPS = 60, 25.0
# Kind, and the place of the middle of the path: x and depth, metres.
_PEOPLE = (("walking", -0.9, 5.0), ("reaching", 1.1, 5.5))
_NOISE_PX, _MISSING = 2.0, 0.02


def run(output: str | Path = EXAMPLE) -> Path:
    """Writes the file.

    Args:
      output: A JSON file.

    Returns:
      It.
    """
    entries = []
    for track, (kind, x, depth) in enumerate(_PEOPLE, start=1):
        points = _coco(_before_camera(kind, track, x, depth))
        pixels = FOCAL * points[..., :2] / points[..., 2:] + np.array(IMAGE_SIZE) / 2
        rng = np.random.default_rng(track)
        noise = rng.normal(size=pixels.shape)
        confidence = np.clip(0.95 - 0.1 * np.linalg.norm(noise, axis=-1), 0.3, 1.0)
        seen = rng.random(confidence.shape) >= _MISSING
        found = np.concatenate([pixels + _NOISE_PX * noise, confidence[..., None]], axis=-1)
        found = np.round(np.where(seen[..., None], found, 0.0), 2)
        for frame, keypoints in enumerate(found):
            low, high = pixels[frame].min(axis=0), pixels[frame].max(axis=0)
            entry = {
                "image_id": f"{frame}.jpg",
                "category_id": 1,
                "keypoints": keypoints.ravel().tolist(),
                "score": round(float(keypoints[:, 2].mean()) * 3, 2),
                "box": [round(float(v), 1) for v in (*low, *(high - low))],
                "idx": track,
            }
            entries.append((frame, track, entry))
    output = Path(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(entry) for _, _, entry in sorted(entries, key=lambda e: e[:2])]
    output.write_text("[" + ",\n".join(lines) + "]\n", "utf-8")
    return output


def _before_camera(kind: str, seed: int, x: float, depth: float) -> NDArray:
    """Motion in camera axes, `(F, 17, 3)`, its path centred at x and depth, on the floor."""
    (clip,) = procedural_motion(seed, num_clips=1, frames=FRAMES, fps=FPS, kinds=(kind,))
    world = clip.poses.astype(np.float64)
    world -= world[:, :1].mean(axis=0) * np.array([1.0, 0.0, 1.0])
    across = world[0, H36M_17.joints.index("left_hip")] - world[0, 0]
    # A quarter from facing the camera, so that both sides are seen.
    yaw = np.pi / 5 - np.arctan2(-across[2], across[0])
    cos, sin = np.cos(yaw), np.sin(yaw)
    turned = np.stack(
        [
            cos * world[..., 0] + sin * world[..., 2],
            world[..., 1],
            cos * world[..., 2] - sin * world[..., 0],
        ],
        axis=-1,
    )
    # From y up, facing +z, to y down, z away from the camera.
    return turned * np.array([1.0, -1.0, -1.0]) + np.array([x, CAMERA_HEIGHT, depth])


def _coco(poses: NDArray) -> NDArray:
    """COCO-17 joints of Human3.6M-17 ones, `(F, 17, 3)`: eyes and ears between neck and head."""
    at = {name: poses[:, j] for j, name in enumerate(H36M_17.joints)}
    across = at["left_shoulder"] - at["right_shoulder"]
    across /= np.linalg.norm(across, axis=-1, keepdims=True)
    at["nose"] = at["neck"]
    up = at["head"] - at["neck"]
    for side, sign in (("left", 1.0), ("right", -1.0)):
        at[f"{side}_eye"] = at["neck"] + 0.35 * up + sign * 0.03 * across
        at[f"{side}_ear"] = at["neck"] + 0.2 * up + sign * 0.075 * across
    return np.stack([at[name] for name in COCO_17.joints], axis=1)


def main(argv: list[str]) -> None:
    """Writes the file and says so."""
    start(argv)
    print(run(flags.FLAGS.output))


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_string("output", EXAMPLE, "The JSON to write.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
