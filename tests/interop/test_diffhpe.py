"""DiffHPE's checkpoints: layouts of the files, bits, misfits."""

import dataclasses

import jax
import numpy as np
import pytest

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.interop import dump_diffhpe, dump_mixste, load_diffhpe, load_mixste
from posediff_jax.interop.diffhpe import diffhpe_key_map, variable_shapes
from posediff_jax.skeleton import H36M_17
from posediff_jax.systems.diffhpe_parts import FROZEN, freeze_lifter
from tests.interop.published import _grouped
from tests.interop.test_ddhpose import assert_same, d3dp_layout, fill

SIZE = {"num_frames": 5, "width": 8, "num_blocks": 2, "step_width": 12}
PLAIN = DiffHPEDenoiser(H36M_17, **SIZE)
LIFTER = MixSTE(H36M_17, num_frames=5, width=16, depth=2, num_heads=2)
WRAPPER = DiffHPEDenoiser(H36M_17, **SIZE, source="features", encode_pose=True, lifter=LIFTER)


def graph_layer(name, size):
    norm = ("weight", "bias", "running_mean", "running_var")
    entries = {f"{name}.gconv.W": (2, 17, size, size), f"{name}.gconv.bias": (size,)}
    entries |= {f"{name}.bn.{n}": (size,) for n in norm}
    return entries | {f"{name}.bn.num_batches_tracked": ()}


def dense(name, outputs, inputs, *ones):
    return {f"{name}.weight": (outputs, inputs, *ones), f"{name}.bias": (outputs,)}


def network_layout(inputs, frames=5, width=8, blocks=2, steps=12):
    """Names and shapes as listed in the released files (specification, 3.6)."""
    layout = dense("input_projection", width, inputs, 1)
    layout |= dense("output_projection1", width, width, 1) | dense(
        "output_projection2", 3, width, 1
    )
    for i in (1, 2):
        layout |= dense(f"diffusion_embedding.projection{i}", steps, steps)
    for i in range(blocks):
        key = f"residual_layers.{i}"
        layout |= dense(f"{key}.diffusion_projection", width, steps)
        layout |= dense(f"{key}.mid_projection", 2 * width, width, 1)
        layout |= dense(f"{key}.output_projection", 2 * width, width, 1)
        layout |= graph_layer(f"{key}.time_layer", frames)
        layout |= graph_layer(f"{key}.feature_layer", width)
        layout |= _grouped(f"{key}.non_local.non_local", width)
    return {f"diffmodel.{k}": v for k, v in layout.items()}


def wrapper_layout(frames=5, width=8, blocks=2, steps=12, lifter=16, depth=2):
    """MixSTE below `conditioning.`, its head a norm alone, and the encoder of the pose."""
    layout = d3dp_layout(frames, lifter, depth, channels=2)
    layout = {k: v for k, v in layout.items() if not k.startswith("head.1.")}
    layout = {k.replace("head.0.", "head."): v for k, v in layout.items()}
    layout |= dense("data_enc", lifter, 3)
    conditioning = {f"conditioning.{k}": v for k, v in layout.items()}
    return conditioning | network_layout(2 * lifter, frames, width, blocks, steps)


def filled(layout):
    weights = fill({k: v for k, v in layout.items() if v})
    # Batch counters are integers.
    return weights | {k: np.int64(7 + i) for i, (k, v) in enumerate(layout.items()) if not v}


FORMS = pytest.mark.parametrize(
    ("model", "layout"),
    [(PLAIN, network_layout(5)), (WRAPPER, wrapper_layout())],
    ids=["2d", "wrapper"],
)


def test_published_number_of_entries():
    assert len(network_layout(5, 27, 64, 16, 128)) == 554
    assert len(wrapper_layout(27, 64, 16, 128, 64, 8)) == 758


@FORMS
def test_key_map_names_each_variable_once(model, layout):
    entries = diffhpe_key_map(model)
    leaves = jax.tree_util.tree_leaves_with_path(variable_shapes(model))
    assert sorted(e.path for e in entries) == sorted(tuple(k.key for k in p) for p, _ in leaves)
    assert {e.key for e in entries} == {k for k in layout if "num_batches" not in k}


