"""The parity harness: it passes on the committed fixtures and on others, and it can fail."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.interop import load_diffupose
from posediff_jax.skeleton import HUMANEVA_15
from tests.denoisers import numpy_reference as reference
from tests.interop.published import diffupose_layout
from tests.parity import GOLDEN, check_file, find_check, main
from tests.parity_checks.diffupose import CHECKS
from tests.parity_checks.diffupose_training import misread_order
from tests.parity_checks.fixture import Fixture, derive_weight, judge, may_skip, read_fixture

# Compiling in float64 takes minutes in all: some of each system here, the rest in the slow set.
DEFAULT = (
    *("diffupose_modgcn_gt", "diffupose_denoiser_d64", "diffupose_ddpm", "diffupose_layers"),
    *("ddhpose_hrst", "ddhpose_denoiser_f9", "ddhpose_d3dp_denoiser_f9", "ddhpose_sampler_h2w3"),
    *("zedo_sde", "zedo_score_forward", "zedo_loop_n20", "zedo_ipo_20"),
    *("diffhpe_schedules", "diffhpe_sampling_cfg_wrapper_2d", "diffhpe_occlusion", "diffhpe_optim"),
)
FILES = [
    pytest.param(
        path,
        marks=() if path.stem.startswith(DEFAULT) else pytest.mark.slow,
        id=path.stem,
    )
    for path in sorted(GOLDEN.glob("*.npz"))
]
# Quick to check, so the one that most tests below change.
GT = GOLDEN / "diffupose_modgcn_gt_d32_j16.npz"


@pytest.mark.parametrize("path", FILES)
def test_golden(path):
    lines = check_file(path)
    # The authors' float32 runs of time-conditioned networks are off by more than our tolerance.
    skipped = [n.output for n in lines if n.status == "skipped" and n.output.endswith("_f32")]
    assert [str(n) for n in lines if n.status != "ok" and n.output not in skipped] == []
    with np.load(path) as archive:
        assert {line.output for line in lines} == {n for n in archive if n.startswith("out_")}


def write(path, *, source=GT, drop=(), meta=None, **arrays):
    """A copy of a fixture with some arrays and entries of `meta` replaced."""
    fixture = read_fixture(source)
    content = {n: a for n, a in fixture.arrays.items() if n not in drop} | arrays
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, meta=json.dumps({**fixture.meta, **(meta or {})}), **content)
    return path


def statuses(path):
    return {line.output: line.status for line in check_file(path)}


class TestUnseenFixtures:
    def test_another_size_seed_and_folder(self, tmp_path):
        """Expected values from NumPy: 15 joints, two blocks, another width and batch size."""
        joints, width, blocks, seed = 15, 48, 2, 11
        rng = np.random.default_rng(0)
        x_t, cond = rng.normal(size=(5, 1, joints, 3)), rng.normal(size=(5, 1, joints, 2))
        t = rng.integers(0, 100, 5)
        keys = [
            [k, list(s), kind(k, s)] for k, s in diffupose_layout(joints, width, blocks).items()
        ]
        factors = {"gconv_output.W": 3.5, "gconv_input.0.gconv.M": 0.3}
        model = DiffuPoseGCN(HUMANEVA_15, width=width, num_blocks=blocks)
        weights = {k: derive_weight(k, s, c, seed, factors.get(k)) for k, s, c in keys}
        variables = jax.tree.map(np.float64, load_diffupose(weights, model))
        expected = reference.diffupose(variables, HUMANEVA_15.parents, width, cond, x_t, t[:, None])
        meta = {
            "kind": "denoiser_d48_j15_layers2",
            "seed": seed,
            "keys": keys,
            "factors": factors,
            "config": {"n_joints": joints, "hid_dim": width, "num_layers": blocks},
        }
        arrays = {"in_x_t": x_t, "in_cond_2d": cond, "in_t": t, "out_pred": expected}
        path = tmp_path / "elsewhere" / "new.npz"
        write(path, drop=("in_2d", "out_3d"), meta=meta, **arrays)
        assert statuses(path) == {"out_pred": "ok"}
        assert statuses(write(path, source=path, meta={"seed": seed + 1})) == {"out_pred": "MISS"}

    def test_any_suffix_of_the_kind(self, tmp_path):
        path = write(tmp_path / "x.npz", meta={"kind": "modgcn_gt_d32_j16_seed0_again"})
        assert statuses(path) == {"out_3d": "ok"}

    def test_any_subset_of_the_outputs(self, tmp_path):
        source = GOLDEN / "diffupose_schedules.npz"
        names = [n for n in np.load(source).files if n.startswith("out_")]
        path = write(tmp_path / "x.npz", source=source, drop=names[1:])
        assert statuses(path) == {names[0]: "ok"}

    def test_longest_prefix_wins(self):
        def kind(name):
            return Fixture(GT, {"system": "diffupose", "kind": name}, {})

        assert find_check(kind("modgcn_gt_d32_j16")) is CHECKS["modgcn"]
        assert find_check(kind("modgcn_benchmark_d8")) is CHECKS["modgcn_benchmark"]


class TestMisses:
    @pytest.mark.parametrize("change", [1e-6, np.nan, np.inf])
    def test_one_changed_value(self, tmp_path, capsys, change):
        changed = read_fixture(GT)["out_3d"].copy()
        changed[1, 2, 0] += change
        assert main([str(write(tmp_path / "x.npz", out_3d=changed))]) == 1
        assert "MISS" in capsys.readouterr().out

    def test_nan_of_ours(self):
        fixture = read_fixture(GT)
        ours = fixture["out_3d"].copy()
        ours[0, 0, 0] = np.nan
        assert judge(fixture, "out_3d", ours, 1e-9).status == "MISS"

    def test_shape_of_ours(self):
        fixture = read_fixture(GT)
        line = judge(fixture, "out_3d", fixture["out_3d"][:1], 1e-9)
        assert line.status == "MISS"
        assert "expected shape (3, 16, 3), got (1, 16, 3)" in line.note

    def test_an_output_that_no_check_looks_at(self, tmp_path):
        path = write(tmp_path / "x.npz", out_surprise=np.zeros(3), out_mid_extra=np.zeros(3))
        assert statuses(path) == {
            "out_3d": "ok",
            "out_surprise": "MISS",
            "out_mid_extra": "skipped",
        }

    def test_skipped_outputs_do_not_fail_the_run(self, tmp_path, capsys):
        path = write(tmp_path / "x.npz", out_pred_f32=np.zeros(3, np.float32))
        assert main([str(path)]) == 0
        assert "1 ok, 1 skipped, 0 MISS" in capsys.readouterr().out

    def test_a_file_without_outputs(self, tmp_path):
        assert main([str(write(tmp_path / "x.npz", drop=("out_3d",)))]) == 1

    @pytest.mark.parametrize(
        ("meta", "message"),
        [
            ({"kind": "nonsense"}, "unknown kind 'nonsense'"),
            ({"system": "nobody"}, "unknown system 'nobody'"),
            ({"config": {}}, "KeyError"),
        ],
    )
    def test_unknown_fixtures(self, tmp_path, capsys, meta, message):
        assert main([str(write(tmp_path / "x.npz", meta=meta)), str(GT)]) == 1
        printed = capsys.readouterr().out
        assert message in printed
        assert "1 ok" in printed, "the other file is still checked"

    def test_kinds_that_are_left_out_on_purpose(self, tmp_path, capsys):
        meta = {"system": "diffhpe", "kind": "extra_csdi"}
        assert main([str(write(tmp_path / "x.npz", meta=meta)), str(GT)]) == 0
        printed = capsys.readouterr().out
        assert "excluded  (the forecasting transformer" in printed
        assert "1 ok, 0 skipped, 1 excluded, 0 MISS" in printed

    def test_unreadable_files(self, tmp_path, capsys):
        text, short = tmp_path / "text.npz", tmp_path / "short.npz"
        text.write_text("no archive")
        short.write_bytes(GT.read_bytes()[:300])
        assert main([str(text), str(short), str(tmp_path / "missing.npz")]) == 1
        assert capsys.readouterr().out.count("not a golden fixture") == 3

    def test_config_that_the_model_does_not_support(self, tmp_path):
        config = {**read_fixture(GT).meta["config"], "coords_dim": [2, 4]}
        (line,) = check_file(write(tmp_path / "x.npz", meta={"config": config}))
        assert line.status == "MISS"
        assert "coords_dim" in line.note


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        *(("out_mid_res0", True), ("out_layer3", True), ("out_stage", True)),
        *(("out_pred_f32", True), ("out_f32_pred", False), ("out_pred", False)),
    ],
)
def test_which_outputs_may_be_skipped(name, allowed):
    assert may_skip(name) == allowed


def test_the_last_digits_of_large_values_are_rounding(tmp_path):
    poses = read_fixture(GT)["out_3d"] * 1e6
    largest = np.abs(poses).max()
    for shift, expected in ((1e-15, "ok"), (1e-12, "MISS")):
        fixture = read_fixture(write(tmp_path / "x.npz", out_3d=poses))
        assert judge(fixture, "out_3d", poses + shift * largest, 1e-9).status == expected


def test_meta_may_give_the_tolerance(tmp_path):
    changed = read_fixture(GT)["out_3d"] + 1e-4
    for tolerance, expected in ((1e-3, "ok"), ("1e-3 abs in float64", "ok"), (1e-5, "MISS")):
        path = write(tmp_path / "x.npz", out_3d=changed, meta={"tolerance": tolerance})
        assert statuses(path) == {"out_3d": expected}


def test_misread_order_is_the_identity_with_a_permuted_gradient():
    x = np.random.default_rng(0).normal(size=(2, 1, 5, 3)).astype(np.float32)
    y, pull = jax.vjp(misread_order, x)
    np.testing.assert_array_equal(y, x)
    (gradient,) = pull(x)
    in_memory = x.reshape(2, 15)
    for channel in range(3):
        np.testing.assert_array_equal(
            gradient[:, 0, :, channel], in_memory[:, 5 * channel : 5 * channel + 5]
        )


def test_command_line(tmp_path):
    """From a shell: exit status and one line per output."""
    good = shutil.copy(GOLDEN / "diffupose_graph.npz", tmp_path / "renamed.npz")
    command = [sys.executable, "-m", "tests.parity", str(good)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    line = next(line for line in done.stdout.splitlines() if "out_adj_16" in line)
    assert line.split()[0] == "renamed.npz"
    assert line.split()[-1] == "ok"


def kind(key, shape):
    """The class of the weight rule that a state-dict entry has."""
    if key.endswith("num_batches_tracked"):
        return "int"
    if len(shape) > 1:
        return "matrix"
    if key.endswith("running_var"):
        return "running_var"
    return "norm_scale" if key.endswith(("bn.weight", "W.1.weight")) else "vector"
