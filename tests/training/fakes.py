"""A system small enough to train in a test: a linear map from 2D to 3D joints."""

import jax
import jax.numpy as jnp
import numpy as np

from posediff_jax.systems.base import System
from posediff_jax.types import Aux, Camera, PoseBatch, SampleResult

JOINTS = 4


def make_batch(step, size=16, real=None, dtype=np.float32):
    """The batch of one step, the same one whenever asked for; items from `real` on are padding."""
    rng = np.random.default_rng(1000 + step)
    lead = (size, 1)
    mask = np.ones(lead, dtype)
    mask[real if real is not None else size :] = 0

    def normal(*shape):
        # Padding holds nonsense that would show in any mean that forgot the mask.
        values = rng.normal(size=lead + shape).astype(dtype)
        return np.where(mask.reshape(lead + (1,) * len(shape)) > 0, values, dtype(1e3))

    return PoseBatch(
        keypoints=normal(JOINTS, 2),
        keypoints_px=normal(JOINTS, 2),
        confidence=np.ones((*lead, JOINTS), dtype),
        mask=mask,
        index=np.arange(step * size, (step + 1) * size, dtype=np.int32),
        subject=np.zeros(size, np.int32),
        action=np.zeros(size, np.int32),
        camera=Camera(
            *(np.ones((size, n), dtype) for n in (2, 2, 2, 3, 2, 4, 3)),
        ),
        pose=normal(JOINTS, 3),
        root=normal(3),
    )


def batches(size=16):
    """A `batches_fn` for the loop."""

    def from_step(step):
        while True:
            yield make_batch(step, size)
            step += 1

    return from_step


def make_system(noise=0.1, on_trace=lambda: None):
    """Mean squared error of `(keypoints - running mean) w + b`, with noise keyed by item.

    Metrics: `index`, the mean global index of the real items, differs from device to device.
    """

    def init(key):
        return {
            "params": {"w": jax.random.normal(key, (2, 3)), "b": jnp.zeros(3)},
            "batch_stats": {"mean": jnp.zeros(2)},
        }

    def loss(key, variables, batch, *, train, axis_name=None):
        on_trace()
        shape = (1, JOINTS, 3)
        draw = jax.vmap(lambda i: jax.random.normal(jax.random.fold_in(key, i), shape))
        target = batch.pose + noise * draw(batch.index)
        total = jnp.sum(batch.mask)
        if axis_name is not None:
            total = jax.lax.pmean(total, axis_name)

        def mean(values):
            weights = batch.mask.reshape(batch.mask.shape + (1,) * (values.ndim - 2))
            return jnp.sum(values * weights, axis=(0, 1)) / total

        seen = jnp.mean(mean(batch.keypoints), axis=0)
        if axis_name is not None:
            seen = jax.lax.pmean(seen, axis_name)
        params = variables["params"]
        predicted = (batch.keypoints - seen) @ params["w"] + params["b"]
        error = jnp.mean(mean((predicted - target) ** 2))
        running = 0.9 * variables["batch_stats"]["mean"] + 0.1 * seen
        metrics = {"index": mean(batch.index[:, None].astype(error.dtype))}
        return error, Aux(metrics, {"batch_stats": {"mean": running}})

    def sample(key, variables, batch, *, num_hypotheses, return_trajectory=False):
        del return_trajectory
        params = variables["params"]
        poses = batch.keypoints @ params["w"] + params["b"]
        return SampleResult(jnp.repeat(poses[:, None], num_hypotheses, axis=1))

    return System(init, loss, sample)


def spoil(system, at_step):
    """`system` with a loss that is NaN in the batch of one step (0-based)."""

    def loss(key, variables, batch, **options):
        value, aux = system.loss(key, variables, batch, **options)
        bad = jnp.any(batch.index // 16 == at_step)
        return jnp.where(bad, jnp.nan, value), aux

    return system._replace(loss=loss)
