"""What the tests of D3DP and DDHPose share: tiny configs over windows, and a count of products."""

import functools

import jax
from jax.extend.core import jaxprs_in_params
from ml_collections import ConfigDict

from posediff_jax.systems import make_system
from tests.systems.test_diffupose import make_batch

FRAMES = 5


def make_config(name, **sections):
    config = {
        "system": name,
        "skeleton": "h36m_17",
        "model": {"num_frames": FRAMES, "width": 16, "depth": 2, "num_heads": 2},
        "process": {"num_timesteps": 100},
        "loss": {},
        "sampler": {"num_steps": 3},
    }
    for section, fields in sections.items():
        config[section] = {**config[section], **fields} if isinstance(fields, dict) else fields
    return ConfigDict(config)


@functools.cache
def built(name):
    """The tiny system and its variables, moved off the zero tables."""
    system = make_system(make_config(name))
    variables = jax.jit(system.init)(jax.random.key(0))
    return system, jax.tree.map(lambda a: a + 0.01, variables)


@functools.cache
def sampler(name, num_hypotheses, options=()):
    system = make_system(make_config(name, sampler=dict(options)))

    def run(variables, batch):
        return system.sample(
            jax.random.key(1),
            variables,
            batch,
            num_hypotheses=num_hypotheses,
            return_trajectory=True,
        )

    return jax.jit(run)


def sample(name, batch=None, *, num_hypotheses=2, **options):
    run = sampler(name, num_hypotheses, tuple(sorted(options.items())))
    return run(built(name)[1], make_batch(3, frames=FRAMES) if batch is None else batch)


@functools.cache
def loss_of(name, options=()):
    system = make_system(make_config(name, loss=dict(options)))

    def run(variables, batch):
        loss, aux = system.loss(jax.random.key(2), variables, batch, train=True)
        return loss, aux.metrics

    return jax.jit(jax.value_and_grad(run, has_aux=True))


def products_in_loops(jaxpr, *, inside=False):
    """How many matrix products the bodies of all scans hold."""
    count = 0
    for equation in jaxpr.eqns:
        loop = inside or equation.primitive.name == "scan"
        count += inside and equation.primitive.name == "dot_general"
        for inner in jaxprs_in_params(equation.params):
            count += products_in_loops(inner, inside=loop)
    return count
