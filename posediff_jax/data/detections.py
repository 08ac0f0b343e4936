"""The JSON files of AlphaPose, OpenPose and MMPose as they are: whose keypoints, in which frame.

AlphaPose: a list of `{image_id, keypoints: [x, y, c, ...], score, box, idx}`, several to an image.
OpenPose: a file for each frame, `{people: [{person_id, pose_keypoints_2d: [x, y, c, ...]}]}`.
MMPose: `{meta_info, instance_info: [{frame_id, instances}]}` by its demos, that list alone by its
inferencer for a video, one list of instances for an image; an instance is `{keypoints: [[x, y],
...], keypoint_scores: [c, ...]}`, with a `track_id` where its user tracked.
"""

import collections
import dataclasses
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Of files that give a number of keypoints and no name; of the whole-body ones the body is used.
_LAYOUT_OF = {
    "alphapose": {17: "coco_17", 26: "halpe_26", 133: "coco_17", 136: "halpe_26"},
    "openpose": {25: "body_25"},
    "mmpose": {17: "coco_17", 26: "halpe_26", 133: "coco_17"},
}
_BODY = {"coco_17": 17, "halpe_26": 26, "body_25": 25, "h36m_17": 17}
_EXPECTED = (
    "expected a file of AlphaPose (a list with image_id and keypoints), OpenPose (people with "
    "pose_keypoints_2d; its folder for a video), MMPose (instance_info, or frame_id with "
    "instances), or keypoints and layout by name"
)


class Detection(NamedTuple):
    """One person in one frame.

    Attributes:
      points: x, y in pixels and confidence, `(K, 3)`.
      track: Who, as the tool says, or None.
    """

    points: NDArray
    track: str | None


@dataclasses.dataclass(frozen=True, eq=False)
class Detections:
    """What a tool wrote.

    Attributes:
      tool: "alphapose", "openpose" or "mmpose".
      layout: Joint order of all points.
      frames: Detections by frame number, in rising order.
      bad: Frames with something that could not be read.
      notes: What a user should know, in words.
    """

    tool: str
    layout: str
    frames: Mapping[int, tuple[Detection, ...]]
    bad: frozenset[int]
    notes: tuple[str, ...] = ()


