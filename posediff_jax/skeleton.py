"""Skeletons: named joints in a tree, and named maps between joint orders. Plain NumPy.

Two skeletons of 17 joints are not the same skeleton: COCO-17, Human3.6M-17 and MPI-INF-3DHP-17
agree in the count alone. So poses travel with a `Skeleton`, and conversions go through the
`joint_map` of two names, never through a bare index list.
"""

import dataclasses
import functools

import numpy as np
from numpy.typing import ArrayLike, NDArray


@dataclasses.dataclass(frozen=True)
class Skeleton:
    """A tree of named joints. Hashable, so it may be a static argument of a jitted function.

    Attributes:
      name: Key in `SKELETONS`.
      joints: J joint names.
      parents: Parent index of each joint, -1 for the root.
      left: Joints of the left side of the body.
      right: The mirror partner of each entry of `left`, in the same order.

    Raises:
      ValueError: The lengths disagree, the parents are not one tree, or left and right do not pair.
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.joints) != len(self.parents):
            raise ValueError(
                f"parents: expected one per joint ({len(self.joints)}), got {len(self.parents)}"
            )
        if self.parents.count(-1) != 1:
            raise ValueError(f"parents: expected exactly one root (-1), got {self.parents}")
        every = range(len(self.joints))
        if not all(-1 <= parent < len(every) for parent in self.parents):
            raise ValueError(f"parents: expected -1 to {len(every) - 1}, got {self.parents}")
        for joint in every:
            if len(_path_to_root(self.parents, joint)) > len(self.joints):
                raise ValueError(f"parents: joint {joint} never reaches the root: {self.parents}")
        paired = (*self.left, *self.right)
        disjoint = len(self.left) == len(self.right) and len(set(paired)) == len(paired)
        if not disjoint or not set(paired) <= set(every):
            raise ValueError(
                f"left, right: expected disjoint pairs of joints 0 to {len(every) - 1}, "
                f"got left={self.left}, right={self.right}"
            )

    @property
    def num_joints(self) -> int:
        """J."""
        return len(self.joints)

    @property
    def root(self) -> int:
        """Index of the joint without a parent."""
        return self.parents.index(-1)

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(child, parent) for each joint but the root, in joint order."""
        return tuple((j, p) for j, p in enumerate(self.parents) if p >= 0)

    @property
    def levels(self) -> tuple[int, ...]:
        """Number of bones between each joint and the root."""
        return tuple(len(_path_to_root(self.parents, j)) - 1 for j in range(self.num_joints))

    @property
    def chains(self) -> tuple[tuple[int, ...], ...]:
        """The paths from the root to each leaf, root first."""
        leaves = sorted(set(range(self.num_joints)) - set(self.parents))
        return tuple(tuple(reversed(_path_to_root(self.parents, leaf))) for leaf in leaves)

    @functools.cached_property
    def topological_order(self) -> tuple[int, ...]:
        """Joints sorted so that every parent comes before its children."""
        return tuple(sorted(range(self.num_joints), key=lambda j: (self.levels[j], j)))

    @property
    def flip_permutation(self) -> tuple[int, ...]:
        """Joint order after mirroring: `pose[..., flip_permutation, :]` swaps left and right."""
        order = list(range(self.num_joints))
        for a, b in zip(self.left, self.right, strict=True):
            order[a], order[b] = b, a
        return tuple(order)

    def neighbours(self) -> NDArray[np.float64]:
        """The symmetric 0/1 neighbour matrix A of the tree, without self loops, (J, J)."""
        adjacency = np.zeros((self.num_joints, self.num_joints))
        for child, parent in self.bones:
            adjacency[child, parent] = adjacency[parent, child] = 1.0
        return adjacency


@dataclasses.dataclass(frozen=True)
class JointMap:
    """How each joint of `target` is made from joints of `source`.

    Attributes:
      source: Name of the joint order to convert from.
      target: Name of the joint order to convert to.
      sources: For each target joint the source joints whose mean it is; one entry means a copy.
    """

    source: str
    target: str
    sources: tuple[tuple[int, ...], ...]

    @property
    def derived(self) -> tuple[bool, ...]:
        """True where a target joint is a mean of several source joints, not a copy."""
        return tuple(len(s) > 1 for s in self.sources)

    def apply(self, points: NDArray) -> NDArray:
        """Converts `(..., J_source, C)` points to `(..., J_target, C)`.

        Raises:
          ValueError: `points` has too few joints for this map.
        """
        points = np.asarray(points)
        self._check(points.shape, axis=-2, name="points")
        return np.stack([points[..., list(s), :].mean(axis=-2) for s in self.sources], axis=-2)

    def apply_confidence(self, confidence: NDArray) -> NDArray:
        """Converts `(..., J_source)` confidences; a derived joint takes the least of its parents.

        Raises:
          ValueError: `confidence` has too few joints for this map.
        """
        confidence = np.asarray(confidence)
        self._check(confidence.shape, axis=-1, name="confidence")
        return np.stack([confidence[..., list(s)].min(axis=-1) for s in self.sources], axis=-1)

    def _check(self, shape: tuple[int, ...], *, axis: int, name: str) -> None:
        expected = SKELETONS[self.source].num_joints if self.source in SKELETONS else None
        needed = 1 + max(max(s) for s in self.sources)
        found = shape[axis] if len(shape) >= -axis else 0
        if found < needed or (expected is not None and found != expected):
            raise ValueError(
                f"{name}: expected {expected or f'at least {needed}'} joints of {self.source} "
                f"on axis {axis}, got shape {shape}"
            )


