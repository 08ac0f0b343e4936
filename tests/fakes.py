"""Small files in the layouts of data sets that users hold, for the tests of readers and recipes.

Written from descriptions of the files, with SciPy rotations and calibrations of its own: nothing
here is taken from the readers. All functions are deterministic.
"""

from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from posediff_jax.data.procedural import procedural_motion

HUMAN36M_SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")
HUMAN36M_ACTIONS = (
    *("Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases"),
    *("Sitting", "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether"),
)
# Where the joints of Human3.6M-17 are among the 32 of the recording.
JOINTS_OF_32 = {
    **{0: 0, 1: 1, 2: 2, 3: 3},  # pelvis, right leg
    **{4: 6, 5: 7, 6: 8},  # left leg
    **{7: 12, 8: 13, 9: 14, 10: 15},  # spine, thorax, neck, head
    **{11: 17, 12: 18, 13: 19},  # left arm
    **{14: 25, 15: 26, 16: 27},  # right arm
}
SYMMETRY_17 = [[4, 5, 6, 11, 12, 13], [1, 2, 3, 14, 15, 16]]
# Human3.6M-17 joints in the order of HumanEva-15, and the sides of those.
JOINTS_OF_15 = [0, 8, 11, 12, 13, 14, 15, 16, 4, 5, 6, 1, 2, 3, 10]
SYMMETRY_15 = [[2, 3, 4, 8, 9, 10], [5, 6, 7, 11, 12, 13]]
HUMANEVA_FOCAL, HUMANEVA_CENTER = np.array([612.0, 615.0]), np.array([322.0, 236.0])
# Orientation (w, x, y, z) and position in millimetres of HumanEva's colour cameras; S2, others.
HUMANEVA_PLACES = {
    True: [
        [0.4214752, -0.4961493, -0.5838273, 0.4851187, 4112.9121, 626.4929, 1545.2988],
        [0.6501393, -0.7476588, -0.0954617, 0.0959808, 923.5740, -3877.9243, 1504.5518],
        [0.0699353, -0.0712403, 0.7421637, -0.662742, -781.4915, 3838.8853, 1444.9929],
    ],
    False: [
        [0.424207, -0.4983646, -0.5802981, 0.4847012, 4062.227, 663.2477, 1528.397],
        [0.6503354, -0.7481602, -0.0919284, 0.0941766, 844.8131, -3805.2092, 1504.9929],
        [0.0664734, -0.0690535, 0.7416416, -0.6639132, -797.6738, 3916.3174, 1433.6602],
    ],
}


def write_fake_human36m(
    folder,
    *,
    subjects=HUMAN36M_SUBJECTS,
    actions=HUMAN36M_ACTIONS,
    frames=8,
    longer_2d=3,
    seed=0,
):
    """Writes the 3D file and the keypoint files gt, CPN and HRNet of VideoPose3D's Human3.6M.

    Args:
      folder: Gets the files.
      subjects: Who is in them.
      actions: What they do, each in two takes; as in the original, S11 has one of "Directions".
      frames: Of each take.
      longer_2d: How many frames the keypoints of "Eating" run on after the 3D positions.
      seed: Of motion and noise.

    Returns:
      subject -> take -> world positions `(F, 17, 3)`, metres, z up.
    """
    worlds = {}
    for s, subject in enumerate(subjects):
        takes = [f"{a}{n}" for a in actions for n in ("", " 1")]
        if subject == "S11" and "Directions" in takes:
            takes.remove("Directions")
        worlds[subject] = dict(zip(takes, _motion((seed, s), len(takes), frames), strict=True))
    pixels = {
        subject: {
            take: [
                _longer(_project_human36m(world, subject, c), longer_2d * take.startswith("Eating"))
                for c in range(4)
            ]
            for take, world in takes.items()
        }
        for subject, takes in worlds.items()
    }
    rng = np.random.default_rng(seed)
    folder = Path(folder)
    _save(folder / "data_3d_h36m.npz", positions_3d=map_takes(worlds, _to_32))
    metadata = {"layout_name": "h36m", "num_joints": 17, "keypoints_symmetry": SYMMETRY_17}
    _save(folder / "data_2d_h36m_gt.npz", positions_2d=pixels, metadata=metadata)
    noisy = map_takes(pixels, lambda views: [v + _noise(rng, v, 4.0) for v in views])
    _save(folder / "data_2d_h36m_cpn_ft_h36m_dbb.npz", positions_2d=noisy, metadata=metadata)
    without_neck = [j for j in range(17) if j != 9]
    hr = map_takes(
        pixels, lambda views: [v[:, without_neck] + _noise(rng, v, 3.0, 16) for v in views]
    )
    _save(folder / "data_2d_h36m_hr.npz", positions_2d=hr)
    return worlds


