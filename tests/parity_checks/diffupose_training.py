"""Parity of DiffuPose's loss, gradients, first Adam step and running statistics."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from numpy.typing import ArrayLike

from posediff_jax.denoisers.diffupose import DiffuPoseGCN
from posediff_jax.interop import dump_diffupose
from posediff_jax.process.schedules import q_sample
from posediff_jax.systems.diffupose import weighted_l1
from posediff_jax.training.optimizers import make_optimizer
from tests.parity_checks.diffupose_common import Outputs, build_denoiser, build_schedule
from tests.parity_checks.fixture import FORWARD, Fixture, judge


def loss(fixture: Fixture) -> Outputs:
    model, variables = build_denoiser(fixture)
    schedule = build_schedule(fixture.config)
    x0, cond, noise = (jnp.asarray(fixture[n]) for n in ("in_x0", "in_cond_2d", "in_noise"))
    t = jnp.asarray(fixture["in_t"])[:, None]
    x_t = q_sample(schedule, x0, t, noise)

    def value(params: Any, train: bool) -> tuple[Any, Any]:
        output, state = model.apply(
            variables | {"params": params}, cond, x_t, t, train=train, mutable=["batch_stats"]
        )
        weights, factor = fixture["in_joint_weights"], fixture.config["lambda_2d"]
        pair = weighted_l1(output, noise, cond, weights, factor)
        weighted, plain = (jnp.mean(per_frame) for per_frame in pair)
        return weighted, (plain, state["batch_stats"])

    weighted, (plain, _) = jax.jit(value, static_argnums=1)(variables["params"], False)
    ours = {"out_x_t": x_t, "out_loss_eval_bn": weighted, "out_unweighted_loss_eval_bn": plain}
    if "out_loss_train_bn" not in fixture.arrays and not any("/" in n for n in fixture.outputs):
        return ours
    # Releases of PyTorch differ here; where the file is of neither side, show the nearer one.
    candidates = []
    for interceptor in (misread_gradient, lambda call, args, kwargs, _: call(*args, **kwargs)):
        candidates.append(training_outputs(value, variables["params"], model, interceptor))
        if not count_misses(fixture, candidates[-1]):
            break
    return ours | min(candidates, key=lambda c: count_misses(fixture, c))


def training_outputs(value: Any, params: Any, model: DiffuPoseGCN, interceptor: Any) -> Outputs:
    """Loss, gradients, first Adam step and running statistics of one training batch."""
    with nn.intercept_methods(interceptor):
        step = jax.jit(jax.value_and_grad(value, has_aux=True), static_argnums=1)
        (weighted, (plain, stats)), gradients = step(params, True)
    optimizer = make_optimizer({"name": "adam", "learning_rate": 4e-5})
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    after = {"params": optax.apply_updates(params, updates), "batch_stats": stats}
    ours: dict[str, ArrayLike] = {
        "out_loss_train_bn": weighted,
        "out_unweighted_loss_train_bn": plain,
        "out_grad_global_norm": optax.tree.norm(gradients),
    }
    # PyTorch also counts training batches, of which there was one; the package does not.
    for key in dump_diffupose(after, model, fill_unused=True):
        if key.endswith(".num_batches_tracked"):
            ours[f"out_bnstat/{key}"] = np.ones((), np.int64)
    for group, tree in (("grad", {"params": gradients}), ("adam1", after), ("bnstat", after)):
        named = dump_diffupose(tree, model)
        ours |= {f"out_{group}/{key}": value for key, value in named.items()}
    return ours


@jax.custom_vjp
def misread_order(x: jax.Array) -> jax.Array:
    """The identity, whose gradient `(B, 1, J, C)` is read from memory as if it were (B, C, J).

    PyTorch's CPU kernel for BatchNorm2d does that to the attention block's (B, C, J, 1) tensors,
    which are permuted (B, J, C) ones: with the last axis of size 1 both layouts look contiguous.
    The gradients that the authors' code gives on a CPU, and so the fixtures', are wrong in this
    way; the package's own agree with finite differences (tests/denoisers/test_diffupose.py).
    """
    return x


def _misread_backward(_: None, g: jax.Array) -> tuple[jax.Array]:
    batch, joints, channels = g.shape[0], *g.shape[-2:]
    return (g.reshape(batch, channels, joints).swapaxes(1, 2).reshape(g.shape),)


misread_order.defvjp(lambda x: (x, None), _misread_backward)


def misread_gradient(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
    """A flax interceptor that puts `misread_order` behind the attention block's normalisation."""
    result = call(*args, **kwargs)
    if context.method_name == "__call__" and context.module.path[-2:] == ("attention", "bn"):
        return misread_order(result)
    return result


def count_misses(fixture: Fixture, ours: Outputs) -> int:
    known = [n for n in fixture.outputs if n in ours]
    return sum(judge(fixture, n, ours[n], FORWARD).status == "MISS" for n in known)
