"""Readers, synthetic motion and virtual cameras, windows, and batches. NumPy on the host."""

from posediff_jax.data.asf_amc import load_asf_amc as load_asf_amc
from posediff_jax.data.batching import ItemTable as ItemTable
from posediff_jax.data.batching import batches as batches
from posediff_jax.data.batching import endless_batches as endless_batches
from posediff_jax.data.batching import epoch_order as epoch_order
from posediff_jax.data.batching import item_table as item_table
from posediff_jax.data.batching import num_batches as num_batches
from posediff_jax.data.bodies import random_bodies as random_bodies
from posediff_jax.data.bvh import load_bvh as load_bvh
from posediff_jax.data.cmu17 import load_cmu17 as load_cmu17
from posediff_jax.data.cmu17_val import cmu17_val_v1 as cmu17_val_v1
from posediff_jax.data.human36m import load_human36m as load_human36m
from posediff_jax.data.humaneva import load_humaneva as load_humaneva
from posediff_jax.data.motion import MotionClip as MotionClip
from posediff_jax.data.npz import read_npz as read_npz
from posediff_jax.data.official import official_epoch as official_epoch
from posediff_jax.data.procedural import MOTIONS as MOTIONS
from posediff_jax.data.procedural import procedural_motion as procedural_motion
from posediff_jax.data.scored import ScoredItems as ScoredItems
from posediff_jax.data.scored import ScoredViews as ScoredViews
from posediff_jax.data.scored import all_frames as all_frames
from posediff_jax.data.scored import scored_items as scored_items
from posediff_jax.data.sequences import PoseSequence as PoseSequence
from posediff_jax.data.sequences import PoseSequences as PoseSequences
from posediff_jax.data.synthetic import virtual_views as virtual_views
from posediff_jax.data.windows import windows as windows