class _Found(NamedTuple):
    """An entry before it is checked: frame, who, keypoints as they stand in the file."""

    frame: int
    track: str | None
    raw: Any


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
      ValueError: It is empty or no JSON; the message names it.
    """
    data = path.read_bytes()
    if not data.strip():
        raise ValueError(f"{path}: expected keypoints, got an empty file")
    try:
        return json.loads(data.decode("utf-8-sig"))
    # A number too long for Python, or brackets too deep, are no JSON for us either.
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: expected JSON, got a file that cannot be read: {error}"
        ) from None


def parse_detections(content: Any, path: Path, *, layout: str | None = None) -> Detections:
    """Detections of a JSON file by any of the three tools.

    Args:
      content: From `read_json`.
      path: For errors.
      layout: The joint order, where it is not the tool's usual one.

    Raises:
      ValueError: Another tool's file, nobody in it, or keypoints of an unknown layout.
    """
    tool, found, frames, hint = _recognise(content, path)
    return _collect(tool, found, frames, set(), path, layout or hint)


def read_openpose_folder(folder: Path, *, layout: str | None = None) -> Detections:
    """Detections of a folder with one OpenPose file for each frame.

    The frame is the last number in a file's name. A file that cannot be read is a bad frame if it
    is named like the others; if not, it is none, and noted.

    Args:
      folder: Where the files are.
      layout: As for `parse_detections`.

    Raises:
      ValueError: No JSON file, none that OpenPose wrote, nobody in them, or keypoints of an
        unknown layout.
    """
    files = sorted(folder.glob("*.json"), key=lambda file: _natural(file.name))
    if not files:
        raise ValueError(f"{folder}: expected one .json file for each frame, got none")
    readable: dict[Path, list[_Found]] = {}
    problems: dict[Path, str] = {}
    for file in files:
        try:
            tool, people, _, _ = _recognise(read_json(file), file)
            if tool != "openpose":
                raise ValueError(f"{file}: expected one of OpenPose's files, got one of {tool}")
            readable[file] = people
        except ValueError as error:
            problems[file] = str(error)
    if not readable:
        raise ValueError(problems[files[0]])
    # Named like a frame but for the number: a frame that was lost.
    patterns = {_without_numbers(file) for file in readable}
    strangers = [file.name for file in problems if _without_numbers(file) not in patterns]
    entries = {file: readable.get(file) for file in files if file.name not in strangers}
    numbers = _frame_numbers([file.name for file in entries])
    numbered = list(zip(numbers, entries.values(), strict=True))
    found = [entry._replace(frame=number) for number, some in numbered for entry in some or ()]
    bad = {number for number, some in numbered if some is None}
    read = _collect("openpose", found, numbers, bad, folder, layout)
    if strangers:
        note = f"{len(strangers)} files are not OpenPose's and were left out, first {strangers[:3]}"
        read = dataclasses.replace(read, notes=(note,))
    return read


def _recognise(content: Any, path: Path) -> tuple[str, list[_Found], list[int], str | None]:
    """Tool, entries, all frame numbers, and the layout that the file itself names, if any."""
    if isinstance(content, dict) and isinstance(content.get("people"), list):
        found = [_openpose(person) for person in content["people"]]
        return "openpose", found, [0], None
    if isinstance(content, dict) and isinstance(content.get("instance_info"), list):
        return "mmpose", *_mmpose(content["instance_info"]), _named(content.get("meta_info"))
    if isinstance(content, list):
        entries = [entry for entry in content if isinstance(entry, dict)]
        if any("image_id" in entry and "keypoints" in entry for entry in entries):
            return "alphapose", *_alphapose(content), None
        if any("frame_id" in entry and "instances" in entry for entry in entries):
            return "mmpose", *_mmpose(content), None
        if any("keypoint_scores" in entry for entry in entries):
            return "mmpose", *_mmpose([{"frame_id": 0, "instances": content}]), None
        if not content:
            raise ValueError(f"{path}: expected keypoints of at least one person, got []")
    what = f"keys {sorted(content)[:8]}" if isinstance(content, dict) else type(content).__name__
    if isinstance(content, list):
        first = content[0]
        what = f"a list of {sorted(first)[:8] if isinstance(first, dict) else type(first).__name__}"
    raise ValueError(f"{path}: {_EXPECTED}; got {what}")


def _openpose(person: Any) -> _Found:
    person = person if isinstance(person, dict) else {}
    track = person.get("person_id")
    track = track[0] if isinstance(track, list) and track else track
    # -1 is OpenPose's way to say that it does not track.
    known = isinstance(track, (int, str)) and not isinstance(track, bool) and str(track) != "-1"
    return _Found(0, str(track) if known else None, person.get("pose_keypoints_2d"))


def _alphapose(content: Sequence[Any]) -> tuple[list[_Found], list[int]]:
    entries = [entry for entry in content if isinstance(entry, dict) and "image_id" in entry]
    images = list(dict.fromkeys(str(entry["image_id"]) for entry in entries))
    number = dict(zip(images, _frame_numbers(images), strict=True))
    found = [
        _Found(number[str(entry["image_id"])], _number(entry.get("idx")), entry.get("keypoints"))
        for entry in entries
    ]
    return found, sorted(number.values())


def _mmpose(content: Sequence[Any]) -> tuple[list[_Found], list[int]]:
    found = []
    entries = [entry if isinstance(entry, dict) else {} for entry in content]
    frames: list[Any] = [entry.get("frame_id") for entry in entries]
    if not all(type(n) is int for n in frames) or not _plausible(frames):
        frames = list(range(len(entries)))
    for number, entry in zip(frames, entries, strict=True):
        instances = entry.get("instances")
        if not isinstance(instances, list):
            found.append(_Found(number, None, None))
            continue
        for person in instances:
            person = person if isinstance(person, dict) else {}
            found.append(_Found(number, _number(person.get("track_id")), _flat(person)))
    return found, sorted(set(frames))


def _flat(person: Mapping[str, Any]) -> list[Any] | None:
    """MMPose's points and scores as x, y, c, ...; None where they do not belong together."""
    points, scores = person.get("keypoints"), person.get("keypoint_scores")
    if not isinstance(points, list) or not isinstance(scores, list) or len(points) != len(scores):
        return None
    if not all(isinstance(point, list) and len(point) >= 2 for point in points):
        return None
    return [x for p, score in zip(points, scores, strict=True) for x in (p[0], p[1], score)]


