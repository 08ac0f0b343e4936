"""Parity of aggregation, metrics and MixSTE's loss with the code of DDHPose, D3DP and MixSTE."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.calibration import make_camera
from posediff_jax.camera import camera_from_vector, project, to_pixels
from posediff_jax.evaluation.metrics import (
    PCK_JOINTS,
    auc,
    joint_error,
    mpjpe,
    mpjve,
    n_mpjpe,
    p_mpjpe,
    pck,
)
from posediff_jax.evaluation.oracle import (
    best_hypothesis,
    best_hypothesis_of_batch,
    best_joints,
    take_hypothesis,
)
from posediff_jax.geometry import procrustes_align
from posediff_jax.samplers.aggregate import mean_pose, reprojection_pose
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from posediff_jax.systems import mixste
from posediff_jax.types import Camera
from tests.parity_checks.diffupose_common import Outputs, check_assumptions
from tests.parity_checks.fixture import Fixture

# Hypotheses are (B, W, H, F, J, 3).
AXIS = 2


def aggregate(fixture: Fixture) -> Outputs:
    """Human3.6M: screen units are the pixels of an image of 2 x 2, moved by 1."""
    hypotheses, truth, root = given(fixture)
    camera = camera_from_vector(jnp.asarray(fixture["in_cam"], float), (2, 2))
    keypoints = across(fixture, "in_x2d", hypotheses) + 1.0
    joints, index = reprojection_pose(
        hypotheses, keypoints, camera, root=root, axis=AXIS, clamp=1.0
    )
    near, _ = best_joints(hypotheses, truth, axis=AXIS)
    mean = mean_pose(hypotheses, axis=AXIS)
    wide = jnp.expand_dims(truth, AXIS)
    errors = mpjpe(hypotheses, wide)
    batch_error, chosen = best_of_batch(errors)
    points = hypotheses + jnp.expand_dims(root, AXIS)[..., None, :]
    aligned = joint_error(procrustes_align(hypotheses, wide), wide)
    by_joint = jnp.expand_dims(index, AXIS)
    return {
        "out_reproj": project(camera, points, clamp=1.0) - 1.0,
        "out_J_Best": per_iteration(mpjpe(near, truth)),
        "out_P_Best": batch_error,
        "out_P_Agg": per_iteration(mpjpe(mean, truth)),
        "out_J_Agg": per_iteration(mpjpe(joints, truth)),
        "out_J_Best_p2": per_iteration(jnp.min(aligned, axis=AXIS)),
        "out_P_Best_p2": best_of_batch(jnp.mean(aligned, axis=-1))[0],
        "out_P_Agg_p2": per_iteration(p_mpjpe(mean, truth)),
        "out_J_Agg_p2": per_iteration(jnp.take_along_axis(aligned, by_joint, axis=AXIS)),
        "out_pose_J_Agg": joints,
        "out_index_J_Agg": index,
        "out_pose_J_Best": near,
        "out_pose_P_Agg": mean,
        "out_index_P_Best": chosen,
        "out_P_Best_per_frame": per_iteration(best_hypothesis(errors, axis=AXIS)[0]),
    }


def aggregate_3dhp(fixture: Fixture) -> Outputs:
    """MPI-INF-3DHP: millimetres, pixels, a camera given by its sensor."""
    hypotheses, truth, root = given(fixture)
    camera = sensor_camera(fixture.config)
    rule = {"distort": not is_linear(fixture.config["projection"]), "clamp": 1.0}
    keypoints = to_pixels(across(fixture, "in_x2d", hypotheses), camera.image_size)
    joints, _ = reprojection_pose(hypotheses, keypoints, camera, root=root, axis=AXIS, **rule)
    mean = mean_pose(hypotheses, axis=AXIS)
    points = hypotheses + jnp.expand_dims(root, AXIS)[..., None, :]
    valid = jnp.asarray(fixture["in_valid"])[..., 0]
    errors = mpjpe(hypotheses, jnp.expand_dims(truth, AXIS))
    _, chosen = best_of_batch(errors)
    index = jnp.broadcast_to(chosen[:, None], mean.shape[:-2])
    return {
        "out_cam": jnp.concatenate(
            [camera.focal, camera.center, camera.radial, camera.tangential], axis=-1
        ),
        "out_reproj": project(camera, points, **rule),
        "out_pose_J_Agg": joints,
        "out_pose_J_Best": best_joints(hypotheses, truth, axis=AXIS)[0],
        "out_pose_P_Agg": mean,
        "out_pose_P_Best": take_hypothesis(hypotheses, index, axis=AXIS),
        "out_index_P_Best": chosen,
        "out_err_P_Best": best_of_batch(errors, valid)[0],
        "out_err_P_Agg": per_iteration(mpjpe(mean, truth), valid),
    }


def given(fixture: Fixture) -> tuple[Any, Any, Any]:
    """Hypotheses; truth and root trajectory for each iteration."""
    hypotheses = jnp.asarray(fixture["in_hyp"], float)
    root = across(fixture, "in_traj", hypotheses)[..., 0, :]
    return hypotheses, across(fixture, "in_y3d", hypotheses), root


def across(fixture: Fixture, name: str, hypotheses: Any) -> Any:
    """An array (B, F, ...) once for each iteration, (B, W, F, ...)."""
    value = jnp.asarray(fixture[name], float)
    return jnp.repeat(value[:, None], hypotheses.shape[1], axis=1)


def best_of_batch(errors: Any, mask: Any = None) -> tuple[Any, Any]:
    """`best_hypothesis_of_batch` of each iteration; errors (B, W, H, F)."""
    return jax.vmap(lambda e: best_hypothesis_of_batch(e, mask=mask), in_axes=1)(errors)


def per_iteration(errors: Any, mask: Any = None) -> Any:
    """The mean of (B, W, F, ...) errors over all but the iterations; (B, F) says which count."""
    weight = jnp.ones(errors.shape) if mask is None else mask[:, None] * jnp.ones(errors.shape)
    return jnp.mean(errors, axis=(0, *range(2, errors.ndim)), where=weight > 0)


def sensor_camera(config: Any) -> Camera:
    """Pixels are millimetres on the sensor times resolution over sensor size, from its middle."""
    size = np.array([config["width"], config["height"]], float)
    scale = size / np.array(config["sensor_mm"], float)
    fx, fy, cx, cy = config["focal_center_mm"]
    return make_camera(scale * (fx, fy), scale * (cx, cy) + size / 2, size)


def is_linear(projection: str) -> bool:
    """Whether the released function of that name leaves distortion out."""
    kinds = {"project_to_2d": False, "project_to_2d_linear": True}
    return kinds[projection]


def metrics(fixture: Fixture) -> Outputs:
    predicted, truth = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("pred", "y3d"))
    options = mixste.LossOptions()
    weights = mixste.joint_weights(options.joint_weights, H36M_17)
    check_assumptions(fixture.config, {"mixste_joint_weights": weights.tolist()})
    terms = {k: jnp.mean(v) for k, v in mixste.loss_terms(predicted, truth, weights).items()}
    as_one = (x.reshape(-1, *x.shape[2:]) for x in (predicted, truth))
    similar = p_mpjpe(predicted, truth)
    return {
        "out_mpjpe": jnp.mean(mpjpe(predicted, truth)),
        "out_mpjpe_per_joint_mm": 1000 * jnp.mean(joint_error(predicted, truth), axis=(0, 1)),
        "out_p_mpjpe": jnp.mean(similar),
        "out_p_mpjpe_per_frame": similar,
        "out_n_mpjpe": jnp.mean(n_mpjpe(predicted, truth)),
        "out_velocity_flat": mpjve(*as_one),
        "out_velocity_train": jnp.mean(mpjve(predicted, truth)),
        "out_mixste_weighted_mpjpe": terms["position"],
        "out_mixste_temporal": terms["smoothness"],
        "out_mixste_loss": mixste.total_loss(terms, options),
    }


def pck_3dhp(fixture: Fixture) -> Outputs:
    """The fixture has distances: poses along one axis have them."""
    config = fixture.config
    check_assumptions(config, {"comparison": "strictly less"})
    errors = jnp.asarray(fixture["in_err_mm"], float)
    predicted = jnp.stack([errors, 0 * errors, 0 * errors], axis=-1)
    truth = jnp.zeros_like(predicted)
    limit, thresholds = config["pck_threshold_mm"], config["auc_thresholds_mm"]
    ours: dict[str, ArrayLike] = {"out_mpjpe": jnp.mean(mpjpe(predicted, truth))}
    groups = [*config["groups"].values(), PCK_JOINTS[MPI_INF_3DHP_17.name]]
    for name, measure, option in (
        ("pck", pck, {"threshold": limit}),
        ("auc", auc, {"thresholds": thresholds}),
    ):
        *parts, total = (
            100 * jnp.mean(measure(predicted, truth, joints=joints, **option)) for joints in groups
        )
        ours |= {f"out_{name}_groups": jnp.stack(parts), f"out_{name}_total": total}
    return ours
