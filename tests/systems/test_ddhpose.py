"""DDHPose's own: the terms of its loss against NumPy, the slots of its state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.process.bones import Bones, bone_tree
from posediff_jax.process.schedules import cosine_schedule
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from posediff_jax.systems import ddhpose
from tests.systems.windows import FRAMES, built

TREE = bone_tree(H36M_17)


def bones(pose):
    child, parent = np.array(TREE.bones).T
    vector = pose[..., child, :] - pose[..., parent, :]
    length = np.linalg.norm(vector, axis=-1)
    return length, vector / length[..., None]


@pytest.mark.parametrize("unit", [1.0, 1000.0])
def test_terms_against_numpy(unit):
    rng = np.random.default_rng(0)
    output, pose = rng.normal(size=(2, 3, FRAMES, 17, 3)).astype(np.float32)
    mask = np.ones((3, FRAMES), np.float32)
    mask[1, 3:] = 0
    terms = ddhpose.loss_terms(output, pose, jnp.asarray(mask), TREE, unit=unit)
    (length, direction), (true_length, true_direction) = bones(output), bones(pose)
    for b, count in enumerate((5, 3, 5)):
        means = (length - true_length)[b, :count].mean(axis=0) * unit
        np.testing.assert_allclose(terms["length"][b], np.mean(means**2), rtol=1e-4)
    gap = ((direction - true_direction) ** 2).sum(-1).mean(-1)
    np.testing.assert_allclose(terms["direction"], gap, rtol=1e-4)
    distance = np.linalg.norm(output - pose, axis=-1).mean(-1) * unit
    np.testing.assert_allclose(terms["position"], distance, rtol=1e-5)


def test_terms_can_be_switched_off():
    terms = {"position": 1.0, "length": 10.0, "direction": 100.0}
    assert ddhpose.total_loss(terms, ddhpose.LossOptions()) == 111
    options = ddhpose.LossOptions(length_weight=0.0, direction_weight=0.5)
    assert ddhpose.total_loss(terms, options) == 51


def test_noised_slots():
    """Bones in the slots of their children, nothing but noise in the root's, all clipped."""
    tree = bone_tree(MPI_INF_3DHP_17)
    rng = np.random.default_rng(0)
    pose = rng.normal(size=(2, FRAMES, 17, 3)).astype(np.float32)
    noise = Bones(*(rng.normal(size=(2, FRAMES, 17, c)).astype(np.float32) for c in (3, 1)))
    schedule, t = cosine_schedule(100), np.array([0, 70])
    slots = ddhpose.noisy_slots(schedule, pose, t, noise, tree, clip=1.1)
    signal, spread = (x[:, None, None] for x in map(np.asarray, schedule.rates(t)))
    child, parent = tree.bones[3]
    vector = pose[:, :, child] - pose[:, :, parent]
    direction = vector / np.linalg.norm(vector, axis=-1, keepdims=True)
    expected = np.clip(signal * direction + spread * noise.directions[:, :, child], -1.1, 1.1)
    np.testing.assert_allclose(slots.directions[:, :, child], expected, atol=1e-5)
    root = np.clip(spread * noise.lengths[:, :, tree.root], -1.1, 1.1)
    np.testing.assert_allclose(slots.lengths[:, :, tree.root], root, atol=1e-6)


def test_another_rule_for_slots():
    with pytest.raises(ValueError, match="noise_slots: expected 'fixed' or 'official'"):
        ddhpose.bind_predict(
            None, {}, None, None, schedule=None, times=None, clip=1.1, noise_slots="mended"
        )


@pytest.mark.parametrize(("skeleton", "same"), [(H36M_17, True), (MPI_INF_3DHP_17, False)])
def test_the_slip_of_the_released_code_concerns_one_skeleton(skeleton, same):
    model = ddhpose.DDHPoseDenoiser(skeleton, FRAMES, 16, 2, 2, num_timesteps=100)
    rng = np.random.default_rng(0)
    state = Bones(*(rng.normal(size=(FRAMES, 16, c)).astype(np.float32) for c in (3, 1)))
    root = jax.tree.map(lambda x: x[:, :1], state)
    variables = built("ddhpose")[1]
    keypoints = rng.normal(size=(1, FRAMES, 17, 2)).astype(np.float32)
    estimates = []
    for rule in ("fixed", "official"):

        @jax.jit
        def run(state, rule=rule):
            encoded = model.apply(variables, keypoints, method="encode")
            predict = ddhpose.bind_predict(
                *(model, variables, encoded, root),
                schedule=cosine_schedule(100),
                times=np.array([99, 49]),
                clip=1.1,
                noise_slots=rule,
            )
            return predict(state, jnp.asarray(49))

        estimates.append(run(state))
    fixed, official = estimates
    np.testing.assert_array_equal(fixed.pose, official.pose)
    gap = np.abs(fixed.eps.directions - official.eps.directions).max()
    assert (gap < 1e-5) == same
