"""CMU's text files: by hand, against SciPy's rotations, and against `cmu17` where it is."""

import re
from pathlib import Path

import numpy as np
import pytest

from posediff_jax.data.asf import read_asf
from posediff_jax.data.asf_amc import bone_ends, load_asf_amc, read_amc
from posediff_jax.data.cmu17 import load_cmu17
from tests import fakes

SHARED = Path(__file__).parents[3] / "shared" / "data"

# One unit of length is a metre.
TWO_BONES = """\
# A comment with a byte of another code page: \xe9
:version 1.10
:units
  mass 1.0
  length 0.0254
  angle deg
:root
   order TX TY TZ RX RY RZ
   axis XYZ
   position 0 0 0
   orientation 0 0 0
:bonedata
  begin
     id 1
     name upper
     direction 1 0 0
     length 2
     axis 0 0 0  XYZ
    dof rx ry rz
    limits (-160.0 20.0)
           (-70.0 70.0)
           (-60.0 70.0)
  end
  begin
     id 2
     name lower
     direction 1 0 0
     length 1
     axis 0 0 90  XYZ
    dof rx
  end
:hierarchy
  begin
    root upper
    upper lower
  end
"""
FOUR_FRAMES = """\
#!OML
:FULLY-SPECIFIED
:DEGREES
1
root 1 2 3 0 0 0
upper 0 0 0
lower 0
2
root 1 2 3 0 0 0
upper 0 0 90
lower 0
3
root 1 2 3 0 0 0
upper 0 0 0
lower 90
4
root 0 0 0 90 0 90
upper 0 0 0
lower 0
"""


@pytest.fixture
def two_bones(tmp_path):
    asf, amc = tmp_path / "two.asf", tmp_path / "two_01.amc"
    asf.write_text(TWO_BONES, encoding="latin-1")
    amc.write_text(FOUR_FRAMES)
    return asf, amc


def test_positions_worked_out_by_hand(two_bones):
    asf, amc = two_bones
    skeleton = read_asf(asf)
    ends = bone_ends(skeleton, read_amc(amc, skeleton))
    assert [bone.name for bone in skeleton.bones] == ["upper", "lower"]
    np.testing.assert_allclose(ends["root"], [[1, 2, 3]] * 3 + [[0, 0, 0]], atol=1e-12)
    # Along x; turned to y; along x; the root takes x to y after turning about x, which changes none
    # of it.
    np.testing.assert_allclose(
        ends["upper"], [[3, 2, 3], [1, 4, 3], [3, 2, 3], [0, 2, 0]], atol=1e-12
    )
    # In frame 3 the lower bone turns about its own x axis, which is the world's y.
    np.testing.assert_allclose(
        ends["lower"], [[4, 2, 3], [1, 5, 3], [3, 2, 2], [0, 3, 0]], atol=1e-12
    )


def test_rotations_are_about_x_first(two_bones):
    asf, amc = two_bones
    text = FOUR_FRAMES.replace("upper 0 0 90", "upper 0 90 90")
    amc.write_text(text)
    skeleton = read_asf(asf)
    upper = bone_ends(skeleton, read_amc(amc, skeleton))["upper"][1] - [1, 2, 3]
    # About y the bone goes from x to -z, which the turn about z leaves alone; the other way round
    # it would go to y.
    np.testing.assert_allclose(upper, [0, 0, -2], atol=1e-12)


def test_a_bone_without_values_stands_still(two_bones):
    asf, amc = two_bones
    lines = [line for line in FOUR_FRAMES.splitlines() if not line.startswith("lower")]
    amc.write_text("\n".join(lines))
    skeleton = read_asf(asf)
    motion = read_amc(amc, skeleton)
    assert set(motion) == {"root", "upper"}
    np.testing.assert_allclose(bone_ends(skeleton, motion)["lower"][2], [4, 2, 3], atol=1e-12)


def test_a_whole_body_agrees_with_scipy(tmp_path):
    truth = fakes.write_fake_asf_amc(tmp_path, "77", {"01": 5, "12": 3})
    for trial, expected in truth.items():
        clip = load_asf_amc(tmp_path / "77/77.asf", tmp_path / f"77/77_{trial}.amc")
        np.testing.assert_allclose(clip.poses, expected, atol=1e-6)
        assert (clip.name, clip.subject) == (f"asf/77/77_{trial}", "77")
        assert (clip.fps, clip.action, clip.skeleton) == (120.0, "unlabelled", "h36m_17")
        assert clip.poses.dtype == np.float32
    skeleton = read_asf(tmp_path / "77/77.asf")
    again = load_asf_amc(skeleton, tmp_path / "77/77_12.amc", fps=60.0)
    np.testing.assert_array_equal(again.poses, clip.poses)
    assert again.fps == 60.0


