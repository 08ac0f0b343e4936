"""BVH files: by hand, against the same motion as ASF/AMC, and the real one where it is."""

from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from posediff_jax.data.asf import read_asf
from posediff_jax.data.asf_amc import bone_ends, read_amc
from posediff_jax.data.bvh import joint_positions, load_bvh, read_bvh
from posediff_jax.skeleton import H36M_17

SHARED = Path(__file__).parents[3] / "shared" / "data"

ARM = """\
HIERARCHY
ROOT Hips
{
\tOFFSET 0.5 0 0
\tCHANNELS 6 Xposition Yposition Zposition Zrotation Yrotation Xrotation
\tJOINT Elbow
\t{
\t\tOFFSET 2 0 0
\t\tCHANNELS 3 Zrotation Xrotation Yrotation
\t\tEnd Site
\t\t{
\t\t\tOFFSET 1 0 0
\t\t}
\t}
}
MOTION
Frames: 3
Frame Time: .02
1 2 3 0 0 0 0 0 0
1 2 3 90 0 0 0 0 90
0 0 0 90 90 0 0 90 90
"""


@pytest.fixture
def arm(tmp_path):
    path = tmp_path / "arm_01.bvh"
    path.write_text(ARM)
    return path


def test_positions_worked_out_by_hand(arm):
    motion = read_bvh(arm)
    assert [joint.name for joint in motion.joints] == ["Hips", "Elbow", "Elbow_end"]
    assert motion.fps == pytest.approx(50)
    found = joint_positions(motion)
    np.testing.assert_allclose(found["Hips"], [[1.5, 2, 3], [1.5, 2, 3], [0.5, 0, 0]], atol=1e-12)
    # About z, x goes to y. Then in the third frame about y first (x to -z), which z leaves alone.
    np.testing.assert_allclose(found["Elbow"], [[3.5, 2, 3], [1.5, 4, 3], [0.5, 0, -2]], atol=1e-12)
    # Second: about y (x to -z) inside the turn about z. Third: y takes x to -z, x takes -z to y;
    # the root's y leaves y alone and its z takes it to -x.
    expected = [[4.5, 2, 3], [1.5, 4, 2], [-0.5, 0, -2]]
    np.testing.assert_allclose(found["Elbow_end"], expected, atol=1e-12)


BONES = {  # parent, offset, axis, angles it has
    "a": ("root", (1.0, -2.0, 0.5), (10.0, 20.0, -30.0), "rx ry rz"),
    "b": ("a", (0.0, -3.0, 0.2), (0.0, 0.0, 20.0), "rx"),
    "c": ("root", (0.1, 2.0, 0.0), (0.0, 0.0, 0.0), ""),
    "d": ("c", (2.0, 1.0, -1.0), (-90.0, 7.0, 20.0), "ry rz"),
    "e": ("d", (1.5, 0.0, 0.0), (180.0, -30.0, -90.0), "rz rx"),
}