def write_fake_humaneva(folder, *, subjects=("S1", "S2", "S3"), frames=12, seed=0):
    """Writes the 3D file and ground-truth keypoints of VideoPose3D's HumanEva-I.

    Each recording has three chunks, of which the second is corrupt and absent.

    Args:
      folder: Gets the files.
      subjects: Who is in them.
      frames: Of each chunk.
      seed: Of the motion.

    Returns:
      "<Split>/<subject>" -> take -> world positions `(F, 15, 3)`, metres, z up.
    """
    actions = ("Walking", "Jog", "ThrowCatch", "Gestures", "Box")
    takes = [f"{action} 1 chunk{chunk}" for action in actions for chunk in (0, 2)]
    worlds, pixels = {}, {}
    groups = [f"{part}/{subject}" for subject in subjects for part in ("Train", "Validate")]
    for g, group in enumerate(groups):
        motion = [w[:, JOINTS_OF_15] for w in _motion((seed, g), len(takes), frames)]
        worlds[group] = dict(zip(takes, motion, strict=True))
        places = np.array(HUMANEVA_PLACES[group.endswith("S2")])
        pixels[group] = {
            take: [
                _pinhole(seen_from(world, place[:4], place[4:] / 1000))
                * HUMANEVA_FOCAL.astype(np.float32)
                + HUMANEVA_CENTER.astype(np.float32)
                for place in places
            ]
            for take, world in worlds[group].items()
        }
    metadata = {"layout_name": "humaneva15", "num_joints": 15, "keypoints_symmetry": SYMMETRY_15}
    folder = Path(folder)
    _save(folder / "data_3d_humaneva15.npz", positions_3d=worlds)
    _save(folder / "data_2d_humaneva15_gt.npz", positions_2d=pixels, metadata=metadata)
    return worlds


def human36m_calibration():
    """The published calibration, from the fixture that was made with the authors' code."""
    with np.load(Path(__file__).parent / "data" / "h36m_cameras.npz") as file:
        return {name.removeprefix("out_"): file[name] for name in file.files}


def _motion(seed, count, frames):
    """Clips near the middle of the room with z up, `(F, 17, 3)` float32."""
    number = int(np.random.default_rng(seed).integers(2**31))
    for clip in procedural_motion(number, num_clips=count, frames=frames):
        x, y, z = np.moveaxis(clip.poses, -1, 0)
        world = np.stack([x, -z, y], axis=-1)
        path = world[:, :1, :2].copy()
        # However far they walk they stay within a metre, where every camera sees them.
        world[..., :2] += np.tanh(path - path.mean(axis=0)) - path
        yield world.astype(np.float32)


def _to_32(world):
    """The joints that are dropped are somewhere else."""
    recorded = np.full((len(world), 32, 3), -7.0, np.float32)
    recorded[:, list(JOINTS_OF_32.values())] = world[:, list(JOINTS_OF_32)]
    return recorded


def seen_from(world, quaternion, position):
    """World positions in the axes of a camera at a position, orientation (w, x, y, z)."""
    w, x, y, z = quaternion
    flat = (world - np.asarray(position)).reshape(-1, 3)
    return Rotation.from_quat([x, y, z, w]).inv().apply(flat).reshape(world.shape)


