"""Small files in the layouts of data sets that users hold, for the tests of readers and recipes.

Written from descriptions of the files, with SciPy rotations and calibrations of its own: nothing
here is taken from the readers. All functions are deterministic.
"""

from pathlib import Path

import numpy as np
from scipy.io import savemat
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


# Joints of Human3.6M-17 in the order of MPI-INF-3DHP's test set: head top, neck, right and left
# arm, right and left leg, pelvis, spine, head; and where they are among 28 in the training set.
JOINTS_OF_3DHP = [10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9]
JOINTS_AMONG_28 = [7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6]
# Focal length and principal point in pixels, indoors and outdoors.
TEST_LENSES_3DHP = {
    True: (1500.1723, (1017.3873, 1043.0320)),
    False: (1683.9835, (939.8575, 560.1407)),
}
# "univ_annot3" of the fakes: all bodies larger, seen along the same rays.
UNIVERSAL = 1.1


def write_fake_3dhp_npz(folder, *, frames=12, seed=0):
    """Writes the train and test files of P-STMO and D3DP, both annotations.

    In the test sequences frames 2 and 5 are not valid: they have no pose, and 5 has no keypoints.

    Args:
      folder: Gets the files.
      frames: Of each sequence.
      seed: Of the motion.

    Returns:
      "S1/Seq1/0" or "TS1" -> joints in camera axes, `(F, 17, 3)`, millimetres.
    """
    truth, train, test = {}, {}, {}
    cameras = (0, 1, 2, 4, 5, 6, 7, 8)
    takes = [(f"S{s}", part) for s in range(1, 9) for part in ("Seq1", "Seq2")]
    for (subject, part), world in zip(takes, _motion((seed, 9), 16, frames), strict=True):
        views = {}
        for camera in cameras:
            joints = _seen_by(world[:, JOINTS_OF_3DHP], camera)
            truth[f"{subject}/{part}/{camera}"] = joints
            views[str(camera)] = {"data_2d": _train_pixels(joints, camera), "data_3d": joints}
        train[f"{subject} {part}"] = [views, fps_3dhp(subject, part)]
    for n, world in enumerate(_motion((seed, 8), 6, frames), start=1):
        joints = _seen_by(world[:, JOINTS_OF_3DHP], n)
        truth[f"TS{n}"] = joints
        test[f"TS{n}"] = _test_entries(joints, indoors=n < 5)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for part, nested in (("train", train), ("test", test)):
        _save(folder / f"data_{part}_3dhp_ori.npz", data=nested)
        _save(folder / f"data_{part}_3dhp.npz", data=_scaled(nested))
    return truth


def write_fake_3dhp_mat(folder, *, subjects=("S1",), tests=("TS1", "TS6"), frames=5, seed=0):
    """Writes the original files: `annot.mat` (version 5) and `annot_data.mat` (7.3, by h5py).

    Args:
      folder: Gets a folder for each subject and test sequence.
      subjects: Who is trained on.
      tests: Test sequences; frames 2 and 5 as in `write_fake_3dhp_npz`.
      frames: Of each sequence.
      seed: Of the motion.

    Returns:
      As `write_fake_3dhp_npz`.
    """
    truth = {}
    takes = [(s, part) for s in subjects for part in ("Seq1", "Seq2")]
    for (subject, part), world in zip(takes, _motion((seed, 7), len(takes), frames), strict=True):
        views = [_seen_by(world[:, JOINTS_OF_3DHP], camera) for camera in range(14)]
        truth |= {f"{subject}/{part}/{c}": joints for c, joints in enumerate(views)}
        _write_train_mat(Path(folder) / subject / part, views)
    for name, world in zip(tests, _motion((seed, 6), len(tests), frames), strict=True):
        joints = _seen_by(world[:, JOINTS_OF_3DHP], int(name[2:]))
        truth[name] = joints
        _write_test_mat(Path(folder) / name, _test_entries(joints, indoors=int(name[2:]) < 5))
    return truth


