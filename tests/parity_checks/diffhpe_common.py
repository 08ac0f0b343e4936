"""What the checks of DiffHPE share: the network that a config describes, and its layout."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from posediff_jax.denoisers.diffhpe import DiffHPEDenoiser
from posediff_jax.denoisers.graph import mean_adjacency
from posediff_jax.denoisers.mixste import MixSTE
from posediff_jax.interop import load_diffhpe
from posediff_jax.skeleton import Skeleton
from tests.parity_checks.diffupose_common import check_assumptions, skeleton_of
from tests.parity_checks.fixture import Fixture, widen

SOURCES = {"raw": "keypoints", "uncond": "none"}


def build(fixture: Fixture) -> tuple[DiffHPEDenoiser, dict[str, Any]]:
    """The network that `config` describes, and its imported weights in float64."""
    config = fixture.config
    check_assumptions(config, {"arch": "gcn"})
    skeleton = skeleton_of(config["joints"])
    check_adjacency(fixture, skeleton)
    table = fixture["in_step_table"]
    model = DiffHPEDenoiser(
        skeleton,
        num_frames=config["seq_len"],
        width=config["channels"],
        num_blocks=config["layers"],
        step_width=config["diffusion_embedding_dim"],
        num_timesteps=config["num_steps"],
        non_local=config["use_nonlocal"],
        # As given: its last digits decide more than float64 would forgive.
        table=lambda T, E: table,
        **conditioner(config, skeleton),
    )
    return model, widen(load_diffhpe(fixture.weights(), model))


def conditioner(config: Mapping[str, Any], skeleton: Skeleton) -> dict[str, Any]:
    """The attributes of the condition."""
    kind, mix = config["conditioning"], config["cond_mix_mode"]
    if kind in SOURCES:
        return {"source": SOURCES[kind], "depth_only": mix == "z_only"}
    if kind not in ("pt_mixste", "untrained_mixste"):
        raise ValueError(f"config.conditioning: unknown {kind!r}")
    lifter = MixSTE(
        skeleton,
        num_frames=config["seq_len"],
        width=config["cond_channels"],
        depth=config["cond_layers"],
        num_heads=config["cond_nheads"],
        mlp_ratio=config.get("mlp_ratio", 2),
        drop_path=0.0,
    )
    return {
        "source": "pose" if config["cond_keep_pt_head"] else "features",
        "mix": mix,
        "encode_pose": config["cond_encode_3d"],
        "lifter": lifter,
    }


def check_adjacency(fixture: Fixture, skeleton: Skeleton) -> None:
    """Refuses a fixture with another graph: it is no weight, and ours is built from the tree."""
    given = fixture.arrays.get("in_adjacency")
    if given is not None and not np.array_equal(given, mean_adjacency(skeleton).astype(np.float32)):
        raise ValueError(f"in_adjacency: not that of skeleton {skeleton.name!r}")


def ours(fixture: Fixture, name: str) -> Any:
    """An input `(..., C, J, L)` as ours, `(..., L, J, C)`, in float64."""
    return jnp.swapaxes(jnp.asarray(fixture[f"in_{name}"], float), -3, -1)


def theirs(x: Any) -> Any:
    """Our `(..., L, J, C)` as theirs."""
    return jnp.swapaxes(x, -3, -1)


def turned(x: Any) -> Any:
    """Their `(B, C, J, L)` as a block's `(J, L, B, C)`, and back."""
    return jnp.transpose(jnp.asarray(x, float), (2, 3, 0, 1))
