"""Importing and exporting DiffuPose and Modulated-GCN weights in every layout they come in."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.denoisers.modgcn import modulated_gcn
from posediff_jax.interop import dump_diffupose, dump_modgcn, load_diffupose, load_modgcn
from posediff_jax.interop.diffupose import diffupose_key_map, modgcn_key_map, variable_shapes
from posediff_jax.skeleton import H36M_16, H36M_17
from tests.interop.published import BUFFERS, diffupose_layout, modgcn_layout

MODEL = DiffuPoseGCN(H36M_16, width=32, num_blocks=2)
VARIANTS = {
    "gt": (modulated_gcn("gt", H36M_16, width=16, num_blocks=2), {}),
    "benchmark": (modulated_gcn("benchmark", H36M_17, width=16, num_blocks=2), {"non_local": True}),
    "grouped": (modulated_gcn("grouped", H36M_16, width=16, num_blocks=2), {"grouped": True}),
}


def fill(layout, seed=0):
    """Random arrays of the given names and shapes, with the bits that rounding would lose."""
    rng = np.random.default_rng(seed)
    arrays = {k: np.asarray(rng.normal(size=s), np.float32) for k, s in layout.items()}
    for array in arrays.values():
        if array.size > 2:
            array.flat[:2] = -0.0, 1e-42
    return arrays


def published(seed=0):
    return fill(diffupose_layout(16, 32, 2), seed)


def diffusion_level(prefix, seed=0):
    """The state dict of the diffusion module that holds the denoiser, as it is saved."""
    weights = {f"{prefix}denoise_fn.{k}": v for k, v in published(seed).items()}
    return weights | {prefix + name: np.ones(100, np.float32) for name in BUFFERS}


def training_file(**parts):
    return {"step": 310_000, "scaler": {"scale": 65536.0}, **parts}


def ema_part():
    return (
        diffusion_level("online_model.module.", seed=1)
        | diffusion_level("ema_model.module.", seed=2)
        | {"initted": np.array([True]), "step": np.array([310_000])}
    )


def assert_same(a, b):
    """Same tree, types and bits."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


def test_published_number_of_entries():
    assert len(diffupose_layout(16, 384)) + len(BUFFERS) == 121


@pytest.mark.parametrize(
    "model",
    [
        *(m for m, _ in VARIANTS.values()),
        *(MODEL, DiffuPoseGCN(H36M_17, width=32, num_blocks=0, non_local=False)),
    ],
    ids=lambda m: type(m).__name__,
)
def test_key_map_names_each_variable_once(model):
    entries = (diffupose_key_map if isinstance(model, DiffuPoseGCN) else modgcn_key_map)(model)
    paths = [e.path for e in entries]
    leaves = jax.tree_util.tree_leaves_with_path(variable_shapes(model))
    assert sorted(paths) == sorted(tuple(k.key for k in path) for path, _ in leaves)
    assert len({e.key for e in entries}) == len(entries)


class TestValues:
    def test_products_are_transposed_and_graph_weights_are_not(self):
        weights = published()
        variables = load_diffupose(weights, MODEL)
        p, stats = variables["params"], variables["batch_stats"]
        for ours, key in (
            (p["gconv_input"]["conv"]["W"], "gconv_input.0.gconv.W"),
            (p["gconv_layers_1"]["second"]["conv"]["M"], "gconv_layers.1.gconv2.gconv.M"),
            (p["gconv_layers_0"]["first"]["bn"]["scale"], "gconv_layers.0.gconv1.bn.weight"),
            (p["time_mlp"]["in"]["kernel"].T, "time_mlp.1.weight"),
            (p["time_mlp"]["out"]["kernel"].T, "time_mlp.3.weight"),
            (p["block2"]["mlp"]["kernel"].T, "block2.mlp.1.weight"),
            (p["attention"]["theta_kernel"].T[..., None, None], "non_local.theta.weight"),
            (p["attention"]["out"]["kernel"].T[..., None, None], "non_local.W.0.weight"),
            (stats["attention"]["bn"]["var"], "non_local.W.1.running_var"),
        ):
            np.testing.assert_array_equal(ours, weights[key])

    def test_the_attention_of_groups(self):
        model, options = VARIANTS["grouped"]
        weights = fill(modgcn_layout(16, 16, 2, **options))
        block = load_modgcn(weights, model)["params"]["grouped_2"]
        name = "gconv_layers.3.non_local"
        np.testing.assert_array_equal(
            block["phi"]["kernel"].T[..., None], weights[f"{name}.phi.0.weight"]
        )
        np.testing.assert_array_equal(
            block["project"], weights[f"{name}.concat_project.0.weight"][0, :, 0, 0]
        )

    def test_later_changes_of_the_state_dict_do_not_reach_the_variables(self):
        weights = published()
        variables = load_diffupose(weights, MODEL)
        kept = variables["params"]["gconv_output"]["bias"].copy()
        weights["gconv_output.bias"][:] = 7
        np.testing.assert_array_equal(variables["params"]["gconv_output"]["bias"], kept)


