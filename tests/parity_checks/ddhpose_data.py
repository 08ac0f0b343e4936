"""Parity of cameras and windows with the data code of the DDHPose release."""

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.calibration import make_camera
from posediff_jax.camera import (
    camera_from_vector,
    camera_to_world,
    intrinsics_vector,
    project,
    to_pixels,
    to_screen,
    world_to_camera,
)
from posediff_jax.data.batching import list_items, official_order
from posediff_jax.data.human36m import SPLITS
from posediff_jax.data.human36m_cameras import human36m_cameras
from posediff_jax.data.official import official_epoch
from posediff_jax.data.windows import windows
from posediff_jax.skeleton import H36M_17
from tests.parity_checks.diffupose_common import Outputs
from tests.parity_checks.fixture import Fixture


def camera(fixture: Fixture) -> Outputs:
    size = fixture.config["res_w"], fixture.config["res_h"]
    lens = camera_from_vector(jnp.asarray(fixture["in_cam"], float), size)
    placed = make_camera(
        lens.focal,
        lens.center,
        size,
        orientation=fixture["in_quat"].astype(float),
        position=fixture["in_trans"].astype(float),
    )
    world = jnp.asarray(fixture["in_world"])
    seen = world_to_camera(placed, world)
    points = jnp.asarray(fixture["in_camera_for_projection"])
    screen = to_screen(project(lens, points, clamp=1.0), size)
    pixels = to_pixels(screen, size)
    return {
        "out_camera": seen,
        "out_world_back": camera_to_world(placed, seen),
        "out_proj": screen,
        "out_proj_linear": to_screen(project(lens, points, distort=False, clamp=1.0), size),
        "out_pixels": pixels,
        "out_normalised": to_screen(pixels, size),
    }


def chunks(fixture: Fixture) -> Outputs:
    config = fixture.config
    counts, length, seed = config["lengths"], config["chunk"], config["shuffle_seed"]
    augment = config["augment"]
    ends = np.cumsum(counts)[:-1]
    parts = [np.split(fixture[f"in_{name}"], ends) for name in ("p2d", "p3d")]
    epoch = official_epoch(
        *parts, list(fixture["in_cams"]), H36M_17, length=length, seed=seed, augment=augment
    )
    items = list_items(counts, length=length, pad="split", augment=augment).astype(int)
    # The released pairs name the end before it is cut.
    items[:, 2] = items[:, 1] + length
    at = np.arange(0, len(items), config["batch_size"])
    shown = [windows(count, length=length, pad="shift")[0] for count in counts]
    return {
        "out_pairs": items,
        "out_order_epoch0": items[official_order(len(items), seed=seed)],
        "out_order_epoch1": items[official_order(len(items), seed=seed, epoch=1)],
        "out_batch_sizes": np.diff([*at, len(items)]),
        "out_batch_2d": epoch[0],
        "out_batch_3d": epoch[1],
        "out_batch_cam": epoch[2],
        "out_windows": [[i, *window] for i, of in enumerate(shown) for window in of],
        "out_eval_2d": np.concatenate([p[w] for p, w in zip(parts[0], shown, strict=True)]),
    }


def cameras(fixture: Fixture) -> Outputs:
    """The azimuth, for drawing, is where the camera stands, on average, in steps of 10 degrees."""
    ours: dict[str, ArrayLike] = {}
    for subject in fixture.config["subjects"]:
        # The lenses are the same for all subjects.
        camera = human36m_cameras(subject)
        ours[f"out_quat_{subject}"] = camera.orientation
        ours[f"out_trans_{subject}"] = camera.position
    x, y, _ = np.moveaxis([human36m_cameras(s).position for s in sum(SPLITS.values(), ())], -1, 0)
    azimuth = np.degrees(np.arctan2(y, x))
    return ours | {
        "out_azimuth": 10 * np.round(np.mean(azimuth, axis=0) / 10),
        "out_res": camera.image_size,
        "out_focal_px": camera.focal,
        "out_center_px": camera.center,
        "out_radial": camera.radial,
        "out_tangential": camera.tangential,
        "out_intrinsic_normalised": intrinsics_vector(camera),
    }