@FORMS
def test_a_file_opens_and_is_written_back_bit_by_bit(model, layout):
    weights = filled(layout)
    variables = load_diffhpe(weights, model)
    several = {f"module.{k}": v for k, v in weights.items()}
    assert_same(load_diffhpe(several, model), variables)
    counters = {k for k in weights if k.endswith("num_batches_tracked")}
    assert set(dump_diffhpe(variables, model)) == set(weights) - counters
    whole = dump_diffhpe(variables, model, prefix="module.", unused=several)
    assert_same(whole, {k: np.asarray(several[k]) for k in sorted(several)})


def test_a_frozen_lifter_is_written_from_where_it_is():
    weights = filled(wrapper_layout())
    variables = load_diffhpe(weights, WRAPPER)
    lifter = {"params": variables["params"]["lifter"]}
    held = freeze_lifter(variables, lifter, WRAPPER)
    assert "lifter" not in held["params"]
    assert FROZEN in held
    assert_same(dump_diffhpe(held, WRAPPER), dump_diffhpe(variables, WRAPPER))


def test_where_values_go():
    weights = filled(wrapper_layout())
    variables = load_diffhpe(weights, WRAPPER)
    p, stats = variables["params"], variables["batch_stats"]
    block = p["blocks_1"]
    start = "diffmodel.residual_layers.1."
    for ours, key in (
        (p["project"]["kernel"].T[..., None], "diffmodel.input_projection.weight"),
        (p["step_in"]["kernel"].T, "diffmodel.diffusion_embedding.projection1.weight"),
        (p["output"]["bias"], "diffmodel.output_projection2.bias"),
        (p["pose_encoder"]["kernel"].T, "conditioning.data_enc.weight"),
        (p["lifter"]["trunk"]["head_norm"]["scale"], "conditioning.head.weight"),
        (p["lifter"]["trunk"]["frame_positions"][None], "conditioning.Temporal_pos_embed"),
        (block["mid"]["kernel"].T[..., None], f"{start}mid_projection.weight"),
        (block["time_layer"]["conv"]["W"], f"{start}time_layer.gconv.W"),
        (block["feature_layer"]["bn"]["scale"], f"{start}feature_layer.bn.weight"),
        (block["attention"]["phi"]["bias"], f"{start}non_local.non_local.phi.0.bias"),
        (
            stats["blocks_1"]["attention"]["bn"]["var"],
            f"{start}non_local.non_local.W.1.running_var",
        ),
    ):
        np.testing.assert_array_equal(ours, weights[key])


def test_the_lifters_own_files():
    """As the supervised trainer saves them, and as the wrapper is given them."""
    weights = fill(d3dp_layout(channels=2))
    trained = {f"model.{k}": v for k, v in weights.items()}
    given = {"model_pos": weights}
    variables = load_mixste(trained, LIFTER)
    assert_same(load_mixste(given, LIFTER), variables)
    assert_same(
        dump_mixste(variables, LIFTER, prefix="model."), {k: trained[k] for k in sorted(trained)}
    )
    held = freeze_lifter(variable_shapes(WRAPPER), variables, WRAPPER)[FROZEN]["lifter"]
    assert "head" not in held["trunk"]


@pytest.mark.parametrize(
    ("model", "layout", "message"),
    [
        (PLAIN, network_layout(5, frames=9), "num_frames: 9 in the weights, 5 in the model"),
        (PLAIN, network_layout(5, width=4), "width: 4 in the weights, 8 in the model"),
        (PLAIN, network_layout(5, blocks=3), "num_blocks: 3 in the weights, 2 in the model"),
        (PLAIN, wrapper_layout(), "a lifter: True in the weights, False in the model"),
        (WRAPPER, network_layout(5), "a lifter: False in the weights, True in the model"),
        (WRAPPER, wrapper_layout(depth=3), "unknown key 'conditioning.STEblocks.2"),
    ],
)
def test_a_checkpoint_of_another_size(model, layout, message):
    with pytest.raises(ValueError, match=message):
        load_diffhpe(filled(layout), model)


def test_without_attention_there_are_no_entries_of_it():
    model = dataclasses.replace(PLAIN, non_local=False)
    layout = {k: v for k, v in network_layout(5).items() if "non_local" not in k}
    weights = filled(layout)
    assert set(dump_diffhpe(load_diffhpe(weights, model), model)) < set(weights)


def test_not_a_checkpoint():
    with pytest.raises(TypeError, match="checkpoint: expected a mapping"):
        load_diffhpe([], PLAIN)
