"""Keypoints of any common detector as Human3.6M-17 joints of each person over time.

`read_keypoints` takes the JSON files of AlphaPose, OpenPose (a folder with one file for each frame)
and MMPose, and arrays under the names below in an `.npz` or `.json` file:

- `keypoints`: `(F, J, 2)` pixels or `(F, J, 3)` with confidence, or `(P, F, J, ...)` for P people.
- `layout`: the joint order, one of `LAYOUTS`.
- `confidence` (optional): `(F, J)` or `(P, F, J)`, 0 for a joint that is missing.
- `track_ids` (optional): P names or numbers; `image_size` (optional): width and height.
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from posediff_jax.data.detections import (
    Detections,
    parse_detections,
    read_json,
    read_openpose_folder,
)
from posediff_jax.data.limb_ratios import likely_layout
from posediff_jax.data.npz import read_npz
from posediff_jax.data.tracks import follow_people
from posediff_jax.skeleton import H36M_17, Skeleton, get_skeleton, joint_map

LAYOUTS = ("h36m_17", "coco_17", "halpe_26", "body_25")

_KEYS = {"keypoints", "layout", "confidence", "track_ids", "image_size"}
_LARGEST = 1e6  # pixels; beyond it a number is no place in an image
_NOTED_OUTSIDE = 0.02
_LARGEST_SCREEN = 2.0  # nobody is two pixels large


@dataclasses.dataclass(frozen=True, eq=False)
class PersonKeypoints:
    """One person from the first frame to the last one that shows them.

    Attributes:
      track: Who, as the file says or as this package counted.
      frames: Frame numbers, one after the other, `(F,)`.
      keypoints: Pixels, Human3.6M-17 joints, `(F, 17, 2)`; 0 where missing.
      confidence: In [0, 1], 0 for a joint that is missing, `(F, 17)`.
      derived: True for joints that are the mean of others; their confidence is the least of those,
        `(17,)`.
      bad: True for frames whose entry could not be read, `(F,)`.
    """

    track: str
    frames: NDArray[np.int64]
    keypoints: NDArray[np.float32]
    confidence: NDArray[np.float32]
    derived: NDArray[np.bool_]
    bad: NDArray[np.bool_]

    @property
    def num_frames(self) -> int:
        """F."""
        return len(self.frames)


@dataclasses.dataclass(frozen=True, eq=False)
class KeypointSet:
    """All people of one video.

    Attributes:
      people: At least one.
      image_size: Width and height in pixels.
      layout: The joint order that the keypoints came in.
      source: What wrote them: "alphapose", "openpose", "mmpose" or "arrays".
      notes: What a user should know: what was guessed, repaired, or left out.
      skeleton: The joint order they are in now.
    """

    people: tuple[PersonKeypoints, ...]
    image_size: tuple[int, int]
    layout: str
    source: str
    notes: tuple[str, ...] = ()
    skeleton: Skeleton = H36M_17


@dataclasses.dataclass(frozen=True, eq=False)
class _Track:
    """A person's points in the order of the file: frames `(F,)`, points `(F, J, 3)`."""

    name: str
    frames: NDArray
    points: NDArray
    bad: NDArray


def read_keypoints(
    path: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    layout: str | None = None,
    min_confidence: float = 0.1,
) -> KeypointSet:
    """Reads a file (or OpenPose's folder) of keypoints.

    Args:
      path: `.npz` or `.json`, or a folder.
      image_size: Width and height of the images in pixels; most files do not say.
      layout: The joint order, one of `LAYOUTS` in any spelling ("COCO-17"), where the file does
        not say or its tool is used in another way than usual.
      min_confidence: Joints below this are missing.

    Raises:
      FileNotFoundError: There is nothing of that name.
      ValueError: An empty or broken file, one of another tool, an unknown layout, limbs that are
        those of another layout, no image size or one that does not fit, no confidence above
        `min_confidence`, or keypoints that are not pixels.
    """
    path = Path(path)
    layout = None if layout is None else layout_name(layout)
    if path.is_dir():
        return _finish_detections(
            read_openpose_folder(path, layout=layout), path, image_size, min_confidence
        )
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file or folder of keypoints")
    if path.suffix.lower() == ".npz":
        if not path.stat().st_size:
            raise ValueError(f"{path}: expected keypoints, got an empty file")
        content: Any = read_npz(path)
        return _from_named(content, path, image_size, layout, min_confidence)
    if path.suffix.lower() != ".json":
        raise ValueError(f"{path}: expected a .npz or .json file, or a folder of .json files")
    content = read_json(path)
    if isinstance(content, dict) and "keypoints" in content:
        return _from_named(content, path, image_size, layout, min_confidence)
    detections = parse_detections(content, path, layout=layout)
    return _finish_detections(detections, path, image_size, min_confidence)


