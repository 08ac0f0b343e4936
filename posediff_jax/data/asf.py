"""Reads skeletons of the CMU motion capture database: ASF files."""

import dataclasses
import pathlib

import numpy as np

from posediff_jax.data.mocap import INCH, parse_numbers, read_lines

ROOT = "root"
DOFS = ("rx", "ry", "rz")
_LEAST_LENGTH = 1e-6
_ROOT_ORDER = ("tx", "ty", "tz", *DOFS)


@dataclasses.dataclass(frozen=True)
class Bone:
    """One bone of an ASF skeleton.

    Attributes:
      name: Unique in its skeleton.
      parent: Name of the bone at whose end it begins, or "root".
      offset: From its beginning to its end where all angles are zero, metres.
      axis: Angles in degrees about x, y, z, in this order, that turn the world into the axes about
        which the bone rotates.
      dofs: Those of "rx", "ry", "rz" that a motion has values for, in their order.
    """

    name: str
    parent: str
    offset: tuple[float, float, float]
    axis: tuple[float, float, float]
    dofs: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class AsfSkeleton:
    """A skeleton.

    Attributes:
      path: Where it is from.
      bones: Every parent comes before its children.
      root_order: The six values of the root in the order in which a motion lists them.
      unit: Metres per unit of length.
    """

    path: pathlib.Path
    bones: tuple[Bone, ...]
    root_order: tuple[str, ...]
    unit: float


def read_asf(path: str | pathlib.Path) -> AsfSkeleton:
    """Reads a skeleton.

    Args:
      path: The `.asf` file.

    Returns:
      The skeleton, in metres.

    Raises:
      FileNotFoundError: There is no such file.
      ValueError: The file is incomplete or asks for what CMU's files never do: radians, rotations
        in another order than x, y, z, a root that does not start at the origin. The message gives
        path and line.
    """
    path = pathlib.Path(path)
    sections = _sections(path)
    unit = INCH / _setting(sections, "units", "length", 1, path)[0]
    angle = _words(sections, "units", "angle", path)[1]
    if angle != ["deg"]:
        raise ValueError(f"{path}: units: expected angle deg, got {' '.join(angle)!r}")
    for name in ("position", "orientation"):
        if any(_setting(sections, "root", name, 3, path)):
            raise ValueError(f"{path}: root: expected {name} 0 0 0")
    _check_order(_words(sections, "root", "axis", path)[1], f"{path}: root")
    order = tuple(word.lower() for word in _words(sections, "root", "order", path)[1])
    if sorted(order) != sorted(_ROOT_ORDER):
        raise ValueError(f"{path}: root: expected an order of {_ROOT_ORDER}, got {order}")
    parents = _hierarchy(sections["hierarchy"], path)
    blocks = _blocks(sections["bonedata"], path)
    bones = {}
    for line, block in blocks:
        bone = _bone(block, parents, unit, f"{path}:{line}")
        if bone.name in bones:
            raise ValueError(f"{path}:{line}: the bone {bone.name!r} occurs twice")
        bones[bone.name] = bone
    undefined = sorted((set(parents) | set(parents.values())) - set(bones) - {ROOT})
    if undefined:
        raise ValueError(f"{path}: hierarchy: no bonedata for {undefined}")
    return AsfSkeleton(path, _sorted(bones, path), order, unit)


_Lines = list[tuple[int, list[str]]]


def _sections(path: pathlib.Path) -> dict[str, _Lines]:
    """Words of each line, with its number, by section."""
    sections: dict[str, _Lines] = {}
    name = ""
    for line, text in enumerate(read_lines(path), start=1):
        words = text.split()
        if not words or text.startswith("#"):
            continue
        if text.startswith(":"):
            name = words[0][1:].lower()
            sections[name] = []
        elif name:
            sections[name].append((line, words))
    missing = [s for s in ("units", "root", "bonedata", "hierarchy") if s not in sections]
    if missing:
        raise ValueError(f"{path}: expected the sections {missing}, got {sorted(sections)}")
    return sections


