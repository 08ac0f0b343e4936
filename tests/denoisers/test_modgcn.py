"""Modulated-GCN: its variants against NumPy, their published size, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.modgcn import (
    GROUPS_16,
    GroupedNonLocalBlock,
    ModulatedGCN,
    modulated_gcn,
)
from posediff_jax.skeleton import H36M_16, H36M_17, HUMANEVA_15
from tests.denoisers import numpy_reference as reference
from tests.denoisers.test_graph import run

TRIPLES = tuple((i, i + 5, i + 10) for i in range(5))
VARIANTS = {
    "gt": modulated_gcn("gt", H36M_16, width=16, num_blocks=2),
    "benchmark": modulated_gcn("benchmark", H36M_17, width=16, num_blocks=1),
    "grouped": modulated_gcn("grouped", H36M_16, width=16, num_blocks=1),
    "triples": modulated_gcn("grouped", HUMANEVA_15, width=16, num_blocks=1, groups=TRIPLES),
}


def keypoints(joints, size=3):
    return np.random.default_rng(0).normal(size=(size, joints, 2))


@pytest.mark.parametrize("name", VARIANTS)
def test_against_numpy(name):
    model = VARIANTS[name]
    x = keypoints(model.skeleton.num_joints)
    variables = reference.random_variables(model, x)
    expected = reference.modulated_gcn(variables, model.skeleton.parents, model.groups, x)
    np.testing.assert_allclose(run(model, variables, x), expected, atol=1e-11)


def test_released_variants_have_their_released_settings():
    gt, benchmark = modulated_gcn("gt", H36M_16), modulated_gcn("benchmark", H36M_17)
    assert (gt.width, gt.modulation_init, gt.non_local, gt.dropout) == (128, "ones", False, 0)
    assert (benchmark.width, benchmark.modulation_init) == (384, "xavier")
    assert (benchmark.non_local, benchmark.dropout) == (True, 0.2)


def test_parameter_count_of_the_published_checkpoint():
    shapes = jax.eval_shape(modulated_gcn("gt", H36M_16).init, jax.random.key(0), keypoints(16))
    assert sum(np.prod(leaf.shape) for leaf in jax.tree.leaves(shapes["params"])) == 287_923


def test_modulation_starts_at_one_in_gt_only():
    for name, starts_at_one in (("gt", True), ("benchmark", False)):
        model = modulated_gcn(name, H36M_16, width=8, num_blocks=0, non_local=False)
        params = model.init(jax.random.key(0), keypoints(16))["params"]
        assert np.all(params["gconv_input"]["conv"]["M"] == 1) == starts_at_one
        assert np.all(params["gconv_output"]["M"] == 1) == starts_at_one


class TestGroupedNonLocalBlock:
    x = np.random.default_rng(2).normal(size=(2, 3, 16, 6))
    block = GroupedNonLocalBlock(GROUPS_16)

    def test_against_numpy(self):
        variables = reference.random_variables(self.block, self.x)
        p, stats = variables["params"], variables["batch_stats"]
        expected = reference.grouped_non_local(p, stats, GROUPS_16, self.x)
        np.testing.assert_allclose(run(self.block, variables, self.x), expected, atol=1e-12)

    def test_starts_as_the_identity(self):
        variables = jax.jit(self.block.init)(jax.random.key(0), self.x)
        y, _ = self.block.apply(variables, self.x, train=True, mutable=["batch_stats"])
        np.testing.assert_array_equal(y, self.x.astype(np.float32))

    def test_initial_values_are_kaiming_normal(self):
        params = jax.jit(self.block.init)(jax.random.key(0), jnp.zeros((1, 16, 400)))["params"]
        for kernel, fan_in in (
            *((params[n]["kernel"], 400) for n in ("theta", "phi", "g")),
            (params["out"]["kernel"], 200),
            (params["project"], 400),
        ):
            deviation = np.sqrt(2 / fan_in)
            np.testing.assert_allclose(np.std(kernel), deviation, rtol=0.1)
            # A normal distribution that is not cut off at two deviations.
            assert np.abs(kernel).max() > 2.3 * deviation
        assert all(np.all(params[n]["bias"] == 0) for n in ("theta", "phi", "g", "out"))

    def test_the_order_of_groups_does_not_matter(self):
        """Pooled groups are a set; only who shares one counts."""
        variables = reference.random_variables(self.block, self.x)
        other = GroupedNonLocalBlock(tuple(reversed(GROUPS_16)))
        np.testing.assert_allclose(
            run(other, variables, self.x), run(self.block, variables, self.x), atol=1e-12
        )

    @pytest.mark.parametrize("groups", [GROUPS_16[:-1], (*GROUPS_16, (0,)), ()])
    def test_groups_must_hold_each_joint_once(self, groups):
        with pytest.raises(ValueError, match="groups: expected each of 16 joints once"):
            GroupedNonLocalBlock(groups).init(jax.random.key(0), self.x)


def test_errors():
    with pytest.raises(ValueError, match=r"variant: expected one of .*'gt'.*'small'"):
        modulated_gcn("small", H36M_16)
    with pytest.raises(ValueError, match=r"keypoints: expected \(..., 16, 2\)"):
        ModulatedGCN(H36M_16).init(jax.random.key(0), keypoints(17))
    with pytest.raises(ValueError, match="groups: expected each of 17 joints once"):
        modulated_gcn("grouped", H36M_17).init(jax.random.key(0), keypoints(17))
