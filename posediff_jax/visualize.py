"""Pictures of poses. Needs the extra `viz` (matplotlib), loaded on the first call only."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from posediff_jax.lifted_person import LiftedPerson
from posediff_jax.skeleton import Skeleton, check_joints

_RIGHT, _LEFT, _MIDDLE = "tab:red", "tab:blue", "0.25"
_VIEWS = (("camera's view", -90.0, 8.0), ("from the side", 0.0, 8.0))
_CLOUD = 10  # hypotheses in a picture
_LONGEST = 600.0  # seconds that an animation shows one frame


def plot_pose(
    axes: Any,
    points: ArrayLike,
    skeleton: Skeleton,
    *,
    color: str | None = None,
    alpha: float = 1.0,
    linewidth: float = 2.0,
) -> None:
    """Draws the bones of one pose into matplotlib axes.

    Args:
      axes: 2D axes for `(J, 2)` points, with y down as in images; 3D axes for `(J, 3)` points in
        camera axes, drawn upright.
      points: Pixels or screen units for 2D, metres for 3D; a bone with an end at NaN is left out.
      skeleton: Joints and bones.
      color: One colour for all bones; by default right is red, left blue, the middle grey.
      alpha: Opacity.
      linewidth: Width of the bones in points.

    Raises:
      ValueError: `points` does not fit the skeleton.
    """
    points = np.asarray(points)
    check_joints(points, skeleton, channels=points.shape[-1], name="points")
    for child, parent in skeleton.bones:
        segment = points[[child, parent]]
        if not np.isfinite(segment).all():
            continue
        side = _LEFT if child in skeleton.left else _RIGHT if child in skeleton.right else _MIDDLE
        # Camera axes are x right, y down, z forward; matplotlib's third axis points up.
        columns = segment.T if points.shape[-1] == 2 else segment[:, [0, 2, 1]].T
        axes.plot(*columns, color=color or side, alpha=alpha, linewidth=linewidth)


def plot_hypotheses(
    path: str | Path,
    keypoints: ArrayLike,
    truth: ArrayLike | None,
    hypotheses: ArrayLike,
    skeleton: Skeleton,
    *,
    title: str = "",
) -> None:
    """Writes a picture: keypoints, truth and mean from the camera's side, hypotheses as a cloud.

    Args:
      path: File to write, there whole or not at all; the suffix gives the format.
      keypoints: `(R, J, 2)` pixels, one row of the picture per pose.
      truth: `(R, J, 3)` metres, or None where unknown.
      hypotheses: `(R, H, J, 3)` metres, root-relative.
      skeleton: Joints and bones.
      title: Printed on top.

    Raises:
      ImportError: matplotlib is missing; the message names the extra.
      ValueError: The shapes do not fit each other or the skeleton.
    """
    keypoints, hypotheses = np.asarray(keypoints), np.asarray(hypotheses)
    check_joints(keypoints, skeleton, channels=2, name="keypoints")
    check_joints(hypotheses, skeleton, channels=3, name="hypotheses")
    if keypoints.ndim != 3 or hypotheses.ndim != 4 or len(keypoints) != len(hypotheses):
        raise ValueError(
            "keypoints, hypotheses: expected (R, J, 2) and (R, H, J, 3), got "
            f"{keypoints.shape} and {hypotheses.shape}"
        )
    rows = len(keypoints)
    figure = _new_figure(11, 3.4 * rows)
    for row in range(rows):
        axes = figure.add_subplot(rows, 3, 3 * row + 1)
        plot_pose(axes, keypoints[row], skeleton)
        axes.set_aspect("equal")
        axes.invert_yaxis()
        axes.set_title("keypoints (pixels)" if row == 0 else "", fontsize=10)
        for column, (name, azimuth, elevation) in enumerate(_VIEWS):
            axes = figure.add_subplot(rows, 3, 3 * row + 2 + column, projection="3d")
            for pose in hypotheses[row]:
                plot_pose(axes, pose, skeleton, color="tab:orange", alpha=0.25, linewidth=1.0)
            if truth is not None:
                plot_pose(axes, np.asarray(truth)[row], skeleton, color="black", linewidth=1.5)
            plot_pose(axes, hypotheses[row].mean(axis=0), skeleton, color="tab:green")
            _frame(axes, hypotheses[row], azimuth, elevation)
            axes.set_title(name if row == 0 else "", fontsize=10)
    legend = "hypotheses orange, their mean green, a grid line each 0.5 m" + (
        "" if truth is None else ", truth black"
    )
    figure.suptitle(f"{title}\n{legend}" if title else legend)
    _save(figure, path)


def plot_lifted(path: str | Path, person: LiftedPerson, *, frames: int = 3) -> None:
    """Writes a picture: keypoints, and chosen pose with its hypotheses as a cloud from two sides.

    Args:
      path: File to write, there whole or not at all; the suffix gives the format.
      person: At least one frame is valid.
      frames: Rows: frames spread evenly over the valid ones.

    Raises:
      ImportError: matplotlib is missing; the message names the extra.
      ValueError: No frame is valid.
    """
    shown = _spread_frames(person, frames)
    figure = _new_figure(11, 3.6 * len(shown) + 0.6)
    for row, frame in enumerate(shown):
        axes = _three_axes(figure, len(shown), row)
        _draw_lifted(axes, person, frame)
        _prepare(axes, person, title=row == 0)
        axes[0].set_ylabel(f"frame {person.frames[frame]}")
    _label(figure, person)
    _save(figure, path)


def animate_lifted(
    path: str | Path, person: LiftedPerson, *, fps: float = 25.0, most_frames: int = 120
) -> None:
    """Writes the same as an animation.

    Args:
      path: File to write, there whole or not at all: `.gif`, or `.mp4` where ffmpeg is installed.
      person: At least one frame is valid.
      fps: Frames per second of the video that the keypoints are from.
      most_frames: Of more lifted frames some are left out evenly. The others are shown for longer:
        the animation takes as long as the video.

    Raises:
      ImportError: matplotlib is missing; the message names the extra.
      ValueError: No frame is valid, `fps` is not above 0, or a format that cannot be written.
    """
    if not fps > 0:
        raise ValueError(f"fps: expected more than 0, got {fps}")
    _spread_frames(person, 1)
    # Of a file with every tenth frame only these: the others are there, but empty.
    valid = np.flatnonzero(person.valid)
    shown = valid[np.linspace(0, len(valid) - 1, min(most_frames, len(valid))).astype(int)]
    figure = _new_figure(9, 3.8)
    from matplotlib import animation

    path = Path(path)
    # A GIF cannot hold more than eleven minutes.
    rate = max(fps * len(shown) / len(person.frames), 1 / _LONGEST)
    writers: dict[str, Any] = {".gif": animation.PillowWriter, ".mp4": animation.FFMpegWriter}
    if path.suffix not in writers or not writers[path.suffix].isAvailable():
        raise ValueError(f"path: expected .gif, or .mp4 with ffmpeg installed, got {path.name!r}")
    writer = writers[path.suffix](fps=rate)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    axes = _three_axes(figure, 1, 0)
    figure.subplots_adjust(left=0.07, right=0.98, bottom=0.13, top=0.84, wspace=0.08)
    _label(figure, person)
    _prepare(axes, person, title=True)
    for panel in axes:
        panel.set_autoscale_on(False)
    with writer.saving(figure, str(partial), dpi=70):
        for frame in shown:
            for line in [line for panel in axes for line in panel.lines]:
                line.remove()
            _draw_lifted(axes, person, int(frame))
            axes[0].set_xlabel(f"frame {person.frames[frame]}")
            writer.grab_frame()
    partial.replace(path)


class Line(NamedTuple):
    """A line of `plot_lines`.

    Attributes:
      name: In the legend.
      x: `(N,)`.
      values: Of each seed, `(S, N)`.
    """

    name: str
    x: ArrayLike
    values: ArrayLike


def plot_lines(
    path: str | Path, panels: Mapping[str, Sequence[Line]], *, x_label: str, y_label: str
) -> None:
    """Draws lines, a panel for each title: means over seeds, and a band from least to greatest.

    Args:
      path: File to write, there whole or not at all; the suffix gives the format.
      panels: By title its lines.
      x_label: Below each panel.
      y_label: Beside the first one.

    Raises:
      ValueError: There is no panel, or a line whose values are not `(S, N)` for its `(N,)`.
      ImportError: matplotlib is not installed.
    """
    if not panels:
        raise ValueError("panels: expected at least one, got none")
    figure = _new_figure(5.5 * len(panels), 3.8)
    row = figure.subplots(1, len(panels), squeeze=False)[0]
    row[0].set_ylabel(y_label)
    for axes, (title, lines) in zip(row, panels.items(), strict=True):
        for line in lines:
            x, values = np.asarray(line.x), np.asarray(line.values)
            if x.ndim != 1 or values.ndim != 2 or values.shape[1:] != x.shape:
                raise ValueError(
                    f"panels: expected (S, N) values over (N,) in {line.name!r}, got "
                    f"{values.shape} over {x.shape}"
                )
            axes.plot(x, values.mean(axis=0), marker="." if len(x) < 30 else "", label=line.name)
            color = axes.lines[-1].get_color()
            axes.fill_between(x, values.min(axis=0), values.max(axis=0), alpha=0.2, color=color)
        axes.set_title(title, fontsize=10)
        axes.set_xlabel(x_label)
        axes.legend()
    _save(figure, path)


def plot_curves(path: str | Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Draws the curves of a run: one panel for each figure, training and evaluation in colours.

    Args:
      path: File to write, there whole or not at all; the suffix gives the format.
      lines: See `training.read_metrics`.

    Raises:
      ValueError: There is no figure to draw.
      ImportError: matplotlib is not installed.
    """
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for line in lines:
        for name, value in line.items():
            if name not in ("step", "split", "time") and value is not None:
                curves.setdefault(name, {}).setdefault(line["split"], []).append(
                    (line["step"], value)
                )
    if not curves:
        raise ValueError("lines: expected at least one figure, got none")
    figure = _new_figure(4.0 * len(curves), 3.0)
    for axes, (name, splits) in zip(
        figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        for split, points in splits.items():
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else "")
            axes.lines[-1].set_label(split)
        axes.set_title(name)
        axes.set_xlabel("step")
        axes.legend()
    _save(figure, path)