def _words(
    sections: dict[str, _Lines], section: str, name: str, path: pathlib.Path
) -> tuple[int, list[str]]:
    for line, words in sections[section]:
        if words[0].lower() == name:
            return line, words[1:]
    raise ValueError(f"{path}: {section}: expected a line that begins with {name!r}")


def _setting(
    sections: dict[str, _Lines], section: str, name: str, count: int, path: pathlib.Path
) -> list[float]:
    line, words = _words(sections, section, name, path)
    numbers = parse_numbers(words, count, f"{path}:{line}: {name}")
    if name == "length" and not numbers[0] > _LEAST_LENGTH:
        raise ValueError(
            f"{path}:{line}: length: expected more than {_LEAST_LENGTH}, got {numbers[0]}"
        )
    return numbers


def _check_order(words: list[str], label: str) -> None:
    if [word.upper() for word in words] != ["XYZ"]:
        raise ValueError(f"{label}: expected the axis order XYZ, got {' '.join(words)!r}")


def _hierarchy(lines: _Lines, path: pathlib.Path) -> dict[str, str]:
    """Parent of each bone."""
    parents: dict[str, str] = {}
    for line, (parent, *children) in lines:
        for child in children:
            if child in parents:
                raise ValueError(f"{path}:{line}: the bone {child!r} has two parents")
            parents[child] = parent
    return parents


def _blocks(lines: _Lines, path: pathlib.Path) -> list[tuple[int, dict[str, list[str]]]]:
    """What stands between each `begin` and `end`, with the line where it begins."""
    blocks: list[tuple[int, dict[str, list[str]]]] = []
    is_open = False
    for line, words in lines:
        if words[0] in ("begin", "end"):
            if is_open == (words[0] == "begin"):
                raise ValueError(f"{path}:{line}: a {words[0]!r} without its partner")
            is_open = not is_open
            if is_open:
                blocks.append((line, {}))
        elif is_open:
            blocks[-1][1][words[0]] = words[1:]
    if is_open:
        raise ValueError(f"{path}:{blocks[-1][0]}: expected an 'end' (is the file truncated?)")
    return blocks


def _bone(block: dict[str, list[str]], parents: dict[str, str], unit: float, label: str) -> Bone:
    missing = [k for k in ("name", "direction", "length", "axis") if not block.get(k)]
    if missing:
        raise ValueError(f"{label}: expected {missing} of a bone, got {sorted(block)}")
    name = block["name"][0]
    label = f"{label}: bone {name!r}"
    if name not in parents:
        raise ValueError(f"{label}: expected it in the hierarchy, got {sorted(parents)}")
    *angles, order = block["axis"]
    _check_order([order], label)
    axis = parse_numbers(angles, 3, f"{label}: axis")
    direction = np.array(parse_numbers(block["direction"], 3, f"{label}: direction"))
    (length,) = parse_numbers(block["length"], 1, f"{label}: length")
    dofs = tuple(word.lower() for word in block.get("dof", ()))
    if not set(dofs) <= set(DOFS) or len(set(dofs)) < len(dofs):
        raise ValueError(f"{label}: dof: expected some of {DOFS}, got {dofs}")
    x, y, z = (direction * length * unit).tolist()
    return Bone(name, parents[name], (x, y, z), (axis[0], axis[1], axis[2]), dofs)


def _sorted(bones: dict[str, Bone], path: pathlib.Path) -> tuple[Bone, ...]:
    """Parents before children."""
    done: dict[str, Bone] = {}
    while len(done) < len(bones):
        ready = [b for b in bones.values() if b.name not in done and b.parent in (ROOT, *done)]
        if not ready:
            lost = sorted(set(bones) - set(done))
            raise ValueError(f"{path}: hierarchy: {lost} never reach the root")
        done |= {bone.name: bone for bone in ready}
    return tuple(done.values())
