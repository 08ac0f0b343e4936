"""Skeletons and joint maps against the tables of the data sets."""

import numpy as np
import pytest

from posediff_jax.skeleton import (
    H36M_16,
    H36M_17,
    JOINT_MAPS,
    SKELETONS,
    Skeleton,
    check_joints,
    get_skeleton,
    joint_map,
)


@pytest.mark.parametrize("skeleton", SKELETONS.values(), ids=lambda s: s.name)
class TestEverySkeleton:
    def test_left_and_right_mirror_each_other_by_name(self, skeleton):
        for left, right in zip(skeleton.left, skeleton.right, strict=True):
            assert skeleton.joints[left].replace("left", "right") == skeleton.joints[right]
        sided = [j for j, name in enumerate(skeleton.joints) if "left" in name or "right" in name]
        assert sorted((*skeleton.left, *skeleton.right)) == sided

    def test_flipping_twice_is_the_identity(self, skeleton):
        order = np.array(skeleton.flip_permutation)
        np.testing.assert_array_equal(order[order], np.arange(skeleton.num_joints))

    def test_mirrored_joints_have_mirrored_parents(self, skeleton):
        order = skeleton.flip_permutation
        for child, parent in skeleton.bones:
            assert skeleton.parents[order[child]] == order[parent]

    def test_the_tree_is_connected(self, skeleton):
        adjacency = skeleton.neighbours()
        np.testing.assert_array_equal(adjacency, adjacency.T)
        assert adjacency.sum() == 2 * (skeleton.num_joints - 1)
        walks = np.linalg.matrix_power(adjacency + np.eye(skeleton.num_joints), 17)
        assert (walks > 0).all()

    def test_chains_cover_all_joints_from_root_to_leaf(self, skeleton):
        assert set().union(*skeleton.chains) == set(range(skeleton.num_joints))
        for chain in skeleton.chains:
            assert chain[0] == skeleton.root
            assert [skeleton.parents[j] for j in chain[1:]] == list(chain[:-1])
            assert [skeleton.levels[j] for j in chain] == list(range(len(chain)))

    def test_parents_come_first_in_topological_order(self, skeleton):
        place = {joint: i for i, joint in enumerate(skeleton.topological_order)}
        assert all(place[parent] < place[child] for child, parent in skeleton.bones)


def test_h36m_16_is_h36m_17_without_the_neck():
    assert H36M_16.joints == tuple(j for j in H36M_17.joints if j != "neck")
    assert H36M_16.joints[9] == "head"


@pytest.mark.parametrize("names", JOINT_MAPS, ids=lambda n: "-".join(n))
def test_maps_copy_joints_of_the_same_name(names):
    mapping = JOINT_MAPS[names]
    target = SKELETONS[mapping.target]
    assert len(mapping.sources) == target.num_joints
    if mapping.source not in SKELETONS:
        return
    source = SKELETONS[mapping.source]
    for name, sources in zip(target.joints, mapping.sources, strict=True):
        if len(sources) == 1 and ("left" in name or "right" in name):
            assert source.joints[sources[0]] == name


def test_3dhp_round_trip():
    points = np.random.default_rng(0).normal(size=(4, 17, 3))
    there = joint_map("mpi_inf_3dhp_17", "h36m_17").apply(points)
    np.testing.assert_array_equal(joint_map("h36m_17", "mpi_inf_3dhp_17").apply(there), points)


def test_coco_derives_the_torso():
    mapping = joint_map("coco_17", "h36m_17")
    coco = np.random.default_rng(0).normal(size=(17, 2))
    h36m = mapping.apply(coco)
    hips, shoulders = coco[[11, 12]].mean(axis=0), coco[[5, 6]].mean(axis=0)
    np.testing.assert_allclose(h36m[0], hips)
    np.testing.assert_allclose(h36m[8], shoulders)
    np.testing.assert_allclose(h36m[7], (hips + shoulders) / 2)
    derived = [H36M_17.joints[j] for j in np.flatnonzero(mapping.derived)]
    assert derived == ["pelvis", "spine", "thorax", "head"]
    confidence = np.ones(17)
    confidence[11] = 0.25
    assert mapping.apply_confidence(confidence)[[0, 7, 4, 8]].tolist() == [0.25, 0.25, 0.25, 1.0]


def test_a_wrong_joint_count_is_named():
    with pytest.raises(ValueError, match=r"points: expected 17 joints of coco_17 .*\(16, 2\)"):
        joint_map("coco_17", "h36m_17").apply(np.zeros((16, 2)))
    with pytest.raises(ValueError, match=r"confidence: expected 17 joints .*\(3,\)"):
        joint_map("coco_17", "h36m_17").apply_confidence(np.zeros(3))
    with pytest.raises(ValueError, match=r"pose: expected \(..., 16, 3\) for skeleton 'h36m_16'"):
        check_joints(np.zeros((2, 17, 3)), H36M_16, channels=3, name="pose")


def test_unknown_names_list_the_known_ones():
    with pytest.raises(ValueError, match=r"skeleton: expected one of .*'h36m_17'.* got 'smpl'"):
        get_skeleton("smpl")
    with pytest.raises(ValueError, match=r"coco_17 -> h36m_17.* got h36m_17 -> coco_17"):
        joint_map("h36m_17", "coco_17")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"parents": (-1, 0)}, r"parents: expected one per joint \(3\), got 2"),
        ({"parents": (-1, -1, 0)}, "parents: expected exactly one root"),
        ({"parents": (-1, 2, 1)}, "parents: joint 1 never reaches the root"),
        ({"parents": (-1, -2, 0)}, "parents: expected -1 to 2"),
        ({"parents": (-1, 3, 0)}, "parents: expected -1 to 2"),
        ({"left": (1,), "right": (3,)}, "left, right: expected disjoint pairs of joints 0 to 2"),
        ({"left": (1,), "right": ()}, "left, right: expected disjoint pairs"),
        ({"left": (1,), "right": (1,)}, "left, right: expected disjoint pairs"),
    ],
)
def test_a_broken_skeleton_is_refused(change, message):
    fields = {"parents": (-1, 0, 1), "left": (), "right": (), **change}
    with pytest.raises(ValueError, match=message):
        Skeleton(name="broken", joints=("a", "b", "c"), **fields)
