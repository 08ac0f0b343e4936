"""Parity of ZeDO's evaluation: errors, the oracle over hypotheses, PCK."""

import jax.numpy as jnp
import numpy as np

from posediff_jax.evaluation.metrics import auc, mpjpe, p_mpjpe, pck
from posediff_jax.evaluation.oracle import best_hypothesis, take_hypothesis
from posediff_jax.evaluation.protocols import action_means
from posediff_jax.geometry import procrustes_align, root_center
from tests.parity_checks.fixture import Fixture
from tests.parity_checks.zedo_common import Outputs


def metrics(fixture: Fixture) -> Outputs:
    """Predictions are not re-rooted, the ground truth is; alignment allows mirror images."""
    config, actions = fixture.config, fixture["in_action"]
    predicted = jnp.asarray(fixture["in_pred"])
    truth = root_center(jnp.asarray(fixture["in_gt"], float), root=0)
    target = truth[:, None]
    aligned = procrustes_align(predicted, target, allow_reflection=True)
    plain, similar = mpjpe(predicted, target), p_mpjpe(predicted, target, allow_reflection=True)
    fourteen = np.array(config["joints14"])
    least, index = best_hypothesis(plain)
    least_similar, _ = best_hypothesis(similar)
    chosen = take_hypothesis(predicted, index)
    thresholds = np.linspace(0, 0.150, 31)
    residual = jnp.sum((aligned[:, 0] - truth) ** 2, axis=(-2, -1))
    spread = jnp.sum((truth - jnp.mean(truth, axis=-2, keepdims=True)) ** 2, axis=(-2, -1))
    ours = {
        "out_mpjpe": plain,
        "out_pampjpe": similar,
        "out_mpjpe14": mpjpe(predicted[..., fourteen, :], target[..., fourteen, :]),
        "out_aligned": aligned,
        "out_min_mpjpe": least,
        "out_min_pampjpe": least_similar,
        "out_best_index": index,
        "out_mean_min_mpjpe": jnp.mean(least),
        "out_mean_min_pampjpe": jnp.mean(least_similar),
        "out_actionwise_min_mpjpe": action_means(least, actions).mean,
        "out_actionwise_min_pampjpe": action_means(least_similar, actions).mean,
        "out_procrustes_d_hyp0": residual / spread,
    }
    limit = config["pck_threshold_mm"] / 1000
    for name, joints in (("17", None), ("14", config["pck14_joints"])):
        share = pck(chosen, truth, threshold=limit, joints=joints)
        area = auc(chosen, truth, thresholds=thresholds, joints=joints)
        ours[f"out_pck{name}"] = 100 * jnp.mean(share)
        ours[f"out_auc{name}"] = 100 * jnp.mean(area)
    return ours
