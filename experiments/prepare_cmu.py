"""Builds the `cmu17` layout from the public ASF/AMC files of the CMU motion capture database.

python -m experiments.prepare_cmu --source=DIR --out=DIR [--val=02_10,03_02] [--skip_broken]

Under `--source`, at any depth, `<subject>.asf` lies beside its `<subject>_<trial>.amc` files, as in
the archives of mocap.cs.cmu.edu. `--out` gets `train.npz` and `val.npz`: an array `(F, 17, 3)` for
each trial, key `asf/<subject>/<subject>_<trial>`, metres, y up, 60 frames per second. Each file
appears whole or not at all.
"""

import itertools
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags
from numpy.typing import NDArray
from rich.progress import track

from experiments.common import start
from posediff_jax.data import load_asf_amc
from posediff_jax.data.asf import AsfSkeleton, read_asf
from posediff_jax.data.npz import write_npz

FPS = 60.0
VAL_TRIALS = ("02_10", "03_02")


def run(
    source: str | Path,
    out: str | Path,
    *,
    val: Sequence[str] = VAL_TRIALS,
    at_60: Sequence[str] = (),
    skip_broken: bool = False,
) -> tuple[dict[str, int], list[str]]:
    """Reads all trials and writes both splits.

    Args:
      source: Folder with the files.
      out: Folder that gets `train.npz` and `val.npz`, which must not be there yet.
      val: Subjects ("03") and trials ("02_10") of the validation split.
      at_60: Subjects and trials recorded at 60 frames per second; all others are taken for 120.
      skip_broken: Leave out what cannot be read; else the first such file stops everything.

    Returns:
      Number of clips in each split, and what was left out and why.

    Raises:
      FileNotFoundError: `source` is no folder.
      FileExistsError: A file of the result exists.
      ValueError: There is no trial, a subject or trial in `val` or `at_60` is not there, a split
        would be empty, or a file is broken; the message gives its path and line.
    """
    source, out = Path(source), Path(out)
    files = {split: out / f"{split}.npz" for split in ("train", "val")}
    for file in files.values():
        if file.exists():
            raise FileExistsError(f"out: {file} exists already")
    trials = find_trials(source)
    _check_names("val", val, trials)
    _check_names("at_60", at_60, trials)
    splits: dict[str, dict[str, NDArray]] = {split: {} for split in files}
    skeletons: dict[Path, AsfSkeleton] = {}
    broken = []
    for asf, amc in track(trials, f"reading {len(trials)} trials"):
        step = 1 if {asf.stem, amc.stem} & set(at_60) else 2
        try:
            if asf not in skeletons:
                skeletons[asf] = read_asf(asf)
            clip = load_asf_amc(skeletons[asf], amc, fps=FPS * step).every(step)
        except ValueError as error:
            if not skip_broken:
                raise
            broken.append(str(error))
            continue
        split = "val" if {asf.stem, amc.stem} & set(val) else "train"
        splits[split][clip.name] = clip.poses
    for split, clips in splits.items():
        if not clips:
            raise ValueError(f"val: with {tuple(val)} the {split} split is empty")
    for split, clips in splits.items():
        write_npz(files[split], clips)
    return {split: len(clips) for split, clips in splits.items()}, broken


def find_trials(source: Path) -> list[tuple[Path, Path]]:
    """Skeleton and motion files of all trials, sorted.

    Raises:
      FileNotFoundError: `source` is no folder.
      ValueError: There is none, or a subject is in two folders.
    """
    if not source.is_dir():
        raise FileNotFoundError(f"source: expected a folder, got {str(source)!r}")
    skeletons = sorted(source.rglob("*.asf"), key=lambda path: (path.stem, path))
    for a, b in itertools.pairwise(skeletons):
        if a.stem == b.stem:
            raise ValueError(f"source: expected each subject once, got {a} and {b}")
    trials = [
        (asf, amc) for asf in skeletons for amc in sorted(asf.parent.glob(f"{asf.stem}_*.amc"))
    ]
    if not trials:
        raise ValueError(f"source: expected <subject>.asf and <subject>_<trial>.amc in {source}")
    return trials


def _check_names(option: str, names: Sequence[str], trials: Sequence[tuple[Path, Path]]) -> None:
    known = {asf.stem for asf, _ in trials} | {amc.stem for _, amc in trials}
    unknown = sorted(set(names) - known)
    if unknown:
        raise ValueError(
            f"{option}: expected subjects and trials of {sorted(known)}, got {unknown}"
        )


def main(argv: list[str]) -> None:
    """Writes the splits and says what is in them."""
    start(argv)
    given = flags.FLAGS
    counts, broken = run(
        given.source,
        given.out,
        val=given.val,
        at_60=given.at_60,
        skip_broken=given.skip_broken,
    )
    for error in broken:
        print(f"left out: {error}")
    print(f"{counts['train']} training and {counts['val']} validation clips in {given.out}")


def define_flags() -> None:
    """Not on import: several scripts have flags of the same name."""
    flags.DEFINE_string("source", None, "Folder with ASF and AMC files.", required=True)
    flags.DEFINE_string("out", None, "Folder that gets train.npz and val.npz.", required=True)
    flags.DEFINE_list("val", list(VAL_TRIALS), "Subjects and trials that go to val.npz.")
    flags.DEFINE_list("at_60", [], "Subjects and trials recorded at 60, not 120, per second.")
    flags.DEFINE_bool("skip_broken", False, "Leave out broken files instead of stopping.")


if __name__ == "__main__":
    define_flags()
    app.run(main)
