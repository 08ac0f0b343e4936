"""Parity with the released DDHPose, D3DP and MixSTE code."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from posediff_jax.denoisers.mixste import D3DPDenoiser, MixSTE
from posediff_jax.interop.ddhpose import load_mixste
from tests.parity_checks.ddhpose_common import SKELETONS, check_fixed, size_of
from tests.parity_checks.diffupose_common import Outputs
from tests.parity_checks.fixture import Check, Fixture, widen


def mixste(fixture: Fixture) -> Outputs:
    check_fixed(fixture.config)
    model = MixSTE(SKELETONS["h36m"], **size_of(fixture.config), drop_path=0.0)
    variables = widen(load_mixste(fixture.weights(), model))
    inner, pose = with_first_layer(model, variables, jnp.asarray(fixture["in_x2d"]))
    return {"out_pose": pose} | {
        # Rows are b * 17 + joint.
        f"out_after_{axis}0": jnp.swapaxes(value, 1, 2).reshape(-1, *value.shape[1::2])
        for axis, value in inner.items()
    }


def with_first_layer(model: Any, variables: Any, *inputs: Any) -> tuple[Mapping[str, Any], Any]:
    """The first outputs of the two shared norms, and the output."""
    run = jax.jit(lambda v, *x: model.apply(v, *x, capture_intermediates=True))
    output, state = run(variables, *inputs)
    trunk = state["intermediates"]["trunk"]
    return {a: trunk[f"{a}_norm"]["__call__"][0] for a in ("spatial", "temporal")}, output


def d3dp_denoiser(fixture: Fixture) -> Outputs:
    check_fixed(fixture.config)
    model = D3DPDenoiser(SKELETONS["h36m"], **size_of(fixture.config), drop_path=0.0)
    variables = widen(load_mixste(fixture.weights(), model))
    keypoints, x_t, t = (jnp.asarray(fixture[f"in_{n}"]) for n in ("x2d", "x3d", "t"))
    return {"out_pose": jax.jit(model.apply)(variables, keypoints[:, None], x_t, t[:, None])}


CHECKS: dict[str, Check] = {
    # The intermediates are those of the authors' float32 run.
    "mixste": Check(mixste, single=("out_after_spatial0", "out_after_temporal0")),
    "d3dp_denoiser": Check(d3dp_denoiser),
}