def _path_to_root(parents: tuple[int, ...], joint: int) -> list[int]:
    path = [joint]
    while parents[path[-1]] >= 0 and len(path) <= len(parents):
        path.append(parents[path[-1]])
    return path


H36M_17 = Skeleton(
    name="h36m_17",
    joints=(
        "pelvis",
        *("right_hip", "right_knee", "right_ankle"),
        *("left_hip", "left_knee", "left_ankle"),
        *("spine", "thorax", "neck", "head"),
        *("left_shoulder", "left_elbow", "left_wrist"),
        *("right_shoulder", "right_elbow", "right_wrist"),
    ),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 9, 8, 11, 12, 8, 14, 15),
    left=(4, 5, 6, 11, 12, 13),
    right=(1, 2, 3, 14, 15, 16),
)

# Human3.6M-17 without the neck (nose) joint: the order of HR-Net keypoint files.
H36M_16 = Skeleton(
    name="h36m_16",
    joints=tuple(j for j in H36M_17.joints if j != "neck"),
    parents=(-1, 0, 1, 2, 0, 4, 5, 0, 7, 8, 8, 10, 11, 8, 13, 14),
    left=(4, 5, 6, 10, 11, 12),
    right=(1, 2, 3, 13, 14, 15),
)

HUMANEVA_15 = Skeleton(
    name="humaneva_15",
    joints=(
        *("pelvis", "thorax"),
        *("left_shoulder", "left_elbow", "left_wrist"),
        *("right_shoulder", "right_elbow", "right_wrist"),
        *("left_hip", "left_knee", "left_ankle"),
        *("right_hip", "right_knee", "right_ankle"),
        "head",
    ),
    parents=(-1, 0, 1, 2, 3, 1, 5, 6, 0, 8, 9, 0, 11, 12, 1),
    left=(2, 3, 4, 8, 9, 10),
    right=(5, 6, 7, 11, 12, 13),
)

# The data set's own tree: the head top hangs on the head.
MPI_INF_3DHP_17 = Skeleton(
    name="mpi_inf_3dhp_17",
    joints=(
        *("head_top", "neck"),
        *("right_shoulder", "right_elbow", "right_wrist"),
        *("left_shoulder", "left_elbow", "left_wrist"),
        *("right_hip", "right_knee", "right_ankle"),
        *("left_hip", "left_knee", "left_ankle"),
        *("pelvis", "spine", "head"),
    ),
    parents=(16, 15, 1, 2, 3, 1, 5, 6, 14, 8, 9, 14, 11, 12, -1, 14, 1),
    left=(5, 6, 7, 11, 12, 13),
    right=(2, 3, 4, 8, 9, 10),
)

# COCO has no pelvis; the tree follows its drawn edges from the nose over ears and shoulders.
COCO_17 = Skeleton(
    name="coco_17",
    joints=(
        *("nose", "left_eye", "right_eye", "left_ear", "right_ear"),
        *("left_shoulder", "right_shoulder", "left_elbow", "right_elbow"),
        *("left_wrist", "right_wrist", "left_hip", "right_hip"),
        *("left_knee", "right_knee", "left_ankle", "right_ankle"),
    ),
    parents=(-1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 5, 6, 11, 12, 13, 14),
    left=(1, 3, 5, 7, 9, 11, 13, 15),
    right=(2, 4, 6, 8, 10, 12, 14, 16),
)

SKELETONS: dict[str, Skeleton] = {
    s.name: s for s in (H36M_17, H36M_16, HUMANEVA_15, MPI_INF_3DHP_17, COCO_17)
}

SEGMENTS = ("anatomical", "official")
# Skeletons whose released segments are known, see `segments`.
RELEASED_SEGMENTS = (H36M_17.name, H36M_16.name)

