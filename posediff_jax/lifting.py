"""From anybody's keypoints to people in three dimensions, by ZeDO with a small trained prior.

`lift` is for notebooks, `lift_to_folder` for files; the command `posediff-lift` is the latter. Work
goes frame by frame in batches of one shape: memory is that of one batch and of the result.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike
from rich.console import Console
from rich.progress import Progress

from posediff_jax.assets import load_anchors, load_prior
from posediff_jax.calibration import default_camera
from posediff_jax.data.anchors import Anchors, read_anchors
from posediff_jax.data.camera_file import read_camera
from posediff_jax.data.keypoints import (
    KeypointSet,
    PersonKeypoints,
    people_from_arrays,
    read_keypoints,
)
from posediff_jax.lift_engine import LiftEngine, LiftOptions
from posediff_jax.lifted_person import (
    LiftedPerson,
    read_fingerprint,
    read_lifted,
    write_lifted,
)
from posediff_jax.prior_file import PriorFile, read_prior
from posediff_jax.skeleton import get_skeleton
from posediff_jax.types import Camera
from posediff_jax.visualize import animate_lifted, plot_lifted

Report = Callable[[str], None]


def lift(
    keypoints: str | Path | KeypointSet | ArrayLike,
    *,
    image_size: tuple[int, int] | None = None,
    layout: str | None = None,
    camera: Camera | str | Path | None = None,
    hypotheses: int = 10,
    height: float | None = None,
    scale: str = "sequence",
    rule: str = "reprojection_and_energy",
    warm_start: bool = False,
    min_confidence: float = 0.1,
    checkpoint: str | Path | None = None,
    anchors: Anchors | str | Path | None = None,
    sampler: Mapping[str, Any] | None = None,
    seed: int = 0,
    batch_size: int = 0,
    progress: bool = True,
) -> tuple[LiftedPerson, ...]:
    """Lifts the keypoints of everybody in a file.

    Args:
      keypoints: What `read_keypoints` reads or gave, or an array for `people_from_arrays`.
      image_size: Width and height of the images in pixels.
      layout: The joint order, where the file does not say.
      camera: A camera without leading axes, or a file for `read_camera`. None guesses: the focal
        length is the longer side of the image. Depths scale with what it truly is.
      hypotheses: H, at most the number of anchors.
      height: Of the people, metres. A picture does not tell size: without it 1.70 is assumed (of
        a prior without `sampler.body_height`, what its bodies have).
      scale: What a given `height` sets: "sequence", one factor for all frames and hypotheses, from
        the median of the chosen poses; "pose", each pose by its own factor; "off", nothing after
        the optimisation.
      rule: How one hypothesis is chosen, without ground truth: see `samplers.choose`; "mean" takes
        the mean of all, "first" that of the anchor for most poses.
      warm_start: The last hypothesis of a frame starts from the chosen pose of the frame before,
        within segments of 50 frames.
      min_confidence: Joints of a file or array below this are missing.
      checkpoint: A training run's folder, or a file by `prior_file.write_prior`; None takes the
        weights that come with the package.
      anchors: A file by `experiments.anchors`; None takes those that come with the package.
      sampler: Fields of the config's section `sampler` to change, see `SamplerOptions`.
      seed: Of what is random: with anchors the draws of rules that use the prior's energy, such
        as the default one.
      batch_size: Frames in memory at a time; 0 for what makes 640 chains.
      progress: Show a bar on standard error.

    Returns:
      The people, in the order of the file.

    Raises:
      FileNotFoundError: A file is missing, or this installation came without weights.
      ValueError: Keypoints, camera or options are refused; see `read_keypoints`.
    """
    options = LiftOptions(hypotheses, height, scale, rule, warm_start, seed, batch_size)
    people = _read(keypoints, image_size, layout, min_confidence)
    engine, _ = _engine(people, options, camera, checkpoint, anchors, sampler)
    with _bar(progress) as bar:
        return tuple(engine.lift(person, bar) for person in people.people)


def lift_to_folder(
    keypoints: str | Path | KeypointSet,
    out: str | Path,
    *,
    image_size: tuple[int, int] | None = None,
    layout: str | None = None,
    camera: Camera | str | Path | None = None,
    options: LiftOptions | None = None,
    min_confidence: float = 0.1,
    checkpoint: str | Path | None = None,
    anchors: Anchors | str | Path | None = None,
    sampler: Mapping[str, Any] | None = None,
    overwrite: bool = False,
    pictures: bool = True,
    fps: float = 25.0,
    progress: bool = True,
    report: Report = print,
) -> tuple[Path, ...]:
    """Lifts into files, for each person an npz, a picture, an animation; goes on where it stopped.

    Args:
      keypoints: As for `lift`.
      out: The folder. A person whose file is there, from the same input by the same options, is not
        lifted again.
      image_size: As for `lift`.
      layout: Likewise.
      camera: Likewise.
      options: Likewise, by name.
      min_confidence: Likewise.
      checkpoint: Likewise.
      anchors: Likewise.
      sampler: Likewise.
      overwrite: Replace files that were made from other input or by other options.
      pictures: Also draw; needs matplotlib, without which a line says so.
      fps: Frames per second of the animation.
      progress: Show a bar on standard error.
      report: Gets lines of text: what was guessed, and what was written.

    Returns:
      The npz files.

    Raises:
      FileNotFoundError: As `lift`.
      ValueError: As `lift`; or a file is there that other input or options made.
      OSError: A file cannot be written.
    """
    options = LiftOptions() if options is None else options
    if not fps > 0:
        raise ValueError(f"fps: expected more than 0, got {fps}")
    people = _read(keypoints, image_size, layout, min_confidence)
    engine, camera_from = _engine(people, options, camera, checkpoint, anchors, sampler)
    report(f"{len(people.people)} people, {people.layout} by {people.source}; {camera_from}")
    for note in people.notes:
        report(f"note: {note}")
    Path(out).mkdir(parents=True, exist_ok=True)
    paths = _paths(Path(out), people.people)
    done = [
        _is_done(path, engine.fingerprint(person), overwrite)
        for path, person in zip(paths, people.people, strict=True)
    ]
    with _bar(progress) as bar:
        for path, person, there in zip(paths, people.people, done, strict=True):
            if there:
                report(f"{path}: there already")
            else:
                lifted = engine.lift(person, bar)
                write_lifted(path, lifted)
                report(f"{path}: {_summary(lifted)}")
            if pictures:
                pictures = _draw(path, fps, report)
    return tuple(paths)


def _engine(
    people: KeypointSet,
    options: LiftOptions,
    camera: Camera | str | Path | None,
    checkpoint: str | Path | None,
    anchors: Anchors | str | Path | None,
    sampler: Mapping[str, Any] | None,
) -> tuple[LiftEngine, str]:
    """What lifts, and where its focal length is from, in words."""
    prior = _prior(checkpoint)
    lens, camera_from = _camera(camera, people.image_size)
    section = {**prior.config.get("sampler", {}), **(sampler or {})}
    frozen = None
    if section.get("starts", "anchors") != "generated":
        frozen = _anchors(anchors, options.hypotheses, prior.config.skeleton).frozen()
    engine = LiftEngine(
        prior, options, lens, anchors=frozen, camera_from=camera_from, sampler=sampler
    )
    return engine, camera_from


def _read(
    keypoints: Any, image_size: tuple[int, int] | None, layout: str | None, min_confidence: float
) -> KeypointSet:
    if isinstance(keypoints, KeypointSet):
        for name, given, own in (
            ("image_size", image_size, keypoints.image_size),
            ("layout", layout, keypoints.layout),
        ):
            if given is not None and given != own:
                raise ValueError(f"{name}: expected {own}, that of the keypoints, got {given}")
        return keypoints
    if isinstance(keypoints, (str, Path)):
        return read_keypoints(
            keypoints, image_size=image_size, layout=layout, min_confidence=min_confidence
        )
    if image_size is None or layout is None:
        raise ValueError(
            "image_size, layout: expected both with an array of keypoints, got "
            f"{image_size} and {layout}"
        )
    return people_from_arrays(
        keypoints, image_size=image_size, layout=layout, min_confidence=min_confidence
    )


def _camera(camera: Camera | str | Path | None, image_size: tuple[int, int]) -> tuple[Camera, str]:
    """The camera, and where it is from in words."""
    if camera is None:
        size = np.asarray(image_size, np.float32)
        return default_camera(size), (
            f"focal length guessed: {max(image_size)} px, the longer side of the image (a field of "
            "view of 53 degrees); depths scale with the true one"
        )
    if isinstance(camera, Camera):
        if np.ndim(camera.focal) != 1:
            raise ValueError(
                f"camera: expected one without leading axes, got focal {np.shape(camera.focal)}"
            )
        return camera, f"focal length given: {np.asarray(camera.focal).round(2).tolist()} px"
    found = read_camera(camera, image_size)
    return found, f"focal length from {camera}: {np.asarray(found.focal).round(2).tolist()} px"


def _prior(checkpoint: str | Path | None) -> PriorFile:
    if checkpoint is None:
        prior = load_prior()
        return prior._replace(source=f"posediff_jax.assets: {prior.source}")
    if Path(checkpoint).suffix == ".npz":
        prior = read_prior(checkpoint)
        return prior._replace(source=f"{Path(checkpoint).name}: {prior.source}")
    # Here, because Orbax takes seconds to import.
    from posediff_jax.training.checkpoints import load_variables

    variables, info = load_variables(checkpoint)
    if not info.config:
        raise ValueError(f"{checkpoint}: the checkpoint holds no config")
    source = f"{Path(checkpoint).name}, step {info.step}"
    return PriorFile(ConfigDict(info.config), variables, source)


def _anchors(given: Anchors | str | Path | None, num: int, skeleton: str) -> Anchors:
    if given is None:
        return load_anchors(num, skeleton=skeleton)
    if isinstance(given, Anchors):
        return given
    return read_anchors(given, get_skeleton(skeleton), num_anchors=num)


def _paths(out: Path, people: Sequence[PersonKeypoints]) -> list[Path]:
    """A file for each person; names that differ in signs alone get numbers."""
    names: list[str] = []
    for person in people:
        name = "person_" + (re.sub(r"[^A-Za-z0-9._-]", "_", person.track)[:80] or "x")
        number = len(names)
        while name in names:
            name, number = f"{name}_{number}", number + 1
        names.append(name)
    return [out / f"{name}.npz" for name in names]


def _is_done(path: Path, fingerprint: str, overwrite: bool) -> bool:
    if not path.exists():
        return False
    if read_fingerprint(path) == fingerprint:
        return True
    if not overwrite:
        raise ValueError(
            f"out: {path} is from other keypoints, options or weights; choose another folder, or "
            "overwrite"
        )
    return False


def _summary(person: LiftedPerson) -> str:
    solved = int(person.valid.sum())
    text = f"{solved} of {len(person.frames)} frames"
    if person.bad.any():
        text += f", {int(person.bad.sum())} of them bad input"
    if solved:
        best = np.nanmean(np.nanmin(person.reprojection_error[:, person.valid], axis=0))
        spread = 1000 * float(person.spread[person.valid].mean())
        text += f", least reprojection error {best:.1f} px, spread {spread:.0f} mm"
    return f"{text}; size from {person.scale_from}"


def _draw(path: Path, fps: float, report: Report) -> bool:
    """Picture and animation beside an npz; False where there is nothing to draw with."""
    picture, film = path.with_suffix(".png"), path.with_suffix(".gif")
    made = [file.stat().st_mtime for file in (picture, film) if file.exists()]
    if len(made) == 2 and min(made) >= path.stat().st_mtime:
        return True
    person = read_lifted(path)
    if not person.valid.any():
        report(f"{picture}: not drawn, no frame could be lifted")
        return True
    try:
        plot_lifted(picture, person)
        animate_lifted(film, person, fps=fps)
    except ImportError as error:
        report(f"no pictures: {error}")
        return False
    report(f"{picture}, {film.name}")
    return True


def _bar(progress: bool) -> Progress:
    return Progress(console=Console(stderr=True), disable=not progress)