def people_from_arrays(
    keypoints: ArrayLike,
    *,
    image_size: tuple[int, int],
    layout: str,
    confidence: ArrayLike | None = None,
    track_ids: Any = None,
    min_confidence: float = 0.1,
    name: str = "keypoints",
) -> KeypointSet:
    """The same for arrays in memory.

    Args:
      keypoints: `(F, J, 2)`, `(F, J, 3)` with confidence, or `(P, F, J, ...)`; NaN for what is
        missing.
      image_size: Width and height of the images in pixels.
      layout: One of `LAYOUTS`.
      confidence: `(F, J)` or `(P, F, J)`; None trusts every finite point.
      track_ids: Of the P people.
      min_confidence: As for `read_keypoints`.
      name: What errors call the keypoints.

    Raises:
      ValueError: Shapes do not fit; and as `read_keypoints`.
    """
    layout = layout_name(layout)
    skeleton = get_skeleton(layout)
    points = _numbers(keypoints, name)
    if points.ndim not in (3, 4) or points.shape[-1] not in (2, 3) or not points.size:
        raise ValueError(
            f"{name}: expected (F, J, 2), (F, J, 3) or (P, F, J, ...) with F and P at least 1, got "
            f"shape {points.shape}"
        )
    if points.shape[-2] != skeleton.num_joints:
        raise ValueError(
            f"{name}: layout: expected the {skeleton.num_joints} keypoints of {layout!r}, got "
            f"{points.shape[-2]}"
        )
    points = points if points.ndim == 4 else points[None]
    notes = []
    if confidence is not None:
        given = _numbers(confidence, f"{name}: confidence")
        given = given if given.ndim == 3 else given[None]
        if given.shape != points.shape[:-1]:
            raise ValueError(
                f"{name}: confidence: expected {points.shape[:-1]}, one for each keypoint, got "
                f"shape {given.shape}"
            )
        points = np.concatenate([points[..., :2], given[..., None]], axis=-1)
    elif points.shape[-1] == 2:
        seen = np.isfinite(points).all(axis=-1)
        points = np.concatenate([points, seen[..., None].astype(np.float64)], axis=-1)
        zeros = int((points[..., :2] == 0).all(axis=-1).sum())
        if zeros:
            notes.append(
                f"{zeros} keypoints are at exactly (0, 0) and count as seen, because no confidence "
                "is given: give them confidence 0 or NaN if they are missing"
            )
    ids = [str(i) for i in (range(len(points)) if track_ids is None else np.ravel(track_ids))]
    if len(ids) != len(points) or len(set(ids)) != len(ids):
        raise ValueError(f"{name}: track_ids: expected {len(points)} different ones, got {ids}")
    frames = np.arange(points.shape[1])
    tracks = []
    for track, p in zip(ids, points, strict=True):
        tracks.append(_Track(track, frames, p, ~np.isfinite(p).all(axis=-1).any(axis=-1)))
    return _finish(tracks, image_size, layout, "arrays", notes, min_confidence, name)


def layout_name(layout: str) -> str:
    """The name of a layout as this package writes it.

    Raises:
      ValueError: It is not one of `LAYOUTS`.

    >>> layout_name("COCO-17"), layout_name("BODY_25")
    ('coco_17', 'body_25')
    """
    name = str(layout).strip().lower().replace("-", "_").replace(" ", "_")
    if name not in LAYOUTS:
        raise ValueError(f"layout: expected one of {LAYOUTS}, got {layout!r}")
    return name


