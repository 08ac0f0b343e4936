"""Parity of data, occlusion, metrics and optimiser with the released DiffHPE code."""

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from posediff_jax.camera import (
    camera_from_vector,
    camera_to_world,
    project,
    to_pixels,
    to_screen,
    world_to_camera,
)
from posediff_jax.data.human36m_cameras import human36m_cameras
from posediff_jax.data.occlusion import (
    hidden_count,
    hidden_joints,
    hide_frames,
    keep_random,
    num_starts,
    span_frames,
)
from posediff_jax.data.windows import window_starts, windows
from posediff_jax.evaluation.coherence import (
    segment_deviations,
    segment_std,
    side_differences,
    symmetry_gap,
)
from posediff_jax.evaluation.metrics import joint_error, mpjpe, p_mpjpe
from posediff_jax.evaluation.oracle import best_hypothesis, take_hypothesis
from posediff_jax.geometry import root_center, segment_lengths
from posediff_jax.samplers.aggregate import mean_pose, reprojection_pose
from posediff_jax.skeleton import H36M_16, H36M_17, Skeleton, segments
from posediff_jax.training.optimizers import make_optimizer
from posediff_jax.training.plateau import Plateau, PlateauState
from posediff_jax.types import Camera
from tests.parity_checks.diffupose_common import Outputs, skeleton_of
from tests.parity_checks.fixture import Check, Fixture


def metrics(fixture: Fixture) -> Outputs:
    """Poses in metres; `average` where no strategy is named."""
    target, samples = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("target", "samples"))
    skeleton = skeleton_of(target.shape[-2])
    mean, first = mean_pose(samples), samples[:, 0]
    lengths = segment_lengths(mean, skeleton)
    gaps = jnp.abs(side_differences(mean, skeleton))
    ours: dict[str, ArrayLike] = {
        "out_bone_lengths_mm": 1000 * jnp.swapaxes(lengths, -1, -2),
        "out_symmetry_gap_per_bone_mm": 1000 * jnp.mean(gaps, axis=(0, 1)),
        "out_segment_std_per_bone_mm": 1000 * jnp.mean(segment_deviations(mean, skeleton), axis=0),
        "out_reg_side_squared_m2": jnp.mean(side_differences(first, skeleton) ** 2),
        "out_reg_time_var_m2": jnp.mean(segment_deviations(first, skeleton) ** 2),
        # Millimetres less metres, as released.
        "out_jointwise_official_mixedunits": jnp.mean(joint_error(1000 * mean, target), (0, 1)),
        "out_jointwise_mm": 1000 * jnp.mean(joint_error(mean, target), axis=(0, 1)),
        "out_coordwise_mm": 1000 * jnp.mean(jnp.abs(mean - target), axis=(0, 1, 2)),
        "out_p_mpjpe_mm": 1000 * jnp.mean(p_mpjpe(mean, target)),
        "out_segment_std_population_mm": 1000 * jnp.mean(segment_std(mean, skeleton, ddof=0)),
    }
    for bones, suffix in (("official", ""), ("anatomical", "_rewired")):
        ours[f"out_symmetry_gap{suffix}_mm"] = 1000 * jnp.mean(
            symmetry_gap(mean, skeleton, bones=bones)
        )
        ours[f"out_segment_std{suffix}_mm"] = 1000 * jnp.mean(
            segment_std(mean, skeleton, bones=bones)
        )
    for name, pose in {"average": mean, **of_whole_sequences(samples, target)}.items():
        error = 1000 * mpjpe(pose, target)
        ours |= {
            f"out_{name}_pose_mm": 1000 * pose,
            f"out_{name}_mpjpe_mm": jnp.mean(error),
            f"out_{name}_mpjpe_sum_mm": jnp.sum(error) * target.shape[-2],
        }
    return ours | by_reprojection(fixture, samples)


