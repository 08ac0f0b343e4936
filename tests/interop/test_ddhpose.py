"""Checkpoints of MixSTE, D3DP and DDHPose: layouts of the files, bits, misfits."""

import jax
import numpy as np
import pytest

from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.denoisers.mixste import D3DPDenoiser, MixSTE
from posediff_jax.interop import (
    dump_ddhpose,
    dump_mixste,
    load_ddhpose,
    load_mixste,
    released_sampler,
)
from posediff_jax.interop.ddhpose import ddhpose_key_map, mixste_key_map, variable_shapes
from posediff_jax.interop.diffupose import SCHEDULE_BUFFERS
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from posediff_jax.systems.ddhpose import SamplerOptions

SIZE = {"num_frames": 5, "width": 16, "depth": 2, "num_heads": 2}
MIXSTE, D3DP = MixSTE(H36M_17, **SIZE), D3DPDenoiser(H36M_17, **SIZE)
DDHPOSE = DDHPoseDenoiser(H36M_17, **SIZE)


def block_layout(key, width):
    shapes = {"attn.qkv": (3, 1), "attn.proj": (1, 1), "mlp.fc1": (2, 1), "mlp.fc2": (1, 2)}
    layout = {f"{key}.{n}.{p}": (width,) for n in ("norm1", "norm2") for p in ("weight", "bias")}
    for name, (out, into) in shapes.items():
        layout[f"{key}.{name}.weight"] = (out * width, into * width)
        layout[f"{key}.{name}.bias"] = (out * width,)
    return layout


def d3dp_layout(frames=5, width=16, depth=2, channels=5):
    """Names and shapes as listed in the papers' checkpoints."""
    layout = {
        "Spatial_pos_embed": (1, 17, width),
        "Temporal_pos_embed": (1, frames, width),
        "Spatial_patch_to_embedding.weight": (width, channels),
        "Spatial_patch_to_embedding.bias": (width,),
        **{f"{n}_norm.{p}": (width,) for n in ("Spatial", "Temporal") for p in ("weight", "bias")},
        **{f"head.0.{p}": (width,) for p in ("weight", "bias")},
        "head.1.weight": (3, width),
        "head.1.bias": (3,),
    }
    if channels > 2:
        layout |= {"time_mlp.1.weight": (2 * width, width), "time_mlp.1.bias": (2 * width,)}
        layout |= {"time_mlp.3.weight": (width, 2 * width), "time_mlp.3.bias": (width,)}
    for i in range(depth):
        layout |= block_layout(f"STEblocks.{i}", width) | block_layout(f"TTEblocks.{i}", width)
    return layout


def ddhpose_layout(frames=5, width=16, depth=2):
    """The first pair of blocks has a list of its own; the others count from 0 again."""
    layout = d3dp_layout(frames, width, 0, channels=6)
    layout = {k.replace("head.", "head_pose."): v for k, v in layout.items()}
    layout["group"] = (1, 6, width)
    for kind in ("STE", "TTE"):
        layout |= block_layout(f"{kind}blocks_0.0", width)
        for i in range(depth - 1):
            key = f"{kind}blocks.{i}"
            layout |= block_layout(key, width)
            layout |= {f"{key}.attn.qkv_xc.weight": (width, width)}
            layout |= {f"{key}.attn.qkv_xc.bias": (width,)}
    return layout


def fill(layout, seed=0):
    """Random arrays with the bits that rounding would lose."""
    rng = np.random.default_rng(seed)
    arrays = {k: np.asarray(rng.normal(size=s), np.float32) for k, s in layout.items()}
    for array in arrays.values():
        array.flat[:2] = -0.0, 1e-42
    return arrays


def wrapped(weights, prefix):
    """A checkpoint file as the authors save it."""
    buffers = {f"module.{n}": np.ones(1000) for n in SCHEDULE_BUFFERS} if prefix else {}
    named = {f"module.{prefix}{k}": v for k, v in weights.items()}
    return {"epoch": 3, "lr": 1e-4, "random_state": object(), "model_pos": buffers | named}


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert x.tobytes() == y.tobytes()


def test_published_number_of_entries():
    assert len(d3dp_layout(243, 512, 8, channels=2)) == 204
    assert len(d3dp_layout(243, 512, 8)) == 208
    assert len(ddhpose_layout(243, 512, 8)) == 237


@pytest.mark.parametrize("model", [MIXSTE, D3DP, DDHPOSE, DDHPOSE.clone(hrtt=False)])
def test_key_map_names_each_variable_once(model):
    key_map = ddhpose_key_map if isinstance(model, DDHPoseDenoiser) else mixste_key_map
    entries = key_map(model)
    leaves = jax.tree_util.tree_leaves_with_path(variable_shapes(model))
    assert sorted(e.path for e in entries) == sorted(tuple(k.key for k in p) for p, _ in leaves)
    assert len({e.key for e in entries}) == len(entries)


@pytest.mark.parametrize(
    ("model", "channels", "prefix"), [(MIXSTE, 2, ""), (D3DP, 5, "pose_estimator.")]
)
def test_a_file_opens_and_is_written_back_bit_by_bit(model, channels, prefix):
    weights = fill(d3dp_layout(channels=channels))
    variables = load_mixste(wrapped(weights, prefix), model)
    assert_same(load_mixste(weights, model), variables)
    assert_same(dump_mixste(variables, model), {k: weights[k] for k in sorted(weights)})
    named = dump_mixste(variables, model, prefix="module.")
    assert set(named) == {f"module.{k}" for k in weights}