def _from_named(
    content: Mapping[str, Any],
    path: Path,
    image_size: tuple[int, int] | None,
    layout: str | None,
    min_confidence: float,
) -> KeypointSet:
    """From a mapping with the keys that the head of this file describes."""
    if "keypoints" not in content or set(content) - _KEYS:
        raise ValueError(
            f"{path}: expected the keys 'keypoints', 'layout' and perhaps "
            f"{sorted(_KEYS - {'keypoints', 'layout'})}, got {sorted(content)}"
        )
    said = content.get("layout")
    said = None if said is None else layout_name(str(said))
    if layout is None and said is None:
        raise ValueError(
            f"{path}: layout: expected one of {LAYOUTS} in the file or given, got none"
        )
    if layout is not None and said is not None and layout != said:
        raise ValueError(f"{path}: layout: expected {said!r} as the file says, got {layout!r}")
    return people_from_arrays(
        content["keypoints"],
        image_size=_image_size(image_size, content.get("image_size"), path),
        layout=layout or said or "",
        confidence=content.get("confidence"),
        track_ids=content.get("track_ids"),
        min_confidence=min_confidence,
        name=str(path),
    )


def _image_size(given: Any, said: Any, path: Path) -> tuple[int, int]:
    sizes = [s for s in (given, said) if s is not None]
    if not sizes:
        raise ValueError(
            f"{path}: image_size: expected width and height of the images (--image-size=WxH), "
            "which the file does not say, got none"
        )
    try:
        pairs = [tuple(int(x) for x in np.ravel(np.asarray(s, np.float64))) for s in sizes]
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{path}: image_size: expected width and height, got {sizes}") from None
    if pairs[0] != pairs[-1]:
        raise ValueError(
            f"{path}: image_size: expected {pairs[-1]} as the file says, got {pairs[0]}"
        )
    if len(pairs[0]) != 2 or min(pairs[0]) < 1:
        raise ValueError(f"{path}: image_size: expected width and height, got {sizes[0]}")
    return pairs[0][0], pairs[0][1]


def _finish_detections(
    detections: Detections, path: Path, image_size: Any, min_confidence: float
) -> KeypointSet:
    size = _image_size(image_size, None, path)
    tracks, notes = _tracks(detections)
    if not tracks:
        raise ValueError(f"{path}: expected keypoints of at least one person, got none readable")
    return _finish(
        tracks, size, detections.layout, detections.tool, notes, min_confidence, str(path)
    )


def _tracks(detections: Detections) -> tuple[list[_Track], list[str]]:
    """Detections sorted by who they are of."""
    notes = list(detections.notes)
    frames = detections.frames
    names = {n: [d.track for d in people] for n, people in frames.items()}
    whole = all(None not in tracks and len(set(tracks)) == len(tracks) for tracks in names.values())
    some = any(track is not None for tracks in names.values() for track in tracks)
    if not whole:
        clean = [(n, [_clean(d.points)[0] for d in people]) for n, people in frames.items()]
        followed = follow_people(clean)
        names = {n: [str(p) for p in found] for n, found in zip(names, followed, strict=True)}
        several = any(len(people) > 1 for people in frames.values())
        if some:
            notes.append(
                "track ids are missing or double in some frames, so none was used: people were "
                "followed by their nearest keypoints"
            )
        elif several:
            notes.append("the file tracks nobody: people were followed by their nearest keypoints")
    found: dict[str, dict[int, NDArray]] = {}
    for number, people in frames.items():
        for detection, name in zip(people, names[number], strict=True):
            found.setdefault(str(name), {})[number] = detection.points
    last = max(frames)
    tracks = []
    for name, by_frame in found.items():
        numbers = np.arange(min(by_frame), max(by_frame) + 1)
        if len(found) == 1:
            # What could not be read can only have been this person.
            numbers = np.arange(min(frames), last + 1)
        points = np.full((len(numbers), *next(iter(by_frame.values())).shape), np.nan)
        points[..., 2] = 0.0
        for number, p in by_frame.items():
            points[number - numbers[0]] = p
        bad = np.isin(numbers, list(detections.bad - set(by_frame)))
        tracks.append(_Track(name, numbers, points, bad))
    if detections.bad:
        shown = sorted(detections.bad)
        notes.append(f"{len(shown)} frames have entries that cannot be read, first {shown[:5]}")
    return tracks, notes


def _clean(points: NDArray) -> tuple[NDArray, NDArray]:
    """Points without values that are not in any image, and which joints those were."""
    with np.errstate(invalid="ignore"):
        broken = ~(np.abs(points[..., :2]) <= _LARGEST).all(axis=-1) | np.isnan(points[..., 2])
    kept = np.where(broken[..., None], 0.0, points)
    kept[..., 2] = np.clip(kept[..., 2], 0.0, 1.0)
    return kept, broken