def _pinhole(points):
    return (points[..., :2] / points[..., 2:]).astype(np.float32)


def _project_human36m(world, subject, camera):
    table = human36m_calibration()
    quaternion, position = table[f"quat_{subject}"][camera], table[f"trans_{subject}"][camera]
    xy = _pinhole(seen_from(world, quaternion, position)).astype(float)
    r2 = (xy**2).sum(axis=-1, keepdims=True)
    k1, k2, k3 = table["radial"][camera]
    p = table["tangential"][camera]
    bent = xy * (1 + k1 * r2 + k2 * r2**2 + k3 * r2**3 + (xy @ p)[..., None]) + p * r2
    return (table["focal_px"][camera] * bent + table["center_px"][camera]).astype(np.float32)


def _noise(rng, view, pixels, joints=17):
    return rng.normal(0.0, pixels, (len(view), joints, 2)).astype(np.float32)


def _longer(view, frames):
    return np.concatenate([view, np.repeat(view[-1:], frames, axis=0) + 99])


def map_takes(nested, function):
    """Applies a function to each take of subject -> take -> value."""
    return {s: {t: function(value) for t, value in takes.items()} for s, takes in nested.items()}


def _save(path, **entries):
    """As VideoPose3D does: dictionaries in 0-d object arrays."""
    np.savez_compressed(path, **{k: np.array(v, dtype=object) for k, v in entries.items()})


# CMU's bones as (name, parent, direction, length, what it rotates about), lengths in the file's
# unit; directions and lengths are those of a small and crooked person.
_CMU_BONES = (
    ("lhipjoint", "root", (0.66, -0.71, 0.25), 2.4, ""),
    ("lfemur", "lhipjoint", (0.34, -0.94, 0.0), 7.1, "rx ry rz"),
    ("ltibia", "lfemur", (0.34, -0.94, 0.0), 7.0, "rx"),
    ("rhipjoint", "root", (-0.64, -0.72, 0.26), 2.5, ""),
    ("rfemur", "rhipjoint", (-0.34, -0.94, 0.0), 7.2, "rx ry rz"),
    ("rtibia", "rfemur", (-0.34, -0.94, 0.0), 6.9, "rx"),
    ("lowerback", "root", (0.02, 0.99, -0.05), 2.0, "rx ry rz"),
    ("upperback", "lowerback", (0.02, 0.99, -0.03), 2.0, "rx ry rz"),
    ("thorax", "upperback", (0.0, 0.99, -0.01), 2.0, "rx ry rz"),
    ("lowerneck", "thorax", (-0.02, 0.99, 0.02), 1.6, "rx ry rz"),
    ("upperneck", "lowerneck", (-0.02, 0.99, -0.02), 1.5, "rx ry rz"),
    ("head", "upperneck", (0.0, 0.99, 0.06), 1.6, "rx ry rz"),
    ("lclavicle", "thorax", (0.92, 0.39, -0.02), 3.4, "ry rz"),
    ("lhumerus", "lclavicle", (0.99, 0.0, 0.0), 4.9, "rx ry rz"),
    ("lradius", "lhumerus", (0.99, 0.0, 0.0), 3.4, "rx"),
    ("rclavicle", "thorax", (-0.91, 0.40, -0.05), 3.5, "ry rz"),
    ("rhumerus", "rclavicle", (-0.99, 0.0, 0.0), 4.8, "rx ry rz"),
    ("rradius", "rhumerus", (-0.99, 0.0, 0.0), 3.3, "rx"),
)
# Whose ends are the 17 joints of cmu17; the pelvis is between the hips.
_ENDS = (
    "rhipjoint rfemur rtibia lhipjoint lfemur ltibia lowerback thorax upperneck head "
    "lclavicle lhumerus lradius rclavicle rhumerus rradius"
)


