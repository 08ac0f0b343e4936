"""The score network against a NumPy reading of its definition, and its invariances."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.score_mlp import (
    GroupNorm,
    ScoreMLP,
    centre_groups,
    condition_mask,
    part_masks,
)

JOINTS, PARTS = 6, ((1, 2), (3, 4), (0, 5))
MODEL = ScoreMLP(JOINTS, width=32, embedding=8, num_blocks=2, groups=4, dropout=0.5)
CONDITIONAL = ScoreMLP(JOINTS, width=32, embedding=8, groups=4, conditional=True)


@pytest.fixture(scope="module")
def poses():
    return np.random.default_rng(0).normal(size=(5, JOINTS, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(poses):
    return jittered(jax.jit(MODEL.init)(jax.random.key(0), poses, jnp.zeros(5)))


@pytest.fixture(scope="module")
def conditional(poses):
    return jittered(jax.jit(CONDITIONAL.init)(jax.random.key(0), poses, jnp.zeros(5), cond=poses))


def jittered(variables):
    """Away from the start, where the affine maps of the norms would not show."""
    rng = np.random.default_rng(1)
    return jax.tree.map(lambda a: a + 0.1 * rng.normal(size=a.shape).astype(a.dtype), variables)


def silu(x):
    return x / (1 + np.exp(-x))


def linear(p, x):
    return x @ np.asarray(p["kernel"], np.float64) + p["bias"]


def reference(params, x, t):
    """Float64 NumPy, written from the published definition."""
    half = 4
    angles = 999 * t[:, None] * np.exp(-np.log(1e4) * np.arange(half) / (half - 1))
    e = silu(linear(params["time_embed"], np.concatenate([np.sin(angles), np.cos(angles)], 1)))

    def layer(i, h):
        p = params[f"layers_{i}"]
        h = linear(p["dense"], h) + linear(p["time"], e)
        groups = np.stack(np.split(h, 4, axis=1))
        groups = groups - groups.mean(axis=2, keepdims=True)
        groups /= np.sqrt(groups.var(axis=2, keepdims=True) + 1e-5)
        return silu(np.concatenate(list(groups), 1) * p["norm"]["scale"] + p["norm"]["bias"])

    h = layer(0, x.reshape(len(x), -1))
    for i in (1, 3):
        h = h + layer(i + 1, layer(i, h))
    return linear(params["out"], h).reshape(x.shape)


def test_is_the_published_definition(variables, poses):
    t = np.linspace(0.01, 1, 5)
    with jax.enable_x64(True):
        wide = jax.tree.map(np.float64, variables)
        ours = MODEL.apply(wide, np.float64(poses), t)
    np.testing.assert_allclose(
        ours, reference(jax.tree.map(np.float64, variables)["params"], poses, t), atol=1e-12
    )


def test_published_size():
    shapes = jax.eval_shape(ScoreMLP().init, jax.random.key(0), jnp.zeros((1, 17, 3)), jnp.zeros(1))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == 7_203_379
    model, x = ScoreMLP(conditional=True), jnp.zeros((1, 17, 3))
    shapes = jax.eval_shape(lambda key: model.init(key, x, jnp.zeros(1), cond=x), jax.random.key(0))
    assert sum(a.size for a in jax.tree.leaves(shapes)) == 12_504_627


def test_starts_like_pytorch():
    params = jax.jit(ScoreMLP().init)(jax.random.key(0), jnp.zeros((1, 17, 3)), jnp.zeros(1))[
        "params"
    ]
    weights = params["layers_1"]["dense"]
    for value in weights.values():
        assert 0.99 / 32 < jnp.abs(value).max() <= 1 / 32
    np.testing.assert_array_equal(params["layers_1"]["norm"]["scale"], 1)


def test_leading_axes_are_a_batch(variables, poses):
    """Also for one item, for hypotheses, and for a time that all share."""
    t = jnp.linspace(0.1, 1, 5)
    together = MODEL.apply(variables, poses, t)
    np.testing.assert_allclose(
        MODEL.apply(variables, poses[:, None], t[:, None])[:, 0], together, rtol=1e-5, atol=1e-6
    )
    alone = jax.vmap(lambda x, s: MODEL.apply(variables, x, s))(poses, t)
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-6)
    shared = MODEL.apply(variables, poses, 0.3)
    apart = MODEL.apply(variables, poses, jnp.full(5, 0.3))
    np.testing.assert_allclose(shared, apart, rtol=1e-5, atol=1e-6)


def test_time_can_be_embedded_ahead(variables, poses):
    times = jnp.linspace(0.1, 0.01, 3)
    shifts = MODEL.apply(variables, 999 * times, method="embed_time")
    assert shifts.shape == (3, 5, 32)
    for t, shift in zip(times, shifts, strict=True):
        ahead = MODEL.apply(variables, poses, shift, method="denoise")
        np.testing.assert_allclose(ahead, MODEL.apply(variables, poses, t), rtol=1e-4, atol=1e-5)


class TestCentreGroups:
    def test_gives_the_same_network(self, variables, conditional, poses):
        t = np.linspace(0.01, 1, 5)
        for model, weights, told in (
            (MODEL, variables, {}),
            (CONDITIONAL, conditional, {"cond": poses}),
        ):
            with jax.enable_x64(True):
                wide = jax.tree.map(np.float64, weights)
                args = np.float64(poses), t
                told = jax.tree.map(np.float64, told)
                centred, moved = centre_groups(model, wide)
                np.testing.assert_allclose(
                    centred.apply(moved, *args, **told),
                    model.apply(wide, *args, **told),
                    atol=1e-12,
                )

    def test_spares_a_product_of_each_norm(self, variables, poses):
        def products(model, weights):
            shifts = jnp.zeros((5, 32))
            call = jax.make_jaxpr(lambda x: model.apply(weights, x, shifts, method="denoise"))
            return str(call(poses)).count("dot_general[")

        layers = 5
        assert products(MODEL, variables) == layers + 1 + 2 * layers
        assert products(*centre_groups(MODEL, variables)) == layers + 1 + layers

    def test_leaves_weights_and_model_alone(self, variables):
        before = jax.tree.map(np.array, variables)
        centre_groups(MODEL, variables)
        jax.tree.map(np.testing.assert_array_equal, before, variables)
        assert not MODEL.centred

    def test_refuses_a_second_time(self, variables):
        with pytest.raises(ValueError, match="centred already"):
            centre_groups(*centre_groups(MODEL, variables))

    def test_does_not_round_narrow_weights_again(self, variables, poses):
        narrow = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), variables)
        centred, moved = centre_groups(MODEL, narrow)
        expected = MODEL.apply(narrow, poses, 0.5)
        np.testing.assert_allclose(centred.apply(moved, poses, 0.5), expected, atol=1e-5)

    def test_refuses_weights_of_another_network(self, variables):
        with pytest.raises(ValueError, match=r"variables: expected params with \['layers_0'"):
            centre_groups(MODEL, variables["params"])
        with pytest.raises(ValueError, match="variables: expected layers of width 64, got"):
            centre_groups(MODEL.clone(width=64), variables)


def test_dropout_only_in_training(variables, poses):
    def run(seed, train):
        rngs = {"dropout": jax.random.key(seed)}
        return MODEL.apply(variables, poses, 0.5, train=train, rngs=rngs)

    np.testing.assert_array_equal(run(0, False), run(1, False))
    assert jnp.abs(run(0, True) - run(1, True)).max() > 1e-3


def test_bfloat16_keeps_wide_parameters_and_is_near(variables, poses):
    narrow = ScoreMLP(
        JOINTS, width=32, embedding=8, num_blocks=2, groups=4, dtype=jnp.dtype(jnp.bfloat16)
    )
    out = narrow.apply(variables, poses, 0.5)
    assert out.dtype == jnp.bfloat16
    np.testing.assert_allclose(out.astype(np.float32), MODEL.apply(variables, poses, 0.5), atol=0.1)


def test_group_norm_sees_one_item_at_a_time():
    x = jax.random.normal(jax.random.key(0), (3, 2, 8))
    norm = GroupNorm(groups=4)
    y = norm.apply(norm.init(jax.random.key(0), x), x).reshape(3, 2, 4, 2)
    np.testing.assert_allclose(y.mean(axis=-1), 0, atol=1e-6)
    other = norm.apply(norm.init(jax.random.key(0), x), x[:1, :1])
    np.testing.assert_allclose(other.reshape(4, 2), y[0, 0], rtol=1e-6)


class TestCondition:
    def test_depth_of_a_2d_condition_does_not_count(self, conditional, poses):
        flat = poses.copy()
        flat[..., 2] = 0
        same = jnp.concatenate([poses[..., :2], poses[..., 2:] * 0 + 1e-9], axis=-1)
        mask = jnp.array([1.0, 1.0, 0.0])
        without_z = CONDITIONAL.apply(conditional, poses, 0.1, cond=same, mask=mask)
        two_d = CONDITIONAL.apply(conditional, poses, 0.1, cond=flat)
        np.testing.assert_allclose(two_d, without_z, rtol=1e-5, atol=1e-6)

    def test_each_item_is_judged_alone(self, conditional, poses):
        cond = poses.copy() + 1
        cond[0, :, 2] = 0
        both = CONDITIONAL.apply(conditional, poses, 0.1, cond=cond)
        one = CONDITIONAL.apply(conditional, poses[1:], 0.1, cond=cond[1:])
        np.testing.assert_allclose(both[1:], one, rtol=1e-5, atol=1e-6)

    def test_masked_values_do_not_count(self, conditional, poses):
        mask = np.ones_like(poses)
        mask[:, 2] = 0
        cond = poses + 1
        moved = cond.copy()
        moved[:, 2] += 5
        one, two = (
            CONDITIONAL.apply(conditional, poses, 0.1, cond=c, mask=mask) for c in (cond, moved)
        )
        np.testing.assert_array_equal(one, two)


class TestMasks:
    def test_parts(self):
        masks = part_masks(PARTS)
        np.testing.assert_array_equal(masks[0], [1, 0, 0, 1, 1, 1])
        np.testing.assert_array_equal(masks.sum(axis=0), 2)

    def test_shares(self):
        def share(**probs):
            none = {"pose_prob": 0.0, "part_prob": 0.0, "joint_prob": 0.0}
            mask = condition_mask(jax.random.key(0), (4000,), parts=PARTS, **none | probs)
            assert mask.shape == (4000, JOINTS, 1)
            return mask[..., 0]

        np.testing.assert_allclose(share(joint_prob=0.3).mean(), 0.7, atol=0.02)
        np.testing.assert_allclose(share(pose_prob=0.3, part_prob=0.2).mean(), 0.56, atol=0.02)
        whole = share(pose_prob=0.5)
        np.testing.assert_array_equal(whole, whole[:, :1] * jnp.ones(JOINTS))
        part = share(part_prob=0.5)
        np.testing.assert_array_equal(part[:, 1], part[:, 2])
        assert (part[:, 1] != part[:, 3]).any()

    @pytest.mark.parametrize("parts", [(), ((0, 1), (1, 2)), ((0, 2),)])
    def test_parts_must_cover_the_joints_once(self, parts):
        with pytest.raises(ValueError, match="parts: expected each joint 0 to J - 1 once"):
            part_masks(parts)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda v, x: MODEL.apply(v, x[:, :5], 0.1), r"x_t: expected \(\.\.\., 6, 3\), got"),
        (lambda v, x: MODEL.apply(v, x, jnp.ones(3)), r"t: expected a scalar or shape \(5,\)"),
        (lambda v, x: MODEL.apply(v, x, 0.1, cond=x), "cond: expected None with conditional=False"),
    ],
)
def test_bad_input_is_named(variables, poses, call, message):
    with pytest.raises(ValueError, match=message):
        call(variables, poses)


def test_a_missing_condition_is_named(conditional, poses):
    with pytest.raises(ValueError, match="cond: expected a condition with conditional=True"):
        CONDITIONAL.apply(conditional, poses, 0.1)


def test_bad_condition_shape_is_named(conditional, poses):
    with pytest.raises(ValueError, match="cond: expected the shape of x_t"):
        CONDITIONAL.apply(conditional, poses, 0.1, cond=poses[..., :2])


@pytest.mark.parametrize("width", [0, 30, 2])
def test_bad_width_is_named(width):
    model = ScoreMLP(JOINTS, width=width, groups=4)
    with pytest.raises(
        ValueError, match=rf"width: expected a multiple of groups \(4\), got {width}"
    ):
        model.init(jax.random.key(0), jnp.zeros((1, JOINTS, 3)), jnp.zeros(1))