def write_both(folder, rng, frames=3):
    """The same five bones and motion as ASF/AMC and as BVH, whose angles SciPy works out."""
    root = rng.uniform(-5, 5, (frames, 6))
    root[:, 3:] *= 30
    values = {n: rng.uniform(-80, 80, (frames, len(b[3].split()))) for n, b in BONES.items()}
    asf = [":units", "length 0.0254", "angle deg", ":root", "order TX TY TZ RX RY RZ", "axis XYZ"]
    asf += ["position 0 0 0", "orientation 0 0 0", ":bonedata"]
    for name, (_, offset, axis, dofs) in BONES.items():
        length = np.linalg.norm(offset)
        asf += ["begin", f"name {name}", f"length {float(length)!r}"]
        asf += ["direction {!r} {!r} {!r}".format(*(np.array(offset) / length).tolist())]
        asf += ["axis {} {} {} XYZ".format(*axis), f"dof {dofs}" if dofs else "", "end"]
    asf += [":hierarchy", "begin", "root a c", "a b", "c d", "d e", "end"]
    amc = [":FULLY-SPECIFIED", ":DEGREES"]
    for f in range(frames):
        amc += [str(f + 1), " ".join(map(repr, ["root", *root[f].tolist()])).replace("'", "")]
        amc += [f"{n} {' '.join(map(repr, v[f].tolist()))}" for n, v in values.items() if v.size]
    (folder / "five.asf").write_text("\n".join(asf))
    (folder / "five_01.amc").write_text("\n".join(amc))

    columns = [
        root[:, :3],
        Rotation.from_euler("xyz", root[:, 3:], degrees=True).as_euler("ZYX", True),
    ]

    def block(name, depth):
        parent, offset, axis, dofs = BONES[name]
        angles = np.zeros((frames, 3))
        for column, dof in enumerate(dofs.split()):
            angles[:, "xyz".index(dof[1])] = values[name][:, column]
        around = Rotation.from_euler("xyz", axis, degrees=True)
        turned = around * Rotation.from_euler("xyz", angles, degrees=True) * around.inv()
        columns.append(turned.as_euler("YXZ", True))
        start = BONES[parent][1] if parent != "root" else (0, 0, 0)
        lines = [f"JOINT {name}", "{", "OFFSET {} {} {}".format(*start)]
        lines += ["CHANNELS 3 Yrotation Xrotation Zrotation"]
        children = [n for n, b in BONES.items() if b[0] == name]
        for child in children:
            lines += block(child, depth + 1)
        if not children:
            lines += ["End Site", "{", "OFFSET {} {} {}".format(*offset), "}"]
        return [*lines, "}"]

    order = "Xposition Yposition Zposition Zrotation Yrotation Xrotation"
    bvh = ["HIERARCHY", "ROOT root", "{", "OFFSET 0 0 0", f"CHANNELS 6 {order}"]
    bvh += [*block("a", 1), *block("c", 1), "}", "MOTION", f"Frames: {frames}", "Frame Time: 0.1"]
    bvh += [" ".join(map(repr, row.tolist())) for row in np.concatenate(columns, axis=1)]
    (folder / "five.bvh").write_text("\n".join(bvh))


def test_the_same_motion_as_asf_amc_and_as_bvh(tmp_path):
    write_both(tmp_path, np.random.default_rng(0))
    skeleton = read_asf(tmp_path / "five.asf")
    ends = bone_ends(skeleton, read_amc(tmp_path / "five_01.amc", skeleton))
    joints = joint_positions(read_bvh(tmp_path / "five.bvh"))
    assert np.ptp(ends["e"], axis=0).min() > 0.1
    # A bone ends where its child's joint is, or its end site.
    for bone, joint in {
        "root": "a",
        "a": "b",
        "b": "b_end",
        "c": "d",
        "d": "e",
        "e": "e_end",
    }.items():
        np.testing.assert_allclose(joints[joint], ends[bone], atol=1e-6)


def test_joints_are_taken_by_name_and_in_metres(arm):
    names = [("Elbow",)] * 16 + [("Hips", "Elbow_end")]
    clip = load_bvh(arm, unit=0.1, names=names, action="wave")
    assert (clip.name, clip.subject, clip.action) == ("bvh/arm/arm_01", "arm", "wave")
    assert clip.skeleton == "h36m_17"
    np.testing.assert_allclose(clip.poses[0, 0], [0.35, 0.2, 0.3], atol=1e-7)
    np.testing.assert_allclose(clip.poses[0, 16], [0.3, 0.2, 0.3], atol=1e-7)
    with pytest.raises(ValueError, match=r"arm_01\.bvh: expected joints named \['Chest', 'Head'"):
        load_bvh(arm)
    with pytest.raises(ValueError, match="unit: expected more than 0 metres, got 0"):
        load_bvh(arm, unit=0)