class TestRoundTrip:
    @pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
    def test_diffupose(self, dtype):
        weights = {k: v.astype(dtype) for k, v in published().items()}
        variables = load_diffupose(weights, MODEL)
        dumped = dump_diffupose(variables, MODEL)
        assert_same(load_diffupose(dumped, MODEL), variables)
        assert_same(dumped, {k: weights[k] for k in dumped})

    def test_bfloat16(self):
        weights = {k: v.astype(jnp.bfloat16) for k, v in published().items()}
        variables = load_diffupose(weights, MODEL)
        assert {a.dtype for a in jax.tree.leaves(variables)} == {np.dtype(jnp.bfloat16)}
        assert_same(load_diffupose(dump_diffupose(variables, MODEL), MODEL), variables)

    @pytest.mark.parametrize("name", VARIANTS)
    def test_modgcn(self, name):
        model, options = VARIANTS[name]
        layout = modgcn_layout(model.skeleton.num_joints, 16, 2, **options)
        weights = {k: v for k, v in fill(layout).items() if "num_batches" not in k}
        variables = load_modgcn(weights, model)
        dumped = dump_modgcn(variables, model)
        assert_same(dumped, weights)
        assert_same(load_modgcn(dumped, model), variables)

    def test_variables_of_the_model(self):
        rng = np.random.default_rng(0)
        shapes = variable_shapes(MODEL)
        variables = jax.tree.map(lambda a: rng.normal(size=a.shape).astype(a.dtype), shapes)
        assert_same(load_diffupose(dump_diffupose(variables, MODEL), MODEL), variables)

    def test_dump_can_hold_every_published_name(self):
        dumped = dump_diffupose(
            load_diffupose(published(), MODEL), MODEL, prefix="module.denoise_fn.", fill_unused=True
        )
        expected = {f"module.denoise_fn.{k}": s for k, s in diffupose_layout(16, 32, 2).items()}
        assert {k: v.shape for k, v in dumped.items()} == expected
        assert not dumped["module.denoise_fn.block3.mlp.1.weight"].any()
        assert dumped["module.denoise_fn.gconv_input.0.bn.num_batches_tracked"].dtype == np.int64

    def test_modgcn_dump_can_hold_every_published_name(self):
        model, options = VARIANTS["benchmark"]
        layout = modgcn_layout(17, 16, 2, **options)
        dumped = dump_modgcn(load_modgcn(fill(layout), model), model, fill_unused=True)
        assert {k: v.shape for k, v in dumped.items()} == layout

    def test_gradients_can_be_dumped(self):
        variables = load_diffupose(published(), MODEL)
        dumped = dump_diffupose({"params": variables["params"]}, MODEL)
        assert "gconv_input.0.bn.weight" in dumped
        assert not any("running" in key for key in dumped)