def _finish(
    tracks: list[_Track],
    image_size: tuple[int, int],
    layout: str,
    source: str,
    notes: list[str],
    min_confidence: float,
    name: str,
) -> KeypointSet:
    """Checks values, converts joints."""
    if not 0 <= min_confidence < 1:
        raise ValueError(f"min_confidence: expected a value in [0, 1), got {min_confidence}")
    image_size = _image_size(image_size, None, Path(name))
    mapping = None if layout == "h36m_17" else joint_map(layout, "h36m_17")
    derived = np.array(mapping.derived if mapping else [False] * H36M_17.num_joints)
    people, points_of = [], []
    above, num_far = False, 0
    for track in tracks:
        points, broken = _clean(track.points)
        above |= bool((track.points[..., 2] > 1).any())
        points[..., 2][points[..., 2] < min_confidence] = 0.0
        if not (points[..., 2] > 0).any():
            notes.append(f"person {track.name}: left out, no keypoint reaches {min_confidence:g}")
            continue
        points_of.append(points)
        pixels, confidence = points[..., :2], points[..., 2]
        if mapping is not None:
            pixels, confidence = mapping.apply(pixels), mapping.apply_confidence(confidence)
        far = _far_outside(pixels, image_size) & (confidence > 0)
        num_far += int(far.sum())
        confidence = np.where(far, 0.0, confidence)
        # Not the place of a joint that was never seen: that of nothing.
        pixels = np.where(confidence[..., None] > 0, pixels, 0.0)
        people.append(
            PersonKeypoints(
                track.name,
                track.frames.astype(np.int64),
                pixels.astype(np.float32),
                confidence.astype(np.float32),
                derived,
                track.bad | broken.all(axis=1) & ~(track.points[..., 2] == 0).all(axis=1),
            )
        )
    if not people:
        raise ValueError(
            f"{name}: confidence: expected some keypoint of at least {min_confidence:g}, got none "
            "(all are missing or 0)"
        )
    everything = np.concatenate(points_of)
    _check_pixels(everything, image_size, name)
    _check_layout(everything, layout, name)
    if above:
        notes.append("confidences above 1 count as 1")
    outside = _share_outside(everything[everything[..., 2] > 0][:, :2], image_size)
    if outside > _NOTED_OUTSIDE:
        notes.append(
            f"{outside:.0%} of the keypoints are outside {image_size[0]}x{image_size[1]}: is that "
            "the size of the images?"
        )
    if num_far:
        notes.append(
            f"{num_far} joints are further from the image than it is large and count as missing"
        )
    return KeypointSet(tuple(people), image_size, layout, source, tuple(notes))


def _far_outside(pixels: NDArray, image_size: tuple[int, int]) -> NDArray:
    """Further from the image than it is large: mistakes, which no prior can use."""
    size = np.array(image_size)
    return np.any((pixels < -size) | (pixels > 2 * size), axis=-1)


def _check_pixels(points: NDArray, image_size: tuple[int, int], name: str) -> None:
    seen = points[points[..., 2] > 0][:, :2]
    if np.abs(seen).max() <= _LARGEST_SCREEN:
        raise ValueError(
            f"{name}: keypoints: expected pixels, got no value above {np.abs(seen).max():.3g}; are "
            "they normalised?"
        )
    outside = _share_outside(seen, image_size)
    if outside > 0.5:
        raise ValueError(
            f"{name}: image_size: expected the size of the images, got {image_size}, and "
            f"{outside:.0%} of the keypoints are outside; are width and height swapped?"
        )


def _share_outside(seen: NDArray, image_size: tuple[int, int]) -> float:
    return float(((seen < 0) | (seen > np.array(image_size))).any(axis=1).mean())


def _check_layout(points: NDArray, layout: str, name: str) -> None:
    likely = likely_layout(points[..., :2], points[..., 2], layout)
    if likely != layout:
        raise ValueError(
            f"{name}: layout: expected the limbs of a person, got ratios that are implausible for "
            f"{layout!r} and fit {likely!r}: is that the layout?"
        )


def _numbers(value: Any, name: str) -> NDArray:
    """Floats; None (JSON's null) becomes NaN."""
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name}: expected an array of numbers, got {error}") from None
