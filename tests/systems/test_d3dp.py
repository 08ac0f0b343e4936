"""D3DP and DDHPose as systems: what they share; the numbers are checked by tests.parity."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.geometry import flip
from posediff_jax.process.schedules import cosine_schedule
from posediff_jax.samplers.discrete import ddim_times
from posediff_jax.skeleton import H36M_17, MPI_INF_3DHP_17
from posediff_jax.systems import d3dp, make_system, windows
from tests.systems.test_diffupose import make_batch, rows
from tests.systems.windows import (
    FRAMES,
    built,
    loss_of,
    make_config,
    products_in_loops,
    sample,
)

BOTH = pytest.mark.parametrize("name", ["d3dp", "ddhpose"])


@BOTH
class TestSampling:
    def test_shapes_and_root(self, name):
        result = sample(name)
        assert result.samples.shape == (3, 2, FRAMES, 17, 3)
        assert result.trajectory.shape == (3, 3, 2, FRAMES, 17, 3)
        np.testing.assert_array_equal(result.trajectory[:, -1], result.samples)
        np.testing.assert_array_equal(result.samples[..., 0, :], 0)
        assert np.isfinite(result.samples).all()
        assert np.ptp(result.samples, axis=1).max() > 1e-4

    def test_iterations_are_kept_only_where_asked_for(self, name):
        """No scan but that of a trajectory stacks the poses of its 7 iterations."""
        batch = make_batch(1, frames=FRAMES)
        run = make_system(make_config(name, sampler={"num_steps": 7})).sample

        def stacked(return_trajectory):
            options = {"num_hypotheses": 2, "return_trajectory": return_trajectory}
            jaxpr = jax.make_jaxpr(lambda v: run(jax.random.key(0), v, batch, **options).samples)
            scans = [e for e in jaxpr(built(name)[1]).jaxpr.eqns if e.primitive.name == "scan"]
            return [v.aval.shape for e in scans for v in e.outvars if 7 in v.aval.shape]

        assert (7, 2, FRAMES, 17, 3) in stacked(True)
        assert not stacked(False)

    @pytest.mark.slow
    def test_hypotheses_depend_on_nothing_but_their_item(self, name):
        batch = make_batch(3, frames=FRAMES)
        whole = np.asarray(sample(name).samples)
        np.testing.assert_allclose(
            sample(name, rows(batch, [2, 0])).samples, whole[[2, 0]], atol=2e-5
        )
        np.testing.assert_allclose(sample(name, max_chains=2).samples, whole, atol=2e-5)
        more = sample(name, num_hypotheses=3).samples
        np.testing.assert_allclose(more[:, :2], whole, atol=2e-5)

    @pytest.mark.slow
    def test_flip_averaging_is_an_option(self, name):
        change = sample(name, flip=False).samples - sample(name).samples
        assert np.abs(change).max() > 1e-4

    def test_what_stays_the_same_is_outside_the_loop(self, name):
        """Six products per block, one for the state, one for the head, one to edit logits."""
        system, variables = built(name)
        batch = make_batch(1, frames=FRAMES)

        def run(variables):
            return system.sample(jax.random.key(0), variables, batch, num_hypotheses=1).samples

        blocks = 4 * 6
        # DDHPose: one logit edit, child means, and their projection in one block.
        expected = blocks + 2 + (3 if name == "ddhpose" else 0)
        assert products_in_loops(jax.make_jaxpr(run)(variables).jaxpr) == expected


@BOTH
class TestLoss:
    def test_gradients_are_finite_and_reach_all_weights(self, name):
        _, gradient = loss_of(name)(built(name)[1], make_batch(3, frames=FRAMES))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
            assert np.isfinite(leaf).all(), path
            assert np.any(leaf), path

    def test_bones_of_length_zero(self, name):
        batch = make_batch(3, frames=FRAMES)
        pose = batch.pose.copy()
        pose[:, :, 2] = pose[:, :, 1]
        (loss, _), gradient = loss_of(name)(built(name)[1], batch.replace(pose=pose))
        assert np.isfinite(loss)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))

    @pytest.mark.slow
    def test_padding_may_hold_anything(self, name):
        batch = make_batch(3, frames=FRAMES)
        mask = batch.mask.copy()
        mask[1] = 0
        pose = batch.pose.copy()
        pose[1] = np.nan
        padded = batch.replace(mask=mask, pose=pose)
        (loss, _), gradient = loss_of(name)(built(name)[1], padded)
        assert np.isfinite(loss)
        assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
        (without, _), _ = loss_of(name)(built(name)[1], rows(padded, [0, 2]))
        np.testing.assert_allclose(loss, without, rtol=1e-5)

    @pytest.mark.slow
    def test_no_draw_depends_on_the_place_in_the_batch(self, name):
        """Not that of the noise, nor that of stochastic depth, which drops half of all rows."""
        system = make_system(make_config(name, model={"drop_path": 0.5}))
        run = jax.jit(lambda k, b: system.loss(k, built(name)[1], b, train=True)[0])
        batch = make_batch(3, frames=FRAMES)
        key = jax.random.key(5)
        loss = run(key, batch)
        np.testing.assert_allclose(run(key, rows(batch, [2, 0, 1])), loss, rtol=1e-5)
        moved = batch.replace(index=batch.index + 1)
        assert abs(run(key, moved) - loss) > 1e-4
        # With one item the whole difference is that of its own draws.
        alone = [run(key, rows(batch, [i])) for i in range(3)]
        np.testing.assert_allclose(np.mean(alone), loss, rtol=1e-5)


def test_the_released_gradient_is_the_loss_times_its_own():
    def loss(x, gradient):
        return windows.scale_gradient(jnp.sum(x**2), gradient)

    x = jnp.arange(1.0, 4.0)
    value, times = jax.value_and_grad(loss)(x, "loss_times")
    np.testing.assert_allclose(value, 14)
    np.testing.assert_allclose(times, 14 * jax.grad(loss)(x, "plain"))
    np.testing.assert_allclose(times, 14 * 2 * x)


def test_the_estimate_of_a_mirrored_window_is_mirrored():
    """So it does not matter which of the two views comes first."""
    model = d3dp.D3DPDenoiser(H36M_17, FRAMES, 16, 2, 2, num_timesteps=100)
    variables, schedule = built("d3dp")[1], cosine_schedule(100)
    batch = make_batch(2, frames=FRAMES)
    times = ddim_times(100, 3)[:-1]
    x_t = jnp.asarray(batch.pose)

    @jax.jit
    def pose_of(keypoints, x_t):
        pair = windows.mirrored_pair(keypoints, H36M_17, mirrored=True)
        encoded = model.apply(variables, pair, method="encode")
        predict = d3dp.bind_predict(
            model, variables, encoded, schedule=schedule, times=times, clip=1.1
        )
        return predict(x_t, jnp.asarray(66)).aux

    plain = pose_of(batch.keypoints, x_t)
    mirrored = pose_of(flip(batch.keypoints, H36M_17), flip(x_t, H36M_17))
    np.testing.assert_allclose(flip(mirrored, H36M_17), plain, atol=1e-5)


@BOTH
@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"loss": {"gradient": "squared"}}, "loss.gradient: expected 'plain' or 'loss_times'"),
        ({"sampler": {"num_steps": 101}}, r"sampler.num_steps: expected 1 to 100 .*got 101"),
        ({"sampler": {"eta": 2.0}}, r"sampler.eta: expected a value in \[0, 1\], got 2.0"),
        ({"sampler": {"max_chains": -1}}, "sampler.max_chains: expected 0 or more, got -1"),
        ({"process": {"clip": 0.0}}, "process.clip: expected more than 0, got 0.0"),
        ({"model": {"frames": 9}}, "model.frames: unknown field"),
    ],
)
def test_configs_that_are_refused(name, sections, message):
    with pytest.raises(ValueError, match=message):
        make_system(make_config(name, **sections))


@BOTH
def test_keypoints_of_another_skeleton(name):
    batch = make_batch(2, frames=FRAMES)
    system, variables = built(name)
    with pytest.raises(ValueError, match=r"batch\.keypoints: expected \(\.\.\., 17, 2\)"):
        system.sample(
            jax.random.key(0),
            variables,
            batch.replace(keypoints=batch.keypoints[:, :, :16]),
            num_hypotheses=1,
        )
    with pytest.raises(ValueError, match="frozen: expected None"):
        make_system(make_config(name), frozen=variables)


@pytest.mark.slow
@BOTH
def test_the_other_skeleton(name):
    """MPI-INF-3DHP has its root in the middle of the joints."""
    system = make_system(make_config(name, skeleton="mpi_inf_3dhp_17"))
    batch = make_batch(1, frames=FRAMES, skeleton=MPI_INF_3DHP_17)
    variables = jax.jit(system.init)(jax.random.key(0))
    result = jax.jit(lambda v: system.sample(jax.random.key(0), v, batch, num_hypotheses=1))(
        variables
    )
    np.testing.assert_array_equal(result.samples[..., 14, :], 0)
    assert np.isfinite(result.samples).all()