def of_whole_sequences(samples: Any, target: Any) -> dict[str, Any]:
    """The hypotheses of least and largest error over a whole sequence."""
    errors = jnp.mean(mpjpe(samples, target[:, None]), axis=-1)
    index = {"best": best_hypothesis(errors)[1], "worst": best_hypothesis(-errors)[1]}
    frames = (len(target), target.shape[1])
    return {
        name: take_hypothesis(samples, jnp.broadcast_to(i[:, None], frames))
        for name, i in index.items()
    }


def by_reprojection(fixture: Fixture, samples: Any) -> Outputs:
    """The first sequence, with the true root trajectory, which the result includes."""
    root, keypoints, vector = (
        jnp.asarray(fixture[f"in_reproj_{n}"], float) for n in ("target", "2d", "cam")
    )
    root = root[..., 0, :]
    # Screen units are the pixels of an image of 2 x 2, moved by 1.
    camera = camera_from_vector(vector[:, 0], (2, 2))
    pose, _ = reprojection_pose(samples[: len(root)], keypoints + 1.0, camera, root=root, clamp=1.0)
    return {"out_reproj_pose_m": pose + root[..., None, :]}


def optimiser(fixture: Fixture) -> Outputs:
    """The released schedule is fed with the lowest loss so far; ours with the current one."""
    losses = fixture["in_valid_losses"]
    rules = {
        "official": Plateau(1e-3),
        "raw_values": Plateau(1e-3),
        "patience50": Plateau(1e-3, patience=50, threshold=1e-4),
    }
    ours: dict[str, ArrayLike] = {
        f"out_lr_{name}": rates(rule, losses) for name, rule in rules.items()
    }
    adam = make_optimizer({"learning_rate": 8e-4, "weight_decay": 1e-2})
    params = jnp.asarray(fixture["in_adam_x0"], float)
    state, trace = adam.init(params), []
    for gradient in jnp.asarray(fixture["in_adam_grads"], float):
        updates, state = adam.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        trace.append(params)
    return ours | {"out_adam_trace": jnp.stack(trace)}


def rates(rule: Plateau, losses: Any) -> list[float]:
    """The learning rate after each evaluation."""
    state, trace = PlateauState(np.float64(1), np.float64(np.inf), np.int32(0)), []
    for loss in losses:
        state = rule.fed(state, loss)
        trace.append(rule.learning_rate * float(state.scale))
    return trace


def occlusion(fixture: Fixture) -> Outputs:
    """Masks from the released code's own draws; windows."""
    config = fixture.config
    frames, rates_ = config["seq_len"], config["rates"]
    skeleton = skeleton_of(config["joints"])
    chosen = fixture["in_arm_leg_frames"]
    hidden = {
        # (..., n) numbers of frames to (..., F) flags.
        "arm_leg": (chosen[..., None] == np.arange(frames)).any(axis=-2),
        **{
            n: span_frames(fixture[f"in_{n}_start"], hidden_count(rates_[n], frames), frames)
            for n in ("leg", "frames")
        },
    }
    patterns = {
        "arm_leg": "leg_and_arm",
        "leg": "consecutive_leg",
        "frames": "consecutive_frames",
    }
    check_draws(fixture, frames)
    lengths = fixture["in_video_lengths"]
    return {
        "out_random_mask": keep_random(fixture["in_random_u"], rates_["random"]),
        **{
            f"out_{n}_mask": hide_frames(
                hidden[n], hidden_joints(pattern, skeleton), skeleton.num_joints
            )
            for n, pattern in patterns.items()
        },
        **{
            f"out_windows_droplast{drop}": [
                (i, start)
                for i, n in enumerate(lengths)
                for start in window_starts(int(n), length=frames, pad="drop" if drop else "edge")
            ]
            for drop in (0, 1)
        },
        "out_padded_last_window_frames": windows(frames + 3, length=frames)[0][-1],
    }


def check_draws(fixture: Fixture, frames: int) -> None:
    """Refuses draws that ours could not have made."""
    rates_ = fixture.config["rates"]
    count = hidden_count(rates_["arm_leg"], frames)
    if fixture["in_arm_leg_frames"].shape[-1] != count:
        raise ValueError(f"in_arm_leg_frames: expected {count} frames of {frames}")
    for name in ("leg", "frames"):
        starts = fixture[f"in_{name}_start"]
        limit = num_starts(hidden_count(rates_[name], frames), frames)
        if not 0 <= starts.min() <= starts.max() < limit:
            raise ValueError(f"in_{name}_start: expected 0 to {limit - 1}, got {starts}")