_H36M_FROM_32 = (0, 1, 2, 3, 6, 7, 8, 12, 13, 14, 15, 17, 18, 19, 25, 26, 27)
_H36M_FROM_3DHP = (14, 8, 9, 10, 11, 12, 13, 15, 1, 16, 0, 5, 6, 7, 2, 3, 4)
_3DHP_FROM_H36M = (10, 8, 14, 15, 16, 11, 12, 13, 1, 2, 3, 4, 5, 6, 0, 7, 9)
# Pelvis, thorax and spine are means of hips and shoulders; neck is the nose, head the eyes' mean.
_H36M_FROM_COCO = (
    *((11, 12), (12,), (14,), (16,), (11,), (13,), (15,)),
    *((5, 6, 11, 12), (5, 6), (0,), (1, 2)),
    *((5,), (7,), (9,), (6,), (8,), (10,)),
)
# Pelvis and thorax as above; the head is the mean of the ears.
_HUMANEVA_FROM_COCO = (
    *((11, 12), (5, 6)),
    *((5,), (7,), (9,), (6,), (8,), (10,)),
    *((11,), (13,), (15,), (12,), (14,), (16,)),
    (3, 4),
)


def _copies(indices: tuple[int, ...]) -> tuple[tuple[int, ...], ...]:
    return tuple((i,) for i in indices)


JOINT_MAPS: dict[tuple[str, str], JointMap] = {
    (m.source, m.target): m
    for m in (
        JointMap("h36m_32", "h36m_17", _copies(_H36M_FROM_32)),
        JointMap("h36m_17", "h36m_16", _copies(tuple(j for j in range(17) if j != 9))),
        JointMap("mpi_inf_3dhp_17", "h36m_17", _copies(_H36M_FROM_3DHP)),
        JointMap("h36m_17", "mpi_inf_3dhp_17", _copies(_3DHP_FROM_H36M)),
        JointMap("coco_17", "h36m_17", _H36M_FROM_COCO),
        JointMap("coco_17", "humaneva_15", _HUMANEVA_FROM_COCO),
    )
}


def get_skeleton(name: str) -> Skeleton:
    """Returns the skeleton of that name.

    Raises:
      ValueError: No skeleton has that name; the message lists those that exist.

    >>> get_skeleton("h36m_16").num_joints
    16
    """
    if name not in SKELETONS:
        raise ValueError(f"skeleton: expected one of {sorted(SKELETONS)}, got {name!r}")
    return SKELETONS[name]


def joint_map(source: str, target: str) -> JointMap:
    """Returns the conversion between two named joint orders.

    Raises:
      ValueError: There is no such map; the message lists those that exist.

    >>> joint_map("coco_17", "h36m_17").derived[0]
    True
    """
    if (source, target) not in JOINT_MAPS:
        known = ", ".join(f"{a} -> {b}" for a, b in JOINT_MAPS)
        raise ValueError(f"joint map: expected one of ({known}), got {source} -> {target}")
    return JOINT_MAPS[source, target]


def segments(skeleton: Skeleton, *, bones: str = "anatomical") -> tuple[tuple[int, int], ...]:
    """(child, parent) of the body segments that coherence is measured on, in joint order.

    The released DiffHPE code lists its segments before it moves the shoulders from the spine to the
    thorax, so it measures a shoulder from the spine; its graph has the thorax.

    Args:
      skeleton: The joints.
      bones: "anatomical", those of the tree, or "official", those of the released code.

    Raises:
      ValueError: Another name, or "official" for a skeleton that the release does not have.
    """
    if bones not in SEGMENTS:
        raise ValueError(f"bones: expected one of {SEGMENTS}, got {bones!r}")
    if bones == "anatomical":
        return skeleton.bones
    if skeleton.name not in RELEASED_SEGMENTS:
        raise ValueError(
            f"bones: 'official' is defined for {RELEASED_SEGMENTS}, got skeleton "
            f"{skeleton.name!r}; use 'anatomical'"
        )
    spine = skeleton.joints.index("spine")
    shoulders = [skeleton.joints.index(f"{side}_shoulder") for side in ("left", "right")]
    return tuple((child, spine if child in shoulders else p) for child, p in skeleton.bones)


def check_joints(points: ArrayLike, skeleton: Skeleton, *, channels: int, name: str) -> None:
    """Checks the static shape of `(..., J, channels)` points against a skeleton.

    Raises:
      ValueError: Wrong joint count or last axis; the message names the argument and the skeleton.
    """
    shape = np.shape(points)
    if len(shape) < 2 or shape[-1] != channels or shape[-2] != skeleton.num_joints:
        raise ValueError(
            f"{name}: expected (..., {skeleton.num_joints}, {channels}) for skeleton "
            f"{skeleton.name!r}, got {shape}"
        )
