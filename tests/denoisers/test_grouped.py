"""Attention from joints to groups of joints: against NumPy, what is pooled, its start."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.grouped import (
    GROUPS_16,
    GROUPS_17,
    GroupedNonLocalBlock,
    pooled_joints,
)
from tests.denoisers import numpy_reference as reference
from tests.denoisers.test_graph import run


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


class TestSeventeenJoints:
    x = np.random.default_rng(3).normal(size=(4, 17, 6))

    def test_pairs_run_across_the_group_of_three(self):
        assert pooled_joints(GROUPS_17, "official")[5] == (10, 15)
        assert 14 not in sum(pooled_joints(GROUPS_17, "official"), ())
        assert pooled_joints(GROUPS_17, "groups") == GROUPS_17

    @pytest.mark.parametrize("grouping", ["official", "groups"])
    def test_against_numpy(self, grouping):
        block = GroupedNonLocalBlock(GROUPS_17, grouping=grouping)
        variables = reference.random_variables(block, self.x)
        p, stats = variables["params"], variables["batch_stats"]
        ends = np.cumsum([0, *map(len, GROUPS_17)])
        whole = [range(a, b) for a, b in itertools.pairwise(ends)]
        pools = whole if grouping == "groups" else None
        expected = reference.grouped_non_local(p, stats, GROUPS_17, self.x, pools=pools)
        np.testing.assert_allclose(run(block, variables, self.x), expected, atol=1e-12)

    def test_joints_may_come_first(self):
        block = GroupedNonLocalBlock(GROUPS_17)
        variables = reference.random_variables(block, self.x)
        first = GroupedNonLocalBlock(GROUPS_17, joint_axis=0)
        y = run(first, variables, np.moveaxis(self.x, -2, 0))
        np.testing.assert_allclose(np.moveaxis(y, 0, -2), run(block, variables, self.x), atol=1e-13)

    def test_an_unknown_rule(self):
        with pytest.raises(ValueError, match="grouping: expected 'official' or 'groups', got 'pa"):
            pooled_joints(GROUPS_17, "pairs")
