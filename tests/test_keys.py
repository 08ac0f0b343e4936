"""What is no typed key is refused by the argument's name, wherever users give one."""

import jax
import jax.numpy as jnp
import pytest

from posediff_jax.inference import make_sampler
from posediff_jax.keys import check_key, frame_keys, item_keys
from posediff_jax.process.schedules import cosine_schedule
from posediff_jax.process.sdes import VP
from posediff_jax.samplers.continuous import sample_sde
from posediff_jax.samplers.discrete import sample_ddim, sample_ddpm
from posediff_jax.samplers.hypotheses import fan_out
from posediff_jax.systems import System
from posediff_jax.types import Prediction

LEGACY = jax.random.PRNGKey(0)
INDEX, X = jnp.arange(2), jnp.ones(3)
TABLES = {"schedule": cosine_schedule(4)}


def predict(x, t):
    return Prediction(x0=x, eps=x)


@pytest.mark.parametrize("key", [LEGACY, 0, None])
@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda key: item_keys(key, INDEX), "key"),
        (lambda key: frame_keys(key, INDEX, 2), "key"),
        (lambda key: sample_ddpm(key, predict, X, **TABLES), "key"),
        (lambda key: sample_ddim(key, predict, X, num_steps=2, **TABLES), "key"),
        (lambda key: sample_sde(key, predict, X, sde=VP()), "key"),
        (lambda key: fan_out(key, lambda k, x: x, INDEX, num_hypotheses=1), "keys"),
        (lambda key: make_sampler(SYSTEM, {}, num_hypotheses=1)(key, None), "key"),
        (lambda key: jax.jit(check_key)(key), "key"),
    ],
)
def test_what_is_no_typed_key(call, name, key):
    with pytest.raises(TypeError, match=rf"^{name}: expected a typed key, such as jax.random.key"):
        call(key)


SYSTEM = System(init=None, loss=None, sample=lambda *args, **options: None)


def test_typed_keys_pass_traced_or_not():
    check_key(jax.random.key(0))
    jax.eval_shape(jax.vmap(check_key), jax.random.split(jax.random.key(0), 3))
    with pytest.raises(TypeError, match=r"key: .* got uint32 of shape \(2,\); jax.random.wrap_key"):
        check_key(LEGACY)
    check_key(jax.random.wrap_key_data(LEGACY))
