"""Graph layers against NumPy, their initial values, and the identities between variants."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from posediff_jax.denoisers.graph import (
    GraphConv,
    ModulatedGraphConv,
    NonLocalBlock,
    make_adjacency,
    row_normalised_adjacency,
    symmetric_adjacency,
)
from posediff_jax.skeleton import H36M_16, H36M_17, HUMANEVA_15
from tests.denoisers import numpy_reference as reference
from tests.denoisers.test_layers import fills

SKELETONS = (H36M_17, H36M_16, HUMANEVA_15)


def run(module, variables, *inputs, **options):
    """Applies a module in float64."""
    with jax.enable_x64(True):
        inputs = [jnp.asarray(x, jnp.float64) for x in inputs]
        result = jax.jit(lambda v, *x: module.apply(v, *x, **options))(variables, *inputs)
        return jax.tree.map(np.asarray, result)


class TestAdjacency:
    @pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
    def test_released_affinity(self, skeleton):
        A = row_normalised_adjacency(skeleton)
        np.testing.assert_array_equal(A, reference.affinity(skeleton.parents))
        np.testing.assert_allclose(A.sum(axis=1), 2, atol=1e-6)
        assert not np.allclose(A, A.T)

    @pytest.mark.parametrize("skeleton", SKELETONS, ids=lambda s: s.name)
    def test_symmetric_affinity_of_the_papers(self, skeleton):
        A = symmetric_adjacency(skeleton)
        degree = 1 + np.bincount(np.array(skeleton.bones).ravel(), minlength=skeleton.num_joints)
        for child, parent in skeleton.bones:
            expected = 1 / np.sqrt(degree[child] * degree[parent])
            np.testing.assert_allclose([A[child, parent], A[parent, child]], expected)
        np.testing.assert_allclose(np.diag(A), 1 / degree)
        assert np.count_nonzero(A) == 3 * skeleton.num_joints - 2

    def test_unknown_name(self):
        with pytest.raises(ValueError, match=r"adjacency.*\['row', 'symmetric'\].*'random'"):
            make_adjacency(H36M_17, "random")


class TestModulatedGraphConv:
    x = np.random.default_rng(0).normal(size=(2, 3, 16, 5))

    @pytest.mark.parametrize("adjacency", ["row", "symmetric"])
    def test_against_numpy(self, adjacency):
        conv = ModulatedGraphConv(7, skeleton=H36M_16, adjacency=adjacency)
        variables = reference.random_variables(conv, self.x)
        A = make_adjacency(H36M_16, adjacency)
        expected = reference.graph_conv(variables["params"], A, self.x)
        np.testing.assert_allclose(run(conv, variables, self.x), expected, atol=1e-12)

    def test_initial_values(self):
        conv = ModulatedGraphConv(384, skeleton=H36M_16)
        params = jax.jit(conv.init)(jax.random.key(0), jnp.zeros((1, 16, 384)))["params"]
        # Xavier with PyTorch's fans of a three-dimensional tensor, 14 times below the usual ones.
        assert fills(params["W"], 1.414 * np.sqrt(6 / (384 * 386)))
        assert fills(params["M"], 1.414 * np.sqrt(6 / (16 + 384)))
        assert fills(params["bias"], 384**-0.5)
        np.testing.assert_array_equal(params["adj2"], np.full((16, 16), np.float32(1e-6)))

    def test_modulation_may_start_at_one(self):
        conv = ModulatedGraphConv(4, skeleton=H36M_16, modulation_init="ones")
        params = jax.jit(conv.init)(jax.random.key(0), self.x)["params"]
        np.testing.assert_array_equal(params["M"], np.ones((16, 4)))

    def test_vanilla_is_the_modulated_layer_with_its_freedoms_fixed(self):
        vanilla = ModulatedGraphConv(7, skeleton=H36M_16, modulated=False)
        modulated = ModulatedGraphConv(7, skeleton=H36M_16)
        variables = reference.random_variables(vanilla, self.x)
        W, bias = variables["params"]["W"], variables["params"]["bias"]
        assert W.shape == (1, 5, 7)
        fixed = {
            "W": np.concatenate([W, W]),
            "M": np.ones((16, 7)),
            "adj2": np.zeros((16, 16)),
            "bias": bias,
        }
        np.testing.assert_allclose(
            run(vanilla, variables, self.x), run(modulated, {"params": fixed}, self.x), atol=1e-12
        )

    def test_mask_multiplies_the_affinity(self):
        masked = ModulatedGraphConv(7, skeleton=H36M_16, mask=True)
        variables = reference.random_variables(masked, self.x)
        start = masked.init(jax.random.key(0), self.x)["params"]["P"]
        np.testing.assert_array_equal(start, np.ones((16, 16)))
        A = row_normalised_adjacency(H36M_16) * variables["params"]["P"]
        expected = reference.graph_conv(variables["params"], A, self.x)
        np.testing.assert_allclose(run(masked, variables, self.x), expected, atol=1e-12)


class TestGraphConv:
    x = np.random.default_rng(1).normal(size=(4, 15, 3))

    def layer(self, **options):
        return GraphConv(ModulatedGraphConv(6, skeleton=HUMANEVA_15), **options)

    @pytest.mark.parametrize("train", [False, True])
    def test_against_numpy(self, train):
        layer = self.layer()
        variables = reference.random_variables(layer, self.x)
        y, _ = run(layer, variables, self.x, train=train, mutable=["batch_stats"])
        p, stats = variables["params"], variables["batch_stats"]
        A = reference.affinity(HUMANEVA_15.parents)
        expected = reference.graph_layer(p, stats, A, self.x, train=train)
        np.testing.assert_allclose(y, expected, atol=1e-12)

    def test_dropout_acts_in_training_only(self):
        layer, plain = self.layer(dropout=0.5), self.layer()
        variables = reference.random_variables(layer, self.x)
        np.testing.assert_array_equal(run(layer, variables, self.x), run(plain, variables, self.x))
        options = {"train": True, "mutable": ["batch_stats"]}
        kept, _ = run(plain, variables, self.x, **options)
        rngs = {"dropout": jax.random.key(0)}
        dropped, _ = run(layer, variables, self.x, rngs=rngs, **options)
        zeroed = dropped == 0
        np.testing.assert_allclose(dropped[~zeroed], 2 * kept[~zeroed], rtol=1e-6)
        assert 0.3 < zeroed[kept > 0].mean() < 0.7


class TestNonLocalBlock:
    x = np.random.default_rng(2).normal(size=(3, 2, 17, 8))

    @pytest.mark.parametrize("train", [False, True])
    def test_against_numpy(self, train):
        variables = reference.random_variables(NonLocalBlock(), self.x)
        y, _ = run(NonLocalBlock(), variables, self.x, train=train, mutable=["batch_stats"])
        p, stats = variables["params"], variables["batch_stats"]
        expected = reference.non_local(p, stats, self.x, train=train)
        np.testing.assert_allclose(y, expected, atol=1e-12)

    @pytest.mark.parametrize("train", [False, True])
    def test_starts_as_the_identity(self, train):
        variables = NonLocalBlock().init(jax.random.key(0), self.x)
        y, _ = NonLocalBlock().apply(variables, self.x, train=train, mutable=["batch_stats"])
        np.testing.assert_array_equal(y, self.x.astype(np.float32))

    def test_embeddings_start_like_pytorch(self):
        params = jax.jit(NonLocalBlock().init)(jax.random.key(0), jnp.zeros((1, 2, 100)))["params"]
        for name in ("theta", "phi", "g"):
            assert fills(params[f"{name}_kernel"], 0.1)
            assert np.abs(params[f"{name}_bias"]).max() <= 0.1

    def test_frames_do_not_see_each_other(self):
        variables = reference.random_variables(NonLocalBlock(), self.x)
        alone = run(NonLocalBlock(), variables, self.x[1, 1])
        np.testing.assert_allclose(run(NonLocalBlock(), variables, self.x)[1, 1], alone, atol=1e-12)

    def test_refuses_odd_width(self):
        with pytest.raises(ValueError, match="even number of channels, got 7"):
            NonLocalBlock().init(jax.random.key(0), jnp.zeros((1, 17, 7)))