def test_the_real_subject_stands_upright_and_has_stiff_bones():
    path = SHARED / "cmu_raw" / "bvh" / "131_01.bvh"
    if not path.is_file():
        pytest.skip("needs ../shared/data")
    clip = load_bvh(path)
    poses = clip.poses
    assert poses.shape == (994, 17, 3)
    assert (clip.subject, round(clip.fps)) == ("131", 120)
    index = {name: i for i, name in enumerate(H36M_17.joints)}
    assert poses[..., 1].min() > 0.0
    assert 1.2 < np.median(poses[:, index["head"], 1]) < 1.8
    # Left is left: in the frame where the trunk points up and the hips to the left.
    up = poses[:, index["neck"]] - poses[:, index["pelvis"]]
    left = poses[:, index["left_hip"]] - poses[:, index["right_hip"]]
    forward = np.cross(left, up)
    travelled = (poses[-1] - poses[0])[index["pelvis"]]
    assert np.median(forward @ (travelled / np.linalg.norm(travelled))) > 0
    for side in ("left", "right"):
        for a, b, low, high in (("hip", "knee", 0.35, 0.5), ("elbow", "wrist", 0.15, 0.3)):
            ends = poses[:, index[f"{side}_{a}"]], poses[:, index[f"{side}_{b}"]]
            length = np.linalg.norm(ends[0] - ends[1], axis=-1)
            assert low < length.mean() < high
            assert length.std() < 1e-5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("MOTION", "", r"arm_01\.bvh: expected the line MOTION"),
        ("Frames: 3", "Frame: 3", r"arm_01\.bvh:17: expected the lines 'Frames:' and"),
        ("Frames: 3", "Frames: 4", r"expected 4 frames, got 3 \(is the file truncated\?\)"),
        ("Frames: 3", "Frames: x", r"arm_01\.bvh:17: Frames: expected 1 numbers .*, got 'x'"),
        ("Time: .02", "Time: 0", r"Frame Time: expected more than 0.0001 seconds, got 0.0"),
        ("0 0 0 90 90 0 0 90 90", "0 0 0 90", r"arm_01\.bvh:21: expected 9 numbers"),
        ("1 2 3 90 0 0", "1 2 nan 90 0 0", r"arm_01\.bvh:20: expected 9 numbers"),
        ("CHANNELS 3", "CHANNELS 2", r"arm_01\.bvh:9: expected 2 channels"),
        ("Zrotation Xrotation Y", "Zrotation Zrotation Y", r"bvh:9: expected 3 channels"),
        ("Zrotation Xrotation Y", "Xposition Xrotation Y", r"bvh:9: .*, got \['Xposition'"),
        ("OFFSET 2 0 0", "OFFSET 2 0", r"arm_01\.bvh:8: OFFSET: expected 3 numbers"),
        ("\t\tOFFSET 2 0 0\n", "", r"arm_01\.bvh: joint 'Elbow': expected an OFFSET"),
        ("JOINT Elbow", "JOINT Hips", r"arm_01\.bvh:6: the joint 'Hips' occurs twice"),
        ("JOINT Elbow", "ROOT Elbow", r"arm_01\.bvh:6: expected one ROOT"),
        ("JOINT Elbow", "BONE Elbow", r"arm_01\.bvh:6: expected a line of a skeleton, got 'BONE"),
        ("}\nMOTION", "MOTION", r"arm_01\.bvh: expected a whole HIERARCHY"),
        ("}\nMOTION", "}\n}\nMOTION", r"arm_01\.bvh:16: expected a line of a skeleton, got '}'"),
    ],
)
def test_broken_files_are_named_by_path_and_line(old, new, message, arm):
    assert ARM.count(old) >= 1
    arm.write_text(ARM.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_bvh(arm)


def test_truncated_and_altered_files_give_a_motion_or_a_readable_error(arm):
    for end in range(len(ARM) - 2):
        arm.write_text(ARM[:end])
        with pytest.raises(ValueError, match=r"arm_01\.bvh"):
            read_bvh(arm)
    rng, refused = np.random.default_rng(0), 0
    for _ in range(100):
        broken = bytearray(ARM.encode())
        for at in rng.integers(len(broken), size=2):
            broken[at] = rng.choice(list(b"0 9.-e\n{}xE\xff\x00"))
        arm.write_bytes(broken)
        try:
            motion = read_bvh(arm)
        except ValueError as error:
            refused += "arm_01.bvh" in str(error)
        else:
            assert all(np.isfinite(p).all() for p in joint_positions(motion).values())
    assert refused > 40


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"none\.bvh: no such file"):
        read_bvh(tmp_path / "none.bvh")