def data(fixture: Fixture) -> Outputs:
    """Constants of the cameras are float32; what follows is float64."""
    pixels, world = (jnp.asarray(fixture[f"in_{n}"], float) for n in ("pixels", "world"))
    lenses = [human36m_cameras(subject) for subject in fixture.meta["subjects"]]
    camera = jax.tree.map(lambda *x: jnp.asarray(np.concatenate(x), float), *lenses)
    count = len(camera.focal)
    seen = world_to_camera(camera, jnp.broadcast_to(world, (count, *world.shape)))
    number = jnp.arange(count) % (count // len(lenses))
    # The release rounds what it has divided to float32, as these float32 operations do.
    intrinsics = jnp.asarray(np.concatenate([rounded_intrinsics(lens) for lens in lenses]), float)
    vector = [intrinsics, camera.orientation, camera.position, number[:, None]]
    # Screen units are the pixels of an image of 2 x 2, moved by 1.
    lens = camera_from_vector(intrinsics, (2, 2))
    ours: dict[str, ArrayLike] = {
        "out_camera_vectors": jnp.concatenate(vector, axis=-1),
        "out_camera_frame": seen,
        "out_back_to_world": camera_to_world(camera, seen),
        "out_root_relative": root_center(seen, root=0),
    }
    for name, distort in (("projected", True), ("projected_linear", False)):
        ours[f"out_{name}"] = project(lens, seen, distort=distort, clamp=1.0) - 1.0
    for output in fixture.outputs:
        found = re.fullmatch(r"out_norm_(\d+)", output)
        if found:
            size = (1000, int(found[1]))
            screen = to_screen(pixels, size)
            ours |= {output: screen, output.replace("norm", "denorm"): to_pixels(screen, size)}
    return ours


def rounded_intrinsics(camera: Camera) -> Any:
    """The 9-vectors of float32 cameras, `(4, 9)` float32."""
    width, height = camera.image_size[:, :1], camera.image_size[:, 1:]
    corner = np.concatenate([np.ones_like(width), height.astype(float) / width], axis=1)
    middle = (camera.center / width * 2).astype(float) - corner
    focal = camera.focal / width * 2
    return np.concatenate(
        [focal, middle.astype(np.float32), camera.radial, camera.tangential], axis=1
    )


def skeleton(fixture: Fixture) -> Outputs:
    """Constants of 17 and 16 joints."""
    from posediff_jax.denoisers.graph import mean_adjacency

    tree = {17: H36M_17, 16: H36M_16}[len(fixture.meta["joint_names"])]
    released = segments(tree, bones="official")
    ends = [child for child, _ in released]
    return {
        "out_parents": tree.parents,
        "out_bones_metric": released,
        "out_bones_rewired": segments(tree, bones="anatomical"),
        "out_bones_left": [ends.index(joint) for joint in tree.left],
        "out_bones_right": [ends.index(joint) for joint in tree.right],
        "out_joints_left": tree.left,
        "out_joints_right": tree.right,
        "out_adjacency": mean_adjacency(tree),
        **grouped_joints(tree),
    }


def grouped_joints(tree: Skeleton) -> Outputs:
    """The joints in the order of the groups of the non-local block, and what it pools."""
    from posediff_jax.denoisers.grouped import JOINT_GROUPS, pooled_joints

    groups = JOINT_GROUPS[tree.name]
    order = np.concatenate(groups)
    return {
        "out_grouped_order": order,
        "out_restored_order": np.argsort(order),
        "out_pool_pairs": pooled_joints(groups, "official"),
    }


CHECKS: dict[str, Check] = {
    "metrics": Check(metrics),
    "optim": Check(optimiser),
    "occlusion": Check(occlusion),
    "data": Check(data),
    "skeleton": Check(skeleton),
}