def plot_matrices(
    path: str | Path,
    matrices: Mapping[str, ArrayLike],
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    signed: Collection[str] = (),
    title: str = "",
    row_label: str = "",
    column_label: str = "",
) -> None:
    """Draws matrices side by side as heat maps, each figure in its cell.

    Args:
      path: File to write, there whole or not at all; the suffix gives the format.
      matrices: By title of the panel, `(R, C)` figures; they share one scale of colours.
      rows: Names of the R rows.
      columns: Names of the C columns.
      signed: Panels of differences: blue above 0, red below, a scale for themselves.
      title: Printed on top.
      row_label: What the rows are.
      column_label: What the columns are.

    Raises:
      ImportError: matplotlib is missing; the message names the extra.
      ValueError: There is no matrix, one of another shape, or `signed` names none of them.
    """
    tables = {name: np.asarray(matrix, np.float64) for name, matrix in matrices.items()}
    shape = (len(rows), len(columns))
    if not tables or any(table.shape != shape for table in tables.values()):
        found = {name: table.shape for name, table in tables.items()}
        raise ValueError(f"matrices: expected at least one, all of shape {shape}, got {found}")
    if not {*signed} <= {*tables}:
        raise ValueError(f"signed: expected some of {sorted(tables)}, got {sorted(signed)}")
    plain = np.stack([t for n, t in tables.items() if n not in signed] or [np.zeros(shape)])
    figure = _new_figure(1.5 + (0.7 * len(columns) + 0.8) * len(tables), 2.2 + 0.6 * len(rows))
    for panel, (name, table) in enumerate(tables.items(), start=1):
        axes = figure.add_subplot(1, len(tables), panel)
        limits, colours = (np.nanmin(plain), np.nanmax(plain)), "viridis"
        if name in signed:
            largest = max(np.nanmax(np.abs(table)), 1e-12)
            limits, colours = (-largest, largest), "RdBu"
        image = axes.imshow(table, cmap=colours, vmin=limits[0], vmax=limits[1])
        for (row, column), value in np.ndenumerate(table):
            # Dark on light, light on dark.
            dark = np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114)) < 0.5
            text = f"{value:+.1f}" if name in signed else f"{value:.1f}"
            color = "white" if dark else "black"
            axes.text(column, row, text, ha="center", va="center", fontsize=8, color=color)
        axes.set_xticks(range(len(columns)), columns, rotation=40, ha="right", fontsize=8)
        axes.set_yticks(range(len(rows)), rows if panel == 1 else [""] * len(rows), fontsize=8)
        axes.set_xlabel(column_label)
        axes.set_ylabel(row_label if panel == 1 else "")
        axes.set_title(name, fontsize=10)
    figure.suptitle(title)
    _save(figure, path)