def _named(meta: Any) -> str | None:
    """The layout that MMPose's description of its data set names."""
    name = str(meta.get("dataset_name", "")) if isinstance(meta, dict) else ""
    return "h36m_17" if name.lower().startswith(("h36m", "human36m")) else None


def _number(track: Any) -> str | None:
    """A track id as text: 3, 3.0 and [3.0] are the same; -1 is no id."""
    while isinstance(track, list) and track:
        track = track[0]
    if isinstance(track, str):
        return track
    number = isinstance(track, (int, float)) and not isinstance(track, bool)
    return str(int(track)) if number and np.isfinite(track) and track != -1 else None


def _collect(
    tool: str,
    found: Sequence[_Found],
    frames: Iterable[int],
    bad: set[int],
    path: Path,
    layout: str | None,
) -> Detections:
    points = [_points(entry.raw) for entry in found]
    counts = collections.Counter(len(p) for p in points if p is not None)
    if not counts:
        what = "entries without keypoints" if found else "nobody in any frame"
        raise ValueError(f"{path}: expected keypoints of at least one person, got {what}")
    (usual, _), *_ = counts.most_common(1)
    layout = _layout(tool, usual, layout, path)
    body = _BODY[layout]
    by_frame: dict[int, list[Detection]] = {number: [] for number in sorted({*frames, *bad})}
    for entry, p in zip(found, points, strict=True):
        if p is None or len(p) != usual:
            bad.add(entry.frame)
            continue
        by_frame[entry.frame].append(Detection(p[:body], entry.track))
    return Detections(
        tool, layout, {n: tuple(people) for n, people in by_frame.items()}, frozenset(bad)
    )


def _layout(tool: str, count: int, layout: str | None, path: Path) -> str:
    known = _LAYOUT_OF[tool]
    if layout is None:
        if count not in known:
            names = sorted(f"{n} ({name})" for n, name in known.items())
            raise ValueError(
                f"{path}: layout: expected {', '.join(names)} keypoints from {tool}, got {count}"
            )
        return known[count]
    if _BODY[layout] != count and known.get(count) != layout:
        raise ValueError(
            f"{path}: layout: expected the {_BODY[layout]} keypoints of {layout!r}, got {count}"
        )
    return layout


def _points(raw: Any) -> NDArray | None:
    """x, y, confidence, `(K, 3)`; None where the entry is no list of triples of numbers."""
    if not isinstance(raw, list) or not raw or len(raw) % 3:
        return None
    numbers = all(x is None or (isinstance(x, (int, float)) and x is not True) for x in raw)
    if not numbers:
        return None
    try:
        return np.array([np.nan if x is None else x for x in raw], np.float64).reshape(-1, 3)
    except OverflowError:
        return None


def _frame_numbers(names: Sequence[str]) -> list[int]:
    """The last number in each name; where those repeat or are missing, the natural order."""
    parts = [re.findall(r"\d+", Path(name).stem) for name in names]
    numbers = [int(p[-1]) if p else -1 for p in parts]
    if len(set(numbers)) == len(numbers) and _plausible(numbers):
        return numbers
    order = sorted(range(len(names)), key=lambda i: _natural(names[i]))
    place = {i: n for n, i in enumerate(order)}
    return [place[i] for i in range(len(names))]


def _without_numbers(file: Path) -> str:
    return re.sub(r"\d+", "#", file.name)


def _plausible(numbers: Sequence[int]) -> bool:
    """Times of recording are no frame numbers: nobody leaves out that many frames."""
    if not numbers or min(numbers) < 0:
        return False
    return max(numbers) - min(numbers) < 1000 + 100 * len(numbers)


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts frame2 before frame10."""
    return [(int(p), "") if p.isdigit() else (-1, p) for p in re.split(r"(\d+)", name)]