def fps_3dhp(subject, part):
    """Four sequences and one more were filmed at 50 frames per second."""
    fast = {("S1", "Seq2"), ("S3", "Seq1"), ("S3", "Seq2"), ("S5", "Seq1"), ("S5", "Seq2")}
    return 50 if (subject, part) in fast else 25


def train_lens_3dhp(camera):
    """Focal length and principal point of the fake training cameras, pixels."""
    return 1490.0 + 5 * camera, (1020.0 + camera, 1030.0 - 2 * camera)


def _seen_by(world, camera):
    """World (z up) in the axes of a camera that stands around the room, millimetres."""
    turn = Rotation.from_euler("z", 25.0 * camera, degrees=True)
    x, y, z = np.moveaxis(turn.apply(world.reshape(-1, 3)).reshape(world.shape), -1, 0)
    return 1000.0 * np.stack([x, 1.2 - z, y + 4.0], axis=-1)


def _train_pixels(joints, camera):
    focal, center = train_lens_3dhp(camera)
    return joints[..., :2] / joints[..., 2:] * focal + center


def _test_entries(joints, *, indoors):
    focal, center = TEST_LENSES_3DHP[indoors]
    pixels = joints[..., :2] / joints[..., 2:] * focal + center
    valid = np.ones(len(joints))
    for frame in (2, 5):
        if frame < len(joints):
            valid[frame] = 0
    lost = joints.copy()
    lost[valid == 0] = 0
    pixels[5:6] = np.nan
    return {"data_2d": pixels, "data_3d": lost, "valid": valid}


def _scaled(nested):
    """The same files with 3D joints of `UNIVERSAL` size."""
    if isinstance(nested, dict):
        return {k: v * UNIVERSAL if k == "data_3d" else _scaled(v) for k, v in nested.items()}
    return [_scaled(v) for v in nested] if isinstance(nested, list) else nested


def _write_train_mat(folder, views):
    folder.mkdir(parents=True)
    cells = {name: np.empty((14, 1), object) for name in ("annot2", "annot3", "univ_annot3")}
    for camera, joints in enumerate(views):
        every = np.full((len(joints), 28, 3), -777.0)
        every[:, JOINTS_AMONG_28] = joints
        cells["annot3"][camera, 0] = every.reshape(len(joints), -1)
        cells["univ_annot3"][camera, 0] = UNIVERSAL * every.reshape(len(joints), -1)
        flat = np.full((len(joints), 28, 2), -77.0)
        flat[:, JOINTS_AMONG_28] = _train_pixels(joints, camera)
        cells["annot2"][camera, 0] = flat.reshape(len(joints), -1)
    cells["cameras"] = np.arange(14)[None]
    savemat(folder / "annot.mat", cells)
    lines = ["Skeletool Camera Calibration File V1.0"]
    for camera in range(14):
        focal, center = train_lens_3dhp(camera)
        matrix = np.eye(4)
        matrix[[0, 1], [0, 1]], matrix[:2, 2] = focal, center
        lines += [f"name          {camera}", "  sensor      10 10", "  size        2048 2048"]
        lines += ["  animated    0", "  intrinsic   " + " ".join(map(str, matrix.ravel()))]
        lines += ["  extrinsic   " + " ".join(map(str, np.eye(4).ravel())), "  radial      0"]
    (folder / "camera.calibration").write_text("\n".join(lines) + "\n")


def _write_test_mat(folder, entries):
    """As MATLAB writes it: a page of text, then HDF5 with the axes the other way round."""
    import h5py

    folder.mkdir(parents=True)
    path = folder / "annot_data.mat"
    with h5py.File(path, "w", userblock_size=512) as file:
        file["annot2"] = entries["data_2d"][:, None]
        file["annot3"] = entries["data_3d"][:, None]
        file["univ_annot3"] = UNIVERSAL * entries["data_3d"][:, None]
        file["valid_frame"] = entries["valid"][:, None]
        file["activity_annotation"] = np.ones((len(entries["valid"]), 1))
    with open(path, "r+b") as file:
        file.write(b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(128))


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