class TestFileLayouts:
    @pytest.mark.parametrize(
        "checkpoint",
        [
            published(2),
            diffusion_level("", seed=2),
            diffusion_level("module.", seed=2),
            ema_part(),
            training_file(model=diffusion_level("module.", seed=1), ema=ema_part()),
            {"state_dict": diffusion_level("", seed=2)},
        ],
        ids=["bare", "diffusion", "data-parallel", "ema part", "training file", "state_dict"],
    )
    def test_averaged_or_only_weights_by_default(self, checkpoint):
        assert_same(load_diffupose(checkpoint, MODEL), load_diffupose(published(2), MODEL))

    @pytest.mark.parametrize(
        "checkpoint",
        [
            training_file(model=diffusion_level("module.", seed=1), ema=ema_part()),
            training_file(model=diffusion_level("module.", seed=1)),
            training_file(ema=ema_part()),
            ema_part(),
            diffusion_level("module.", seed=1),
        ],
        ids=["training file", "without ema", "ema only", "ema part", "data-parallel"],
    )
    def test_online_weights_on_request(self, checkpoint):
        loaded = load_diffupose(checkpoint, MODEL, which="online")
        assert_same(loaded, load_diffupose(published(1), MODEL))

    def test_modgcn_file(self):
        model, options = VARIANTS["gt"]
        weights = fill(modgcn_layout(16, 16, 2, **options))
        file = {"epoch": 6, "lr": 9.6e-4, "step": 146232, "error": 38.45, "optimizer": {}}
        expected = load_modgcn(weights, model)
        assert_same(load_modgcn({**file, "state_dict": weights}, model), expected)
        parallel = {f"module.{k}": v for k, v in weights.items()}
        assert_same(load_modgcn({**file, "state_dict": parallel}, model), expected)

    def test_trained_weights_are_not_taken_for_averaged_ones(self):
        with pytest.raises(ValueError, match=r"has 'model'.*no 'ema'; pass which='online'"):
            load_diffupose(training_file(model=diffusion_level("module.")), MODEL)
        with pytest.raises(ValueError, match=r"'online' needs keys under 'online_model\.'"):
            load_diffupose(diffusion_level("ema_model.module."), MODEL, which="online")


class TestErrors:
    def test_all_misfits_in_one_message(self):
        weights = published()
        del weights["gconv_output.bias"], weights["block1.mlp.1.weight"]
        weights["block2.mlp.1.bias"] = np.zeros(7)
        weights["gconv_layers.2.gconv1.gconv.bias"] = np.zeros(32)
        weights["extra"] = np.zeros((3, 2))
        with pytest.raises(ValueError, match="state_dict: 5 entries do not fit") as caught:
            load_diffupose(weights, MODEL)
        message = str(caught.value)
        for line in (
            "missing key 'gconv_output.bias', expected shape (5,)",
            "missing key 'block1.mlp.1.weight', expected shape (64, 16)",
            "'block2.mlp.1.bias': expected shape (64,), got (7,)",
            "unknown key 'gconv_layers.2.gconv1.gconv.bias', shape (32,)",
            "unknown key 'extra', shape (3, 2)",
        ):
            assert line in message

    def test_joint_count_is_explained(self):
        with pytest.raises(ValueError, match="state_dict") as caught:
            load_diffupose(published(), DiffuPoseGCN(H36M_17, width=32, num_blocks=2))
        message = str(caught.value)
        assert "'gconv_output.adj2': expected shape (17, 17), got (16, 16)" in message
        assert "joints: 16 in the weights, 17 in the model" in message
        assert "skeleton is 'h36m_17'; with 16 joints there are ['h36m_16']" in message

    def test_width_is_explained(self):
        model = modulated_gcn("gt", H36M_16, width=32, num_blocks=2)
        with pytest.raises(ValueError, match="width: 16 in the weights, 32 in the model"):
            load_modgcn(fill(modgcn_layout(16, 16, 2)), model)

    def test_transposed_weight_is_refused(self):
        weights = published()
        weights["time_mlp.1.weight"] = weights["time_mlp.1.weight"].T
        with pytest.raises(ValueError, match=r"time_mlp.1.weight'.*\(16, 4\), got \(4, 16\)"):
            load_diffupose(weights, MODEL)

    def test_dead_block_is_unknown_to_modgcn(self):
        weights = fill(modgcn_layout(16, 16, 2)) | {"block3.mlp.1.bias": np.zeros(4)}
        with pytest.raises(ValueError, match=r"unknown key 'block3\.mlp\.1\.bias'"):
            load_modgcn(weights, VARIANTS["gt"][0])

    @pytest.mark.parametrize("options", [{"modulated": False}, {"mask": True}])
    def test_unreleased_layers_have_no_layout(self, options):
        model = DiffuPoseGCN(H36M_16, width=32, num_blocks=2, **options)
        with pytest.raises(ValueError, match="model: PyTorch checkpoints exist for modulated=True"):
            load_diffupose(published(), model)

    def test_incomplete_variables(self):
        variables = load_diffupose(published(), MODEL)
        del variables["params"]["block1"]
        with pytest.raises(ValueError, match="variables: missing 'params/block1'"):
            dump_diffupose(variables, MODEL)
