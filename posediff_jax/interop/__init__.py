"""Weights of the papers' PyTorch checkpoints, to linen variables and back; NumPy on that side."""

from posediff_jax.interop.ddhpose import dump_ddhpose as dump_ddhpose
from posediff_jax.interop.ddhpose import dump_mixste as dump_mixste
from posediff_jax.interop.ddhpose import load_ddhpose as load_ddhpose
from posediff_jax.interop.ddhpose import load_mixste as load_mixste
from posediff_jax.interop.ddhpose import released_sampler as released_sampler
from posediff_jax.interop.diffhpe import dump_diffhpe as dump_diffhpe
from posediff_jax.interop.diffhpe import load_diffhpe as load_diffhpe
from posediff_jax.interop.diffupose import dump_diffupose as dump_diffupose
from posediff_jax.interop.diffupose import dump_modgcn as dump_modgcn
from posediff_jax.interop.diffupose import load_diffupose as load_diffupose
from posediff_jax.interop.diffupose import load_modgcn as load_modgcn
from posediff_jax.interop.zedo import dump_score_mlp as dump_score_mlp
from posediff_jax.interop.zedo import load_score_mlp as load_score_mlp