def _save(figure: Any, path: str | Path) -> None:
    """Writes a picture that is there whole or not at all."""
    figure.tight_layout()
    path = Path(path)
    partial = path.with_name(f"{path.stem}.partial{path.suffix}")
    figure.savefig(partial, dpi=100)
    partial.replace(path)


def _spread_frames(person: LiftedPerson, count: int) -> list[int]:
    """Some of the valid frames, not the first or last where there are others."""
    valid = np.flatnonzero(person.valid)
    if not len(valid):
        raise ValueError(f"person: expected a valid frame, got none for {person.track!r}")
    place = (np.arange(count) + 0.5) / count * len(valid)
    return [int(valid[i]) for i in np.unique(place.astype(int))]


def _three_axes(figure: Any, rows: int, row: int) -> list[Any]:
    flat = figure.add_subplot(rows, 3, 3 * row + 1)
    solid = [
        figure.add_subplot(rows, 3, 3 * row + 2 + column, projection="3d") for column in (0, 1)
    ]
    return [flat, *solid]


def _label(figure: Any, person: LiftedPerson) -> None:
    figure.suptitle(
        f"person {person.track}: right red, left blue, hypotheses orange, grid 0.5 m", fontsize=10
    )


def _prepare(axes: Sequence[Any], person: LiftedPerson, *, title: bool) -> None:
    """Limits and titles of the three axes, the same for all frames: who walks is seen to walk."""
    pixels = person.keypoints[person.confidence > 0]
    low, high = pixels.min(axis=0), pixels.max(axis=0)
    margin = 0.1 * max(float((high - low).max()), 1.0)
    axes[0].set_xlim(low[0] - margin, high[0] + margin)
    axes[0].set_ylim(high[1] + margin, low[1] - margin)
    axes[0].set_aspect("equal")
    axes[0].tick_params(labelsize=7)
    axes[0].set_title("keypoints (pixels)" if title else "", fontsize=10)
    chosen = person.pose[person.valid]
    for panel, (name, azimuth, elevation) in zip(axes[1:], _VIEWS, strict=True):
        _frame(panel, chosen, azimuth, elevation)
        panel.set_title(name if title else "", fontsize=10)


