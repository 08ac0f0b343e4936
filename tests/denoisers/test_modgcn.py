"""Modulated-GCN: its variants against NumPy, their published size, and errors."""

import jax
import numpy as np
import pytest

from posediff_jax.denoisers.modgcn import ModulatedGCN, modulated_gcn
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


def test_errors():
    with pytest.raises(ValueError, match=r"variant: expected one of .*'gt'.*'small'"):
        modulated_gcn("small", H36M_16)
    with pytest.raises(ValueError, match=r"keypoints: expected \(..., 16, 2\)"):
        ModulatedGCN(H36M_16).init(jax.random.key(0), keypoints(17))
    with pytest.raises(ValueError, match="groups: expected each of 17 joints once"):
        modulated_gcn("grouped", H36M_17).init(jax.random.key(0), keypoints(17))
