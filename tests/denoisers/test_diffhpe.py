"""DiffHPE's denoiser: published sizes, the split for samplers, conditions, errors.

Its numbers are compared with the authors' by tests.parity.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser, init_variables, step_table
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.skeleton import H36M_16, H36M_17, MPI_INF_3DHP_17
from tests.denoisers.numpy_reference import random_variables

TINY = {"num_frames": 5, "width": 8, "num_blocks": 2, "step_width": 8, "num_timesteps": 10}
LIFTER = MixSTE(H36M_17, num_frames=5, width=6, depth=1, num_heads=2)
WRAPPER = {"source": "features", "encode_pose": True, "lifter": LIFTER}


def example(lead=(3,), frames=5, seed=0, joints=17, channels=3):
    rng = np.random.default_rng(seed)
    window = (*lead, frames, joints)
    t = rng.integers(0, 10, size=lead)
    return rng.normal(size=(*window, 2)), rng.normal(size=(*window, channels)), t


@functools.cache
def tiny(**options):
    model = DiffHPEDenoiser(H36M_17, **{**TINY, **options})
    return model, random_variables(model, *example(channels=model.pose_channels))


def run(model, variables, *inputs, **options):
    with jax.enable_x64(True):
        apply = jax.jit(functools.partial(model.apply, **options))
        return np.asarray(apply(variables, *map(jnp.asarray, inputs)))


def count(tree):
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def test_published_sizes():
    inputs = example((1,), frames=27)
    lifter = MixSTE(H36M_17, num_frames=27, width=64)
    options = {"source": "features", "encode_pose": True, "lifter": lifter}
    for model, trained, frozen in (
        (DiffHPEDenoiser(H36M_17), 3_201_971, 0),
        (DiffHPEDenoiser(H36M_17, **options), 3_210_099, 538_944),
    ):
        params = dict(jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"])
        assert count(params.pop("lifter", {})) == frozen
        assert count(params) == trained


@pytest.mark.parametrize("options", [{}, WRAPPER], ids=["2d", "wrapper"])
def test_fresh_variables_are_those_of_init(options):
    """In names and shapes; blocks are drawn apart, and the output starts as a constant."""
    model = DiffHPEDenoiser(H36M_17, **TINY, **options)
    inputs = example()
    expected = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    fresh = jax.jit(functools.partial(init_variables, model=model))(jax.random.key(0))
    assert jax.tree.structure(fresh) == jax.tree.structure(expected)
    shapes = [jax.tree.map(lambda leaf: leaf.shape, tree) for tree in (fresh, expected)]
    assert shapes[0] == shapes[1]
    blocks = [fresh["params"][f"blocks_{i}"]["mid"]["kernel"] for i in range(2)]
    assert not np.array_equal(*blocks)
    y = np.asarray(model.apply(fresh, *inputs))
    np.testing.assert_array_equal(y, np.broadcast_to(y[0, 0, 0], y.shape))
    assert y.any()


class TestStepTable:
    def test_each_operation_is_rounded_to_float32(self):
        table = step_table(50, 128)
        assert table.shape == (50, 128)
        t, k = 49, 62
        frequency = np.float32(10.0 ** float(np.float32(np.float32(k) / np.float32(63)) * 4))
        angle = float(np.float32(t) * frequency)
        np.testing.assert_allclose(table[t, k], math.sin(angle), atol=1e-7)
        np.testing.assert_allclose(table[t, 64 + k], math.cos(angle), atol=1e-7)
        # In float64 throughout it would be another one, and released weights would not fit.
        assert abs(math.sin(t * 10 ** (4 * k / 63)) - table[t, k]) > 1e-4

    @pytest.mark.parametrize("width", [2, 7])
    def test_width(self, width):
        with pytest.raises(ValueError, match=f"step_width: expected an even number.*got {width}"):
            step_table(10, width)


@pytest.mark.parametrize("options", [{}, WRAPPER], ids=["2d", "wrapper"])
def test_encode_and_denoise_are_the_call(options):
    model, variables = tiny(**options)
    keypoints, x_t, t = example()
    encoded = run(model, variables, keypoints, method="encode")
    rows = run(model, variables, t, method="embed_times")
    assert rows.shape == (3, 2, 8)
    y = run(model, variables, keypoints, x_t, t)
    np.testing.assert_allclose(
        run(model, variables, encoded, x_t, rows, method="denoise"), y, atol=1e-12
    )
    # A scalar step is that of all windows.
    one = run(model, variables, encoded, x_t, rows[1], method="denoise")
    np.testing.assert_allclose(one[1], y[1], atol=1e-12)


def test_hypotheses_share_keypoints_and_windows_do_not_see_each_other():
    model, variables = tiny()
    keypoints, _, t = example()
    x_t = example((3, 2), seed=1)[1]
    together = run(model, variables, keypoints[:, None], x_t, t[:, None])
    apart = [run(model, variables, keypoints, x_t[:, h], t) for h in range(2)]
    np.testing.assert_allclose(together, np.stack(apart, axis=1), atol=1e-12)
    alone = run(model, variables, keypoints[1], x_t[1, 0], t[1])
    np.testing.assert_allclose(together[1, 0], alone, atol=1e-12)


def test_all_frames_and_inputs_matter():
    model, variables = tiny()
    keypoints, x_t, t = example()
    y = run(model, variables, keypoints, x_t, t)
    late = keypoints.copy()
    late[:, -1] += 0.5
    for changed in ((late, x_t, t), (keypoints, x_t + 0.1, t), (keypoints, x_t, (t + 5) % 10)):
        assert np.abs(run(model, variables, *changed) - y).max(axis=(2, 3)).min() > 1e-7


def test_a_condition_that_is_not_told_is_zero():
    model, variables = tiny()
    keypoints, x_t, t = example()
    kept = np.array([1.0, 0.0, 1.0])
    y = run(model, variables, keypoints, x_t, t, kept=kept)
    told = run(model, variables, keypoints * kept[:, None, None, None], x_t, t)
    np.testing.assert_allclose(y, told, atol=1e-12)
    assert np.abs(y - run(model, variables, keypoints, x_t, t))[1].max() > 1e-6


def test_sum_adds_the_embedded_pose_to_the_features():
    model, variables = tiny(**WRAPPER, mix="sum")
    assert variables["params"]["project"]["kernel"].shape == (6, 8)
    keypoints, x_t, t = example()
    params = dict(variables["params"])
    # As one that is told both side by side, with the same weights for each.
    params["project"] = {
        "kernel": np.concatenate([params["project"]["kernel"]] * 2),
        "bias": params["project"]["bias"],
    }
    beside, _ = tiny(**WRAPPER)
    np.testing.assert_allclose(
        run(model, variables, keypoints, x_t, t),
        run(beside, {**variables, "params": params}, keypoints, x_t, t),
        atol=1e-12,
    )


@pytest.mark.parametrize(
    ("options", "inputs"),
    [
        ({"source": "pose", "lifter": LIFTER}, 6),
        ({"source": "pose", "lifter": LIFTER, "mix": "sum"}, 3),
        ({"source": "features", "lifter": LIFTER}, 9),
        ({"source": "none"}, 3),
        ({"depth_only": True}, 3),
    ],
)
def test_other_conditions(options, inputs):
    channels = 1 if "depth_only" in options else 3
    model = DiffHPEDenoiser(H36M_17, **TINY, **options)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *example(channels=channels))
    assert shapes["params"]["project"]["kernel"].shape == (inputs, 8)
    assert shapes["params"]["output"]["bias"].shape == (channels,)
    head = shapes["params"].get("lifter", {"trunk": {}})["trunk"]
    assert ("head" in head) == (options.get("source") == "pose")


def test_padded_windows_do_not_count_in_the_statistics():
    model, variables = tiny()
    inputs = [np.float32(x) for x in example()[:2]] + [example()[2]]
    variables = jax.tree.map(np.float32, variables)
    mask = np.ones((3, 5), np.float32)
    mask[2] = 0
    apply = jax.jit(functools.partial(model.apply, train=True, mutable=["batch_stats"]))
    y, moved = apply(variables, *inputs, mask=mask)
    two, alone = apply(variables, *(x[:2] for x in inputs), mask=mask[:2])
    np.testing.assert_allclose(y[:2], two, atol=1e-4)
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(alone), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_half_precision_is_near_float32():
    model, variables = tiny()
    variables = jax.tree.map(np.float32, variables)
    inputs = [jnp.asarray(x, jnp.float32) for x in example()[:2]] + [jnp.asarray(example()[2])]
    y, exact = (
        jax.jit(m.apply)(variables, *inputs) for m in (model.clone(dtype=jnp.bfloat16), model)
    )
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.asarray(y, np.float32), exact, atol=0.1 * np.abs(exact).max())


class TestErrors:
    def check(self, match, *inputs, skeleton=H36M_17, **options):
        model = DiffHPEDenoiser(skeleton, **{**TINY, **options})
        with pytest.raises(ValueError, match=match):
            jax.eval_shape(model.init, jax.random.key(0), *(inputs or example()))

    def test_frames(self):
        self.check(r"keypoints: expected windows of 5 frames.*\(3, 4, 17, 2\)", *example(frames=4))
        keypoints, x_t, t = example()
        self.check("x_t: expected windows of 5 frames", keypoints, x_t[:, :4], t)

    def test_skeleton(self):
        self.check("for skeleton 'h36m_16'", skeleton=H36M_16)

    def test_timesteps_per_frame(self):
        keypoints, x_t, _ = example()
        self.check("t: expected a scalar or one", keypoints, x_t, np.zeros((3, 5), int))

    def test_groups(self):
        self.check("groups: expected each of 17 joints once", groups=((0, 1), (2, 3)))
        self.check("groups: published for .*not for skeleton 'mpi", skeleton=MPI_INF_3DHP_17)

    def test_lifter(self):
        self.check("lifter: expected one with source='features', got None", source="features")
        self.check("lifter: expected none with source='keypoints'", lifter=LIFTER)
        long = LIFTER.clone(num_frames=7)
        self.check("lifter: expected windows of 5 frames, got 7", source="pose", lifter=long)
        other = LIFTER.clone(skeleton=MPI_INF_3DHP_17)
        self.check("lifter: expected skeleton 'h36m_17', got 'mpi", source="pose", lifter=other)

    @pytest.mark.parametrize(
        ("options", "match"),
        [
            ({"encode_pose": True}, "encode_pose: needs a lifter, got source='keypoints'"),
            ({"mix": "sum"}, "mix: 'sum' needs as many channels .*got 3 of the pose and 2"),
            ({**WRAPPER, "encode_pose": False, "mix": "sum"}, "got 3 of the pose and 6"),
            ({"mix": "product"}, "mix: expected 'concat' or 'sum', got 'product'"),
            ({"source": "image"}, "source: expected 'keypoints', .*got 'image'"),
            ({"source": "none", "depth_only": True}, "depth_only: the keypoints stand for x"),
            ({"num_blocks": 0}, "num_blocks: expected at least 1, got 0"),
            ({"step_width": 5}, "step_width: expected an even number"),
            ({"grouping": "pairs"}, "grouping: expected 'official' or 'groups', got 'pairs'"),
        ],
    )
    def test_options(self, options, match):
        self.check(match, **options)
