"""Golden fixtures: reading them, deriving their weights, judging an output."""

import dataclasses
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import ArrayLike, NDArray

FORWARD, CHAIN = 1e-9, 1e-6


@dataclasses.dataclass(frozen=True)
class Fixture:
    """One file: `meta` and arrays; `fixture["in_x"]` reads an array."""

    path: Path
    meta: Mapping[str, Any]
    arrays: Mapping[str, NDArray]

    def __getitem__(self, name: str) -> NDArray:
        if name not in self.arrays:
            raise KeyError(f"{self.path.name} has no array {name!r}")
        return self.arrays[name]

    @property
    def config(self) -> Mapping[str, Any]:
        return self.meta.get("config", {})

    @property
    def outputs(self) -> dict[str, NDArray]:
        return {n: a for n, a in self.arrays.items() if n.startswith("out_")}

    def weights(self, section: str | None = None) -> dict[str, NDArray]:
        """The float32 state dict by the rule of golden/README.md; `section` where keys has some."""
        keys = self.meta["keys"] if section is None else self.meta["keys"][section]
        factors = self.meta.get("factors") or {}
        return {
            key: derive_weight(key, tuple(shape), kind, self.meta["seed"], factors.get(key))
            for key, shape, kind in keys
            if kind != "skip"
        }


class Check(NamedTuple):
    """How to compute our side of a kind of fixture, and how near it must be.

    `single` names outputs that the authors' code computed or stored in float32.
    """

    run: Callable[[Fixture], Mapping[str, ArrayLike]]
    tolerance: float = FORWARD
    single: tuple[str, ...] = ()

    def limit(self, output: str) -> float:
        """The tolerance of one output."""
        return 1e-5 if output in self.single else self.tolerance


@dataclasses.dataclass(frozen=True)
class Line:
    """The verdict on one output."""

    file: str
    output: str
    status: str
    error: float = np.nan
    largest: float = np.nan
    tolerance: float = np.nan
    note: str = ""

    def __str__(self) -> str:
        numbers = f"{self.error:9.2e} {self.largest:9.2e} {self.tolerance:8.1e}"
        text = f"{self.file}  {self.output:<34} {numbers}  {self.status}"
        return f"{text}  ({self.note})" if self.note else text


def read_fixture(path: Path) -> Fixture:
    """Reads a file.

    Raises:
      ValueError: Missing, truncated, or not of the layout of golden/README.md.
    """
    try:
        # Opened here because np.load leaves a file open that is no archive.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
        meta = json.loads(str(arrays.pop("meta")))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as e:
        raise ValueError(f"not a golden fixture: {e!r}") from e
    if not isinstance(meta, dict) or not isinstance(meta.get("kind"), str):
        raise ValueError("not a golden fixture: 'meta' is not an object with a 'kind'")
    return Fixture(path, meta, arrays)


def derive_weight(
    key: str, shape: tuple[int, ...], kind: str, seed: int, factor: float | None
) -> NDArray:
    """One float32 entry of a state dict by the weight rule."""
    if kind == "int":
        return np.zeros(shape, np.int64)
    r = np.random.RandomState((zlib.crc32(key.encode()) + seed) % 2**32).randn(*shape)
    rules: dict[str, Callable[[], ArrayLike]] = {
        "matrix": lambda: r / np.sqrt(np.prod(shape[1:])),
        "norm_scale": lambda: 1 + 0.1 * r,
        "running_var": lambda: 1 + 0.2 * np.abs(r),
        "vector": lambda: 0.1 * r,
    }
    if kind not in rules:
        raise ValueError(f"meta.keys: unknown class {kind!r} of {key!r}")
    value = np.asarray(rules[kind](), np.float32)
    return value if factor is None else value * np.float32(factor)


def widen(tree: Any) -> Any:
    """Float leaves as float64, for a float64 run with a checkpoint's float32 values."""
    return jax.tree.map(
        lambda a: a.astype(np.float64) if np.issubdtype(a.dtype, np.floating) else a, tree
    )


def may_skip(output: str) -> bool:
    """Intermediates and float32 runs need not be reproduced."""
    return output.endswith("_f32") or any(w in output for w in ("mid", "layer", "block", "stage"))


def judge(fixture: Fixture, output: str, ours: ArrayLike | None, tolerance: float) -> Line:
    """Compares one output; `ours` is None where the check did not look at it."""
    file, expected = fixture.path.name, fixture[output]
    if ours is None:
        if may_skip(output):
            return Line(file, output, "skipped", note="intermediate or float32 run")
        return Line(file, output, "MISS", note="no check looks at it")
    ours = np.asarray(ours)
    if ours.shape != expected.shape:
        note = f"expected shape {expected.shape}, got {ours.shape}"
        return Line(file, output, "MISS", note=note)
    if expected.dtype.kind not in "biuf":
        same = bool(np.array_equal(ours, expected))
        return Line(file, output, "ok" if same else "MISS", note=f"type {expected.dtype}")
    wide, reference = ours.astype(np.float64), expected.astype(np.float64)
    error = float(np.max(np.abs(wide - reference), initial=0.0))
    largest = float(np.max(np.abs(reference), initial=0.0))
    # A sum of 1e5 (a loss in millimetres) has no digits at 1e-9: rounding is judged as rounding.
    rounding = 64 * np.finfo(np.float64).eps * largest
    limit = max(_declared(fixture.meta.get("tolerance"), tolerance), rounding)
    if output.endswith("_f32"):
        limit = 1e-5 * max(largest, 1e-30)
    # A NaN or an infinity on either side fails this comparison.
    passed = error <= limit < np.inf
    return Line(file, output, "ok" if passed else "MISS", error, largest, limit)


def _declared(tolerance: Any, default: float) -> float:
    """The tolerance that `meta` gives, a number or a text that starts with one, or the default."""
    if isinstance(tolerance, int | float):
        return float(tolerance)
    number = re.match(r"\s*([0-9.]+(?:[eE][-+]?[0-9]+)?)", tolerance or "")
    return float(number[1]) if number else default