def _draw_lifted(axes: Sequence[Any], person: LiftedPerson, frame: int) -> None:
    """Keypoints, and the pose from two sides, of one frame into three axes."""
    seen = person.confidence[frame] > 0
    pixels = np.where(seen[:, None], person.keypoints[frame], np.nan)
    plot_pose(axes[0], pixels, person.skeleton)
    axes[0].plot(*pixels.T, linestyle="", marker=".", markersize=4, color="black")
    if not person.valid[frame]:
        return
    # One line with gaps: hundreds of lines would take a second a frame.
    ends = person.poses[:_CLOUD, frame][:, np.array(person.skeleton.bones)]
    gaps = np.full_like(ends[..., :1, :], np.nan)
    cloud = np.concatenate([ends, gaps], axis=-2).reshape(-1, 3)
    for panel in axes[1:]:
        panel.plot(*cloud[:, [0, 2, 1]].T, color="tab:orange", alpha=0.35, linewidth=0.8)
        plot_pose(panel, person.pose[frame], person.skeleton)


def _frame(axes: Any, poses: np.ndarray, azimuth: float, elevation: float) -> None:
    """Equal scale on all axes, upright, around the poses."""
    from matplotlib.ticker import MultipleLocator

    centre = poses.reshape(-1, 3).mean(axis=0)
    radius = max(0.5, float(np.abs(poses - centre).max()))
    axes.set_xlim(centre[0] - radius, centre[0] + radius)
    axes.set_ylim(centre[2] - radius, centre[2] + radius)
    axes.set_zlim(centre[1] + radius, centre[1] - radius)
    axes.set_box_aspect((1, 1, 1), zoom=1.35)
    axes.view_init(elev=elevation, azim=azimuth)
    # Half a metre a line; numbers would only overlap.
    for axis in (axes.xaxis, axes.yaxis, axes.zaxis):
        axis.set_major_locator(MultipleLocator(0.5))
        axis.set_ticklabels([])


def _new_figure(width: float, height: float) -> Any:
    """A figure of its own canvas: no pyplot, hence no window and no global state."""
    try:
        import mpl_toolkits.mplot3d  # noqa: F401  (registers the 3D projection)
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError("pictures need matplotlib: pip install 'posediff-jax[viz]'") from error
    return Figure(figsize=(width, height))