def test_where_values_go():
    weights = fill(d3dp_layout())
    p = load_mixste(weights, D3DP)["params"]
    block = p["trunk"]["temporal_1"]
    for ours, key in (
        (p["embed"]["kernel"].T, "Spatial_patch_to_embedding.weight"),
        (p["time"]["in"]["kernel"].T, "time_mlp.1.weight"),
        (p["trunk"]["frame_positions"][None], "Temporal_pos_embed"),
        (block["attention"]["qkv"]["kernel"].T, "TTEblocks.1.attn.qkv.weight"),
        (block["mlp"]["fc2"]["kernel"].T, "TTEblocks.1.mlp.fc2.weight"),
        (block["norm2"]["scale"], "TTEblocks.1.norm2.weight"),
        (p["trunk"]["head_norm"]["bias"], "head.0.bias"),
    ):
        np.testing.assert_array_equal(ours, weights[key])


class TestDDHPose:
    def test_a_file_opens_and_is_written_back_bit_by_bit(self):
        weights = fill(ddhpose_layout())
        file = wrapped(weights, "dir_bone_estimator.")
        variables = load_ddhpose(file, DDHPOSE)
        assert_same(load_ddhpose(weights, DDHPOSE), variables)
        dead = {k for k in weights if k.startswith("STEblocks.0.attn.qkv_xc.")}
        assert len(dead) == 2
        assert set(dump_ddhpose(variables, DDHPOSE)) == set(weights) - dead
        whole = dump_ddhpose(variables, DDHPOSE, prefix="module.", unused=file)
        assert_same(whole, {f"module.{k}": weights[k] for k in sorted(weights)})

    def test_where_values_go(self):
        weights = fill(ddhpose_layout(depth=3))
        p = load_ddhpose(weights, DDHPOSE.clone(depth=3))["params"]
        trunk = p["trunk"]
        for ours, key in (
            (p["level_embedding"][None], "group"),
            (p["embed"]["kernel"].T, "Spatial_patch_to_embedding.weight"),
            (trunk["spatial_0"]["attention"]["proj"]["kernel"].T, "STEblocks_0.0.attn.proj.weight"),
            (trunk["spatial_2"]["mlp"]["fc1"]["kernel"].T, "STEblocks.1.mlp.fc1.weight"),
            (trunk["temporal_1"]["attention"]["child"]["bias"], "TTEblocks.0.attn.qkv_xc.bias"),
            (trunk["head"]["kernel"].T, "head_pose.1.weight"),
        ):
            np.testing.assert_array_equal(ours, weights[key])

    def test_a_checkpoint_of_another_depth(self):
        with pytest.raises(ValueError, match="depth: 3 in the weights, 2 in the model"):
            load_ddhpose(fill(ddhpose_layout(depth=3)), DDHPOSE)

    def test_a_network_that_was_never_released(self):
        with pytest.raises(ValueError, match="checkpoints exist for levels=True only"):
            ddhpose_key_map(DDHPOSE.clone(levels=False))
        with pytest.raises(ValueError, match="disentangled_output=False only, got disentangled_o"):
            ddhpose_key_map(DDHPOSE.clone(disentangled_output=True))

    @pytest.mark.parametrize(
        ("name", "value"), [("walk", "once"), ("child_layout", "joint"), ("hrst", False)]
    )
    def test_what_weights_do_not_tell_must_be_as_in_training(self, name, value):
        weights, model = fill(ddhpose_layout()), DDHPOSE.clone(**{name: value})
        with pytest.raises(ValueError, match=rf"model: expected {name}=.*, got {value!r}"):
            load_ddhpose(weights, model)
        with pytest.raises(ValueError, match=f"model: expected {name}={value!r}"):
            load_ddhpose(weights, DDHPOSE, trained_with={name: value})
        variables = load_ddhpose(weights, model, trained_with={name: value})
        assert_same(variables, load_ddhpose(weights, DDHPOSE))

    def test_settings_that_do_not_matter_or_do_not_exist(self):
        without = DDHPOSE.clone(hrst=False, walk="once")
        load_ddhpose(fill(ddhpose_layout()), without, trained_with={"hrst": False})
        with pytest.raises(ValueError, match=r"trained_with: expected some of .*, got 'depth'"):
            load_ddhpose(fill(ddhpose_layout()), DDHPOSE, trained_with={"depth": 2})

    def test_weights_of_3dhp_say_how_the_release_samples_with_them(self):
        model = DDHPOSE.clone(skeleton=MPI_INF_3DHP_17)
        with pytest.warns(UserWarning, match="mpi_inf_3dhp_17 with sampler.noise_slots='official'"):
            load_ddhpose(fill(ddhpose_layout()), model)
        options = released_sampler(model)
        assert options["noise_slots"] == "official"
        SamplerOptions(**options)
        assert released_sampler(DDHPOSE)["noise_slots"] == "fixed"


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ({"frames": 9}, "num_frames: 9 in the weights, 5 in the model"),
        ({"width": 32}, "width: 32 in the weights, 16 in the model"),
        ({"depth": 3}, "depth: 3 in the weights, 2 in the model"),
    ],
)
def test_a_checkpoint_of_another_size(layout, message):
    with pytest.raises(ValueError, match=message):
        load_mixste(fill(d3dp_layout(**layout)), D3DP)


def test_not_a_checkpoint():
    with pytest.raises(TypeError, match="state_dict: expected names to arrays, got list"):
        load_mixste([], D3DP)
