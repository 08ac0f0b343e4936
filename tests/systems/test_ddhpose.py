"""DDHPose's own: the terms of its loss against NumPy, the slots of its state."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.process.bones import Bones, bone_tree, disentangle
from posediff_jax.process.schedules import cosine_schedule
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from posediff_jax.systems import ddhpose, make_system
from tests.systems.test_diffupose import make_batch
from tests.systems.windows import FRAMES, built, make_config

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


def test_bone_errors_as_printed():
    """Eq. 8: norms of each bone, as Eq. 9 has them for joints."""
    rng = np.random.default_rng(0)
    output, pose = rng.normal(size=(2, 3, FRAMES, 17, 3)).astype(np.float32)
    terms = ddhpose.loss_terms(
        output, pose, jnp.ones((3, FRAMES)), TREE, unit=10.0, bone_errors="printed"
    )
    (length, direction), (true_length, true_direction) = bones(output), bones(pose)
    np.testing.assert_allclose(
        terms["length"], 10 * np.abs(length - true_length).mean(-1), rtol=1e-4
    )
    gap = np.linalg.norm(direction - true_direction, axis=-1).mean(-1)
    np.testing.assert_allclose(terms["direction"], gap, rtol=1e-4)
    slope = jax.grad(
        lambda x: sum(
            jnp.sum(v)
            for v in ddhpose.loss_terms(
                x, pose, jnp.ones((3, FRAMES)), TREE, bone_errors="printed"
            ).values()
        )
    )(pose)
    assert np.isfinite(slope).all(), "no NaN where the prediction is exact"


def test_terms_of_regressed_bones():
    """Bones have their own targets: l / 2 and 2 d make the same pose, but are not the bones."""
    rng = np.random.default_rng(0)
    output, pose = rng.normal(size=(2, 3, FRAMES, 17, 3)).astype(np.float32)
    output[..., 0, :] = 0
    parts = disentangle(output, TREE)
    mask = jnp.ones((3, FRAMES))
    of_pose = ddhpose.loss_terms(output, pose, mask, TREE)
    of_bones = ddhpose.loss_terms(parts, pose, mask, TREE)
    for name, expected in of_pose.items():
        np.testing.assert_allclose(of_bones[name], expected, rtol=1e-4)
    halved = Bones(2 * parts.directions, parts.lengths / 2)
    found = ddhpose.loss_terms(halved, pose, mask, TREE)
    np.testing.assert_allclose(found["position"], of_pose["position"], rtol=1e-4)
    (length, direction), (true_length, true_direction) = bones(output), bones(pose)
    means = (length / 2 - true_length).mean(axis=1)
    np.testing.assert_allclose(found["length"][:, 0], np.mean(means**2, axis=-1), rtol=1e-4)
    gap = ((2 * direction - true_direction) ** 2).sum(-1).mean(-1)
    np.testing.assert_allclose(found["direction"], gap, rtol=1e-4)


def test_terms_can_be_switched_off():
    terms = {"position": 1.0, "length": 10.0, "direction": 100.0}
    assert ddhpose.total_loss(terms, ddhpose.LossOptions()) == 111
    options = ddhpose.LossOptions(length_weight=0.0, direction_weight=0.5)
    assert ddhpose.total_loss(terms, options) == 51
    assert ddhpose.total_loss(terms, ddhpose.LossOptions(position_weight=0.0)) == 110


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"loss": {"bone_errors": "squared"}}, "loss.bone_errors: expected 'released' or"),
        ({"sampler": {"noise_slots": "mended"}}, "sampler.noise_slots: expected 'fixed' or"),
    ],
)
def test_configs_that_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        make_system(make_config("ddhpose", **options))


@pytest.mark.parametrize("bones_out", [False, True])
def test_the_loss_is_about_what_is_regressed(bones_out, monkeypatch):
    compared = []

    def spy(output, *inputs, **options):
        compared.append(type(output))
        return loss_terms(output, *inputs, **options)

    loss_terms = ddhpose.loss_terms
    monkeypatch.setattr(ddhpose, "loss_terms", spy)
    system = make_system(make_config("ddhpose", model={"disentangled_output": bones_out}))
    variables = jax.eval_shape(system.init, jax.random.key(0))
    batch = make_batch(2, frames=FRAMES)
    jax.eval_shape(partial(system.loss, train=True), jax.random.key(1), variables, batch)
    assert [issubclass(kind, Bones) for kind in compared] == [bones_out]


@pytest.mark.slow
@pytest.mark.parametrize("bones_in", [False, True])
@pytest.mark.parametrize("bones_out", [False, True])
def test_every_row_of_table_4_trains_and_samples(bones_in, bones_out):
    model = {"disentangled_input": bones_in, "disentangled_output": bones_out}
    system = make_system(make_config("ddhpose", model=model, loss={"bone_errors": "printed"}))
    batch = make_batch(2, frames=FRAMES)
    variables = jax.tree.map(lambda a: a + 0.01, jax.jit(system.init)(jax.random.key(0)))

    def loss(variables):
        return system.loss(jax.random.key(1), variables, batch, train=True)[0]

    value, slopes = jax.jit(jax.value_and_grad(loss))(variables)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() and np.any(leaf) for leaf in jax.tree.leaves(slopes))
    samples = jax.jit(lambda v: system.sample(jax.random.key(2), v, batch, num_hypotheses=2))(
        variables
    ).samples
    assert samples.shape == (2, 2, FRAMES, 17, 3)
    assert np.isfinite(samples).all()
    assert np.abs(samples[:, 0] - samples[:, 1]).max() > 1e-5


@pytest.mark.slow
def test_slots_are_chosen_by_the_config():
    """The rule of the released code changes the samples of 3DHP, from the second step on."""
    batch = make_batch(1, frames=FRAMES, skeleton=MPI_INF_3DHP_17)
    variables = built("ddhpose")[1]

    def sample(**options):
        config = make_config("ddhpose", skeleton="mpi_inf_3dhp_17", sampler=options)
        run = make_system(config).sample
        return jax.jit(lambda v: run(jax.random.key(0), v, batch, num_hypotheses=1))(
            variables
        ).samples

    official = sample(noise_slots="official", num_steps=2)
    assert np.abs(official - sample(num_steps=2)).max() > 1e-5
    np.testing.assert_array_equal(sample(num_steps=1, noise_slots="official"), sample(num_steps=1))


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
    np.testing.assert_array_equal(fixed.aux, official.aux)
    gap = np.abs(fixed.eps.directions - official.eps.directions).max()
    assert (gap < 1e-5) == same
