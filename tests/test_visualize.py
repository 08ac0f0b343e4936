"""Pictures: written without a window, drawn upright, refused for shapes that do not fit."""

import builtins

import numpy as np
import pytest
from matplotlib.figure import Figure

from posediff_jax.skeleton import H36M_17
from posediff_jax.visualize import plot_curves, plot_hypotheses, plot_pose

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
