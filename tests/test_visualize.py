"""Pictures: written without a window, drawn upright, refused for shapes that do not fit."""

import builtins
import dataclasses

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from posediff_jax.calibration import default_camera
from posediff_jax.lifted_person import LiftedPerson
from posediff_jax.skeleton import H36M_17
from posediff_jax.visualize import (
    Line,
    animate_lifted,
    plot_curves,
    plot_hypotheses,
    plot_lifted,
    plot_lines,
    plot_matrices,
    plot_pose,
)

RNG = np.random.default_rng(0)


def test_a_picture_is_written(tmp_path):
    path = tmp_path / "poses.png"
    arrays = (
        RNG.normal(size=(2, 17, 2)),
        RNG.normal(size=(2, 17, 3)),
        RNG.normal(size=(2, 4, 17, 3)),
    )
    plot_hypotheses(path, *arrays, H36M_17, title="two poses")
    assert path.read_bytes().startswith(b"\x89PNG")
    plot_hypotheses(path, arrays[0], None, arrays[2], H36M_17)


def test_bones_are_drawn_upright_and_in_depth():
    """Camera axes x right, y down, z forward become x right, depth, height."""
    axes = Figure().add_subplot(projection="3d")
    pose = RNG.normal(size=(17, 3))
    plot_pose(axes, pose, H36M_17)
    assert len(axes.lines) == 16
    child, parent = H36M_17.bones[0]
    x, y, z = axes.lines[0].get_data_3d()
    np.testing.assert_allclose(np.stack([x, z, y], axis=-1), pose[[child, parent]])


def test_sides_have_their_colours():
    axes = Figure().add_subplot()
    plot_pose(axes, RNG.normal(size=(17, 2)), H36M_17)
    colours = {line.get_color() for line in axes.lines}
    assert len(colours) == 3


def test_shapes_that_do_not_fit_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"keypoints: expected \(..., 17, 2\)"):
        plot_hypotheses(
            tmp_path / "x.png", np.zeros((1, 16, 2)), None, np.zeros((1, 2, 17, 3)), H36M_17
        )
    with pytest.raises(ValueError, match=r"expected \(R, J, 2\) and \(R, H, J, 3\)"):
        plot_hypotheses(
            tmp_path / "x.png", np.zeros((2, 17, 2)), None, np.zeros((1, 2, 17, 3)), H36M_17
        )


def test_a_missing_matplotlib_names_the_extra(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_matplotlib(name, *args, **kwargs):
        if name.startswith(("matplotlib", "mpl_toolkits")):
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_matplotlib)
    with pytest.raises(ImportError, match=r"posediff-jax\[viz\]"):
        plot_hypotheses(
            tmp_path / "x.png", np.zeros((1, 17, 2)), None, np.zeros((1, 2, 17, 3)), H36M_17
        )


def lifted(frames=4):
    """Somebody who faces the camera with the left arm out, as its picture and in space."""
    pose = np.zeros((17, 3), np.float32)
    pose[[1, 2, 3], 0], pose[[4, 5, 6], 0] = -0.1, 0.1
    pose[[3, 6], 1], pose[[2, 5], 1], pose[[7, 8, 9, 10], 1] = 0.8, 0.4, [-0.2, -0.4, -0.5, -0.6]
    pose[[11, 12, 13]] = [[0.2, -0.4, 0.0], [0.4, -0.4, 0.1], [0.6, -0.4, 0.2]]
    pose[[14, 15, 16]] = [[-0.2, -0.4, 0.0], [-0.2, -0.2, 0.0], [-0.2, 0.0, 0.0]]
    noise = RNG.normal(0, 0.02, (3, frames, 17, 3)).astype(np.float32)
    confidence = np.ones((frames, 17), np.float32)
    confidence[:, 16] = 0
    keypoints = np.stack([500 + 250 * pose[:, :2]] * frames)
    keypoints[:, 16] = 0
    return LiftedPerson(
        track="7",
        frames=np.arange(20, 20 + frames),
        poses=pose + noise,
        translations=np.zeros((3, frames, 3)),
        pose=np.stack([pose] * frames),
        root=np.zeros((frames, 3)),
        chosen=np.zeros(frames, int),
        spread=np.zeros((frames, 17)),
        reprojection_error=np.zeros((3, frames)),
        valid=np.array([True, False] + [True] * (frames - 2)),
        bad=np.zeros(frames, bool),
        keypoints=keypoints,
        confidence=confidence,
        derived=np.zeros(17, bool),
        skeleton=H36M_17,
        camera=default_camera((1000, 1000)),
        **dict.fromkeys(("rule", "camera_from", "scale_from", "weights_from", "fingerprint"), ""),
    )