def write_fake_asf_amc(folder, subject, trials, *, seed=0):
    """Writes a subject of the CMU database: `<subject>.asf` and `<subject>_<trial>.amc`.

    Args:
      folder: Gets a folder named after the subject.
      subject: Its name.
      trials: Number of frames of each trial.
      seed: Of axes and angles.

    Returns:
      trial -> the joints of cmu17, `(F, 17, 3)`, metres, at the rate of the files.
    """
    rng = np.random.default_rng((seed, *subject.encode()))
    axes = {bone[0]: rng.uniform(-180, 180, 3).round(3) for bone in _CMU_BONES}
    folder = Path(folder) / subject
    folder.mkdir(parents=True)
    (folder / f"{subject}.asf").write_text(_asf_text(axes))
    truth = {}
    for trial, frames in trials.items():
        values = {
            name: rng.uniform(-40, 40, (frames, len(dofs.split()))).round(4)
            for name, _, _, _, dofs in _CMU_BONES
            if dofs
        }
        # Walks along z with the hips 17 units above the floor.
        start = [0.0, 17.0, 0.0, 0.0, 0.0, 0.0]
        values["root"] = (start + rng.uniform(-5, 5, (frames, 6))).round(4)
        values["root"][:, 2] += 0.2 * np.arange(frames)
        (folder / f"{subject}_{trial}.amc").write_text(_amc_text(values))
        truth[trial] = _joints_of_ends(_ends(axes, values))
    return truth


def _asf_text(axes):
    lines = [":version 1.10", ":units", "  mass 1.0", "  length 0.45", "  angle deg", ":root"]
    lines += ["  order TX TY TZ RX RY RZ", "  axis XYZ", "  position 0 0 0", "  orientation 0 0 0"]
    lines += [":bonedata"]
    for number, (name, _, direction, length, dofs) in enumerate(_CMU_BONES, start=1):
        lines += ["  begin", f"     id {number}", f"     name {name}"]
        lines += [f"     direction {direction[0]} {direction[1]} {direction[2]}"]
        lines += [f"     length {length}", "     axis {} {} {}  XYZ".format(*axes[name])]
        if dofs:
            limits = "\n            ".join(["(-160.0 20.0)"] * len(dofs.split()))
            lines += [f"    dof {dofs}", f"    limits {limits}"]
        lines += ["  end"]
    lines += [":hierarchy", "  begin"]
    for parent in ("root", *(bone[0] for bone in _CMU_BONES)):
        children = [bone[0] for bone in _CMU_BONES if bone[1] == parent]
        lines += [f"    {' '.join([parent, *children])}"] if children else []
    return "\n".join([*lines, "  end", ""])


def _amc_text(values):
    lines = ["#!OML:ASF somewhere", ":FULLY-SPECIFIED", ":DEGREES"]
    for frame in range(len(values["root"])):
        lines += [str(frame + 1)]
        lines += [f"{name} {' '.join(map(str, v[frame]))}" for name, v in values.items()]
    return "\n".join([*lines, ""])


def _ends(axes, values):
    ends, turns = {"root": values["root"][:, :3]}, {"root": _xyz(values["root"][:, 3:])}
    for name, parent, direction, length, dofs in _CMU_BONES:
        angles = np.zeros((len(values["root"]), 3))
        for column, dof in enumerate(dofs.split()):
            angles[:, "xyz".index(dof[1])] = values[name][:, column]
        axis = _xyz(axes[name])
        turns[name] = turns[parent] * axis * _xyz(angles) * axis.inv()
        ends[name] = ends[parent] + turns[name].apply(np.multiply(direction, length))
    return ends


def _xyz(degrees):
    return Rotation.from_euler("xyz", degrees, degrees=True)


def _joints_of_ends(ends):
    joints = [ends[name] for name in _ENDS.split()]
    pelvis = (joints[0] + joints[3]) / 2
    return np.stack([pelvis, *joints], axis=1) * 2.54 / 45