@pytest.mark.parametrize("trial", ["02_01", "02_03", "02_04"])
def test_real_motion_equals_cmu17_at_every_second_frame(trial):
    raw = SHARED / "cmu_raw" / "02"
    if not raw.is_dir() or not (SHARED / "cmu17").is_dir():
        pytest.skip("needs ../shared/data")
    clip = load_asf_amc(raw / "02.asf", raw / f"{trial}.amc").every(2)
    (expected,) = (c for c in load_cmu17(SHARED / "cmu17") if c.name == clip.name)
    assert clip.fps == expected.fps
    np.testing.assert_allclose(clip.poses, expected.poses, atol=1e-5)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":hierarchy", ":other", r"two\.asf: expected the sections \['hierarchy'\]"),
        ("length 0.0254", "length 0", r"two\.asf:5: length: expected more than 1e-06, got 0.0"),
        ("length 0.0254", "size 1", r"two\.asf: units: expected a line that begins with 'length'"),
        ("angle deg", "angle rad", r"two\.asf: units: expected angle deg, got 'rad'"),
        ("position 0 0 0", "position 0 1 0", r"two\.asf: root: expected position 0 0 0"),
        ("axis XYZ", "axis ZYX", r"two\.asf: root: expected the axis order XYZ, got 'ZYX'"),
        ("RX RY RZ", "RX RY", r"two\.asf: root: expected an order of"),
        ("axis 0 0 90  XYZ", "axis 0 0 90 ZXY", r"asf:24: bone 'lower': expected the axis order"),
        ("axis 0 0 90  XYZ", "axis 0 90  XYZ", r"'lower': axis: expected 3 numbers .* '0 90'"),
        ("direction 1 0 0", "direction 1 0 nan", r"asf:13: bone 'upper': direction: expected 3"),
        ("     length 1\n", "", r"two\.asf:24: expected \['length'\] of a bone"),
        ("dof rx\n", "dof l\n", r"bone 'lower': dof: expected some of .*, got \('l',\)"),
        ("name lower", "name upper", r"two\.asf:24: the bone 'upper' occurs twice"),
        ("name lower", "name other", r"'other': expected it in the hierarchy, got \['lower'"),
        ("upper lower", "upper lower extra", r"hierarchy: no bonedata for \['extra'\]"),
        ("upper lower", "upper lower upper", r"two\.asf:35: the bone 'upper' has two parents"),
        ("root upper", "lower upper", r"hierarchy: \['lower', 'upper'\] never reach the root"),
        ("  end\n  begin\n     id 2", "  begin\n     id 2", r"two\.asf:23: a 'begin' without"),
        ("  end\n:hierarchy", ":hierarchy", r"two\.asf:24: expected an 'end' \(is the file trunc"),
    ],
)
def test_broken_skeletons_are_named_by_path_and_line(old, new, message, two_bones):
    assert TWO_BONES.count(old) >= 1
    two_bones[0].write_text(TWO_BONES.replace(old, new, 1), encoding="latin-1")
    with pytest.raises(ValueError, match=message):
        read_asf(two_bones[0])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (":DEGREES\n", "", r"two_01\.amc: expected the line :DEGREES"),
        ("\n2\n", "\n3\n", r"two_01\.amc:8: expected frame 2, got 3"),
        ("1\nroot", "root", r"two_01\.amc:4: expected a frame number before 'root 1 2 3"),
        ("lower 90", "lower", r"two_01\.amc:15: lower: expected 1 numbers .*, got ''"),
        ("lower 90", "lower inf", r"two_01\.amc:15: lower: expected 1 numbers"),
        ("lower 90", "lower 9x", r"two_01\.amc:15: lower: expected 1 numbers .*, got '9x'"),
        ("lower 90", "hand 90", r"two_01\.amc:15: expected a bone once, got 'hand'"),
        ("lower 90", "upper 1 2 3", r"two_01\.amc:15: expected a bone once, got 'upper'"),
        ("lower 90\n", "", r"two_01\.amc:15: .* same bones .* frame 3 .* differs in \['lower'\]"),
        ("upper 0 0 0\nlower 0\n2", "2", r"frame 2 of the file differs in \['lower', 'upper'\]"),
    ],
)
def test_broken_motions_are_named_by_path_and_line(old, new, message, two_bones):
    asf, amc = two_bones
    assert FOUR_FRAMES.count(old) >= 1
    amc.write_text(FOUR_FRAMES.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_amc(amc, read_asf(asf))


def test_truncated_motions_are_refused_unless_cut_between_frames(two_bones):
    asf, amc = two_bones
    skeleton, whole = read_asf(asf), read_amc(amc, read_asf(asf))
    # Inside the first frame it might be a motion of fewer bones.
    for end in range(FOUR_FRAMES.index("\n2\n") + 2, len(FOUR_FRAMES)):
        text = FOUR_FRAMES[:end]
        amc.write_text(text)
        if re.search(r"\nlower \d+\n?$", text):
            motion = read_amc(amc, skeleton)
            frames = len(motion["root"])
            np.testing.assert_array_equal(motion["upper"], whole["upper"][:frames])
        else:
            with pytest.raises(ValueError, match=r"two_01\.amc"):
                read_amc(amc, skeleton)


def test_altered_files_give_a_clip_or_a_readable_error(tmp_path):
    fakes.write_fake_asf_amc(tmp_path, "77", {"01": 2})
    asf, amc = tmp_path / "77/77.asf", tmp_path / "77/77_01.amc"
    rng, refused = np.random.default_rng(0), 0
    for path in (asf, amc):
        text = path.read_bytes()
        for _ in range(60):
            broken = bytearray(text)
            for at in rng.integers(len(text), size=2):
                broken[at] = rng.choice(list(b"0 9.-e\n:#xE\xff\x00"))
            path.write_bytes(broken)
            try:
                load_asf_amc(asf, amc)
            except ValueError as error:
                refused += path.name in str(error)
        path.write_bytes(text)
    assert refused > 40


def test_a_skeleton_without_a_bone_of_cmu_and_missing_files_are_named(two_bones, tmp_path):
    with pytest.raises(ValueError, match=r"two\.asf: expected joints named \['head', 'lclavicle'"):
        load_asf_amc(*two_bones)
    with pytest.raises(FileNotFoundError, match=r"none\.asf: no such file"):
        load_asf_amc(tmp_path / "none.asf", two_bones[1])
    with pytest.raises(FileNotFoundError, match=r"none\.amc: no such file"):
        load_asf_amc(two_bones[0], tmp_path / "none.amc")