@pytest.fixture
def figures(monkeypatch):
    made, write = [], Figure.savefig

    def savefig(figure, path, **options):
        made.append(figure)
        write(figure, path, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    return made


class TestLifted:
    def test_left_is_blue_up_is_up_and_what_is_missing_is_not_drawn(self, tmp_path, figures):
        person = lifted()
        plot_lifted(tmp_path / "p.png", person, frames=2)
        assert [f.name for f in tmp_path.iterdir()] == ["p.png"]
        flat, front, side = figures[0].axes[:3]
        bones = {"tab:blue": [], "tab:red": [], "0.25": []}
        for line in flat.lines:
            if line.get_linestyle() == "-":
                bones[line.get_color()].append(line.get_xydata())
        # A wrist is missing: one bone less on the right.
        assert [len(b) for b in bones.values()] == [6, 5, 4]
        assert (
            np.mean(bones["tab:blue"], axis=(0, 1))[0] > np.mean(bones["tab:red"], axis=(0, 1))[0]
        )
        bottom, top = flat.get_ylim()
        assert bottom > top
        for axes in (front, side):
            low, high = axes.get_zlim()
            assert low > high
            left = [li.get_data_3d() for li in axes.lines if li.get_color() == "tab:blue"]
            wrist = max(left, key=lambda data: data[0].max())
            # Matplotlib's depth is the camera's z.
            np.testing.assert_allclose([d[0] for d in wrist], [0.6, 0.2, -0.4], atol=1e-6)
            (cloud,) = [li for li in axes.lines if li.get_color() == "tab:orange"]
            assert len(cloud.get_data_3d()[0]) == 3 * 16 * 3
        assert (front.azim, side.azim) == (-90, 0)

    def test_frames_without_an_answer_are_not_shown(self, tmp_path, figures):
        plot_lifted(tmp_path / "p.png", lifted(), frames=10)
        labels = [axes.get_ylabel() for axes in figures[0].axes[::3]]
        assert labels == ["frame 20", "frame 22", "frame 23"]
        nobody = dataclasses.replace(lifted(), valid=np.zeros(4, bool))
        with pytest.raises(ValueError, match="person: expected a valid frame, got none for '7'"):
            plot_lifted(tmp_path / "q.png", nobody)

    def test_an_animation_has_all_lifted_frames_or_some_for_longer(self, tmp_path):
        """Three of four frames were lifted; the animation takes as long as the video."""
        animate_lifted(tmp_path / "p.gif", lifted(), fps=10.0)
        animate_lifted(tmp_path / "q.gif", lifted(), fps=10.0, most_frames=2)
        assert sorted(f.name for f in tmp_path.iterdir()) == ["p.gif", "q.gif"]
        for name, count, milliseconds in (("p", 3, 130), ("q", 2, 200)):
            with Image.open(tmp_path / f"{name}.gif") as film:
                assert film.n_frames == count
                assert film.info["duration"] == milliseconds
        animate_lifted(tmp_path / "r.gif", lifted(), fps=1e-4)
        with Image.open(tmp_path / "r.gif") as film:
            assert film.info["duration"] == 600_000
        with pytest.raises(ValueError, match=r"path: expected .gif, .* got 'p.avi'"):
            animate_lifted(tmp_path / "p.avi", lifted())
        with pytest.raises(ValueError, match="fps: expected more than 0"):
            animate_lifted(tmp_path / "p.gif", lifted(), fps=0)


def test_curves_have_a_panel_for_each_figure_and_a_line_for_each_split(tmp_path, monkeypatch):
    figures, write = [], Figure.savefig

    def savefig(self, path, **options):
        figures.append(self)
        write(self, path, **options)

    monkeypatch.setattr(Figure, "savefig", savefig)
    lines = [
        {"step": 1, "split": "train", "time": 0.0, "loss": 2.0, "grad_norm": 1.0},
        {"step": 2, "split": "train", "time": 1.0, "loss": 1.0, "grad_norm": None},
        {"step": 2, "split": "eval", "time": 1.5, "loss": 1.5},
    ]
    plot_curves(tmp_path / "curves.png", lines)
    assert [file.name for file in tmp_path.iterdir()] == ["curves.png"]
    axes = {a.get_title(): a for a in figures[0].axes}
    assert set(axes) == {"loss", "grad_norm"}
    train, held_out = axes["loss"].lines
    assert (train.get_label(), held_out.get_label()) == ("train", "eval")
    np.testing.assert_array_equal(train.get_xydata(), [[1, 2], [2, 1]])
    np.testing.assert_array_equal(axes["grad_norm"].lines[0].get_xydata(), [[1, 1]])
    with pytest.raises(ValueError, match="lines: expected at least one figure"):
        plot_curves(tmp_path / "curves.png", [])


def test_lines_are_means_over_seeds_in_a_band(tmp_path, figures):
    two = Line("ours", [1, 2], [[3.0, 4.0], [5.0, 4.0]])
    panels = {"left": [two, Line("theirs", [1, 2], [[6.0, 6.0]])], "right": [two]}
    plot_lines(tmp_path / "lines.png", panels, x_label="level", y_label="mm")
    assert [file.name for file in tmp_path.iterdir()] == ["lines.png"]
    left, right = figures[0].axes
    assert (left.get_title(), left.get_xlabel(), left.get_ylabel()) == ("left", "level", "mm")
    assert [line.get_label() for line in left.lines] == ["ours", "theirs"]
    np.testing.assert_array_equal(left.lines[0].get_xydata(), [[1, 4], [2, 4]])
    (band,) = right.collections
    assert band.get_paths()[0].get_extents().bounds == (1, 3, 1, 2)
    with pytest.raises(ValueError, match="panels: expected at least one, got none"):
        plot_lines(tmp_path / "x.png", {}, x_label="", y_label="")
    wrong = {"left": [Line("ours", [1, 2], [3.0, 4.0])]}
    with pytest.raises(ValueError, match=r"'ours', got \(2,\) over \(2,\)"):
        plot_lines(tmp_path / "x.png", wrong, x_label="", y_label="")


class TestMatrices:
    def test_every_figure_is_in_its_cell(self, tmp_path, figures):
        plot_matrices(
            tmp_path / "m.png",
            {"gain": [[1.0, -3.0, 0.0]], "ours": [[10.0, 20.0, 30.0]]},
            ["one"],
            ["a", "b", "c"],
            signed=("gain",),
            row_label="training",
            column_label="test",
        )
        assert [f.name for f in tmp_path.iterdir()] == ["m.png"]
        gain, ours = figures[0].axes
        assert [text.get_text() for text in gain.texts] == ["+1.0", "-3.0", "+0.0"]
        assert [text.get_position() for text in ours.texts] == [(0, 0), (1, 0), (2, 0)]
        assert [t.get_text() for t in ours.get_xticklabels()] == ["a", "b", "c"]
        assert (gain.get_ylabel(), gain.get_xlabel()) == ("training", "test")
        # Blue is a gain, red a loss, by as much; the others have a scale of their own.
        assert gain.images[0].get_clim() == (-3.0, 3.0)
        assert ours.images[0].get_clim() == (10.0, 30.0)
        red, _, blue, _ = gain.images[0].cmap(gain.images[0].norm(3.0))
        assert blue > red

    @pytest.mark.parametrize(
        ("tables", "signed", "message"),
        [
            ({}, (), r"matrices: expected at least one, all of shape \(1, 2\), got \{\}"),
            ({"a": [[1.0]]}, (), r"matrices: .* got \{'a': \(1, 1\)\}"),
            ({"a": [[1.0, 2.0]]}, ("b",), r"signed: expected some of \['a'\], got \['b'\]"),
        ],
    )
    def test_what_does_not_fit_is_named(self, tmp_path, tables, signed, message):
        with pytest.raises(ValueError, match=message):
            plot_matrices(tmp_path / "m.png", tables, ["x"], ["a", "b"], signed=signed)
        assert not list(tmp_path.iterdir())
