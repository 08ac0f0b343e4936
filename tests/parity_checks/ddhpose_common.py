"""What the checks of MixSTE, D3DP and DDHPose share: skeletons and sizes that a config names."""

import warnings
from collections.abc import Mapping
from typing import Any

from posediff_jax.denoisers.ddhpose import DDHPoseDenoiser
from posediff_jax.interop.ddhpose import load_ddhpose
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from tests.parity_checks.diffupose_common import check_assumptions
from tests.parity_checks.fixture import Fixture, widen

SKELETONS = {"h36m": H36M_17, "3dhp": MPI_INF_3DHP_17}
# Denoiser fixtures and sampler fixtures name their sizes differently.
NAMES = {
    "num_frames": ("num_frame", "frames"),
    "width": ("embed_dim_ratio", "dim"),
    "depth": ("depth",),
    "num_heads": ("num_heads", "heads"),
    "mlp_ratio": ("mlp_ratio",),
}


def size_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of the network that `config` describes."""
    return {ours: next(config[n] for n in names if n in config) for ours, names in NAMES.items()}


def check_fixed(config: Mapping[str, Any]) -> None:
    """Refuses what these networks do not have as an option."""
    fixed = {"num_joints": 17, "in_chans": 2, "qkv_bias": True, "qk_scale": None, "scale": 1.0}
    check_assumptions(config, {**fixed, "drop_path_rate": 0.0})


def build_ddhpose(fixture: Fixture) -> tuple[DDHPoseDenoiser, dict[str, Any]]:
    """DDHPose's denoiser that `config` describes, and its imported weights in float64."""
    check_fixed(fixture.config)
    skeleton = SKELETONS[fixture.config.get("skeleton", "h36m")]
    model = DDHPoseDenoiser(skeleton, **size_of(fixture.config), drop_path=0.0)
    with warnings.catch_warnings():
        # The checks name the slots that they sample with.
        warnings.simplefilter("ignore", UserWarning)
        return model, widen(load_ddhpose(fixture.weights(), model))
