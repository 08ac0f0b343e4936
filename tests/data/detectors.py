"""Keypoint files as detectors write them, by hand after the tools' public documentation.

Orders of joints: AlphaPose docs/output.md (COCO), the Halpe-FullBody README, OpenPose
doc/02_output.md (BODY_25). Structures: the same pages, and MMPose's `split_instances`. Nothing here
is taken from the readers.
"""

import json

import numpy as np

# One person, standing, seen from the front: the left side of the body is on the right of the image.
PERSON = {
    "Head": (500, 130),
    "Nose": (500, 180),
    **{"LEye": (510, 170), "REye": (490, 170), "LEar": (522, 176), "REar": (478, 176)},
    "Neck": (500, 240),
    **{"LShoulder": (555, 240), "LElbow": (585, 345), "LWrist": (600, 440)},
    **{"RShoulder": (445, 240), "RElbow": (415, 345), "RWrist": (400, 440)},
    "Hip": (500, 430),
    **{"LHip": (535, 430), "LKnee": (545, 590), "LAnkle": (550, 750)},
    **{"RHip": (465, 430), "RKnee": (455, 590), "RAnkle": (450, 750)},
    **{"LBigToe": (560, 780), "LSmallToe": (572, 778), "LHeel": (548, 765)},
    **{"RBigToe": (440, 780), "RSmallToe": (428, 778), "RHeel": (452, 765)},
}
COCO = (
    *("Nose", "LEye", "REye", "LEar", "REar", "LShoulder", "RShoulder", "LElbow", "RElbow"),
    *("LWrist", "RWrist", "LHip", "RHip", "LKnee", "RKnee", "LAnkle", "RAnkle"),
)
HALPE = (
    *COCO,
    *("Head", "Neck", "Hip", "LBigToe", "RBigToe", "LSmallToe", "RSmallToe", "LHeel", "RHeel"),
)
BODY_25 = (
    *("Nose", "Neck", "RShoulder", "RElbow", "RWrist", "LShoulder", "LElbow", "LWrist", "Hip"),
    *("RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "REye", "LEye", "REar", "LEar"),
    *("LBigToe", "LSmallToe", "LHeel", "RBigToe", "RSmallToe", "RHeel"),
)
# What the joints of Human3.6M-17 are in these words, in its order; several mean their middle.
H36M = (
    *("Hip", "RHip", "RKnee", "RAnkle", "LHip", "LKnee", "LAnkle", "Spine", "Neck", "Nose", "Head"),
    *("LShoulder", "LElbow", "LWrist", "RShoulder", "RElbow", "RWrist"),
)


def middle(*names):
    return np.mean([PERSON[name] for name in names], axis=0)


def expected(*, derived=(), head=None):
    """The person in Human3.6M-17 joints; the head where a layout has none is that of the eyes."""
    points = {name: np.array(PERSON.get(name, (0, 0)), float) for name in H36M}
    points["Spine"] = middle("Hip", "Neck")
    points["Head"] = points["Head"] if head is None else head
    return np.array([points[name] for name in H36M])


def rows(names, *, shift=(0, 0), score=0.9, scores=None):
    """x, y, confidence of each joint; `scores` names exceptions."""
    return [
        [PERSON[n][0] + shift[0], PERSON[n][1] + shift[1], (scores or {}).get(n, score)]
        for n in names
    ]


def flat(points):
    return [x for row in points for x in row]


def alphapose(path, frames, *, image="{}.jpg"):
    """Writes what `--outdir` gets: frames as lists of (points, idx or None)."""
    entries = []
    for frame, people in frames.items():
        for points, idx in people:
            entry = {
                "image_id": image.format(frame),
                "category_id": 1,
                "keypoints": flat(points),
                "score": 2.9,
                "box": [400.0, 100.0, 220.0, 690.0],
            }
            entries.append(entry if idx is None else entry | {"idx": idx})
    path.write_text(json.dumps(entries))
    return path


def openpose(folder, frames, *, video="walk"):
    """Writes what `--write_json` gets: a file for each frame."""
    folder.mkdir(exist_ok=True)
    empty = ("face", "hand_left", "hand_right")
    for frame, people in frames.items():
        content = {
            "version": 1.3,
            "people": [
                {"person_id": [-1], "pose_keypoints_2d": flat(points)}
                | {f"{part}_keypoints_2d": [] for part in empty}
                | {"pose_keypoints_3d": []}
                for points in people
            ],
        }
        (folder / f"{video}_{frame:012d}_keypoints.json").write_text(json.dumps(content))
    return folder


def instance(points, **fields):
    """One person as MMPose's `split_instances` has it."""
    return {
        "keypoints": [row[:2] for row in points],
        "keypoint_scores": [row[2] for row in points],
        "bbox": [[400.0, 100.0, 620.0, 790.0]],
        "bbox_score": 0.98,
        **fields,
    }
