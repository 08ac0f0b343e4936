"""Weights in half precision: what comes back, and files that are refused."""

import json

import numpy as np
import pytest

from posediff_jax.prior_file import read_prior, write_prior
from tests.lifting import CONFIG, write_files

VARIABLES = {"params": {"out": {"kernel": np.float32([[0.1, -2.5]]), "bias": np.float32([3.0])}}}


def test_a_round_trip_keeps_half_precision_and_the_config(tmp_path):
    config = CONFIG.copy_and_resolve_references()
    config.sampler.t_range = (0.2, 0.01)
    config.training = {"batch_size": 3}
    write_prior(tmp_path / "p.npz", VARIABLES, config, source="words")
    found = read_prior(tmp_path / "p.npz")
    assert found.source == "words"
    assert found.config.sampler.t_range == (0.2, 0.01)
    assert found.config.model.width == CONFIG.model.width
    assert "training" not in found.config
    kernel = found.variables["params"]["out"]["kernel"]
    assert kernel.dtype == np.float32
    np.testing.assert_array_equal(kernel, np.float16([[0.1, -2.5]]).astype(np.float32))


def test_half_precision_halves_the_file(tmp_path):
    file = write_files(tmp_path)["checkpoint"]
    leaves = read_prior(file).variables["params"]
    count = sum(x.size for part in leaves.values() for x in np.concatenate(_flat(part)))
    assert file.stat().st_size < 2.5 * count + 10_000


def _flat(part):
    leaves = [part] if isinstance(part, np.ndarray) else list(part.values())
    return [
        y for x in leaves for y in ([x.reshape(-1, 1)] if isinstance(x, np.ndarray) else _flat(x))
    ]


def test_what_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match="expected finite values up to 65504"):
        write_prior(tmp_path / "p.npz", {"params": {"w": np.float32([1e6])}}, CONFIG)
    with pytest.raises(ValueError, match="config: expected 'system' and 'skeleton'"):
        write_prior(tmp_path / "p.npz", VARIABLES, {"model": {}})
    assert not list(tmp_path.iterdir())


def test_other_files_are_refused(tmp_path):
    np.savez(tmp_path / "a.npz", poses=np.zeros(3))
    with pytest.raises(ValueError, match="expected a prior by write_prior"):
        read_prior(tmp_path / "a.npz")
    about = {"format": 2, "config": {}, "source": ""}
    np.savez(tmp_path / "b.npz", about=json.dumps(about))
    with pytest.raises(ValueError, match="expected format 1, got 2"):
        read_prior(tmp_path / "b.npz")
    np.savez(tmp_path / "c.npz", about=json.dumps({**about, "format": 1}), w=np.zeros(3))
    with pytest.raises(ValueError, match="key 'w': expected finite float16, got float64"):
        read_prior(tmp_path / "c.npz")
    with pytest.raises(FileNotFoundError):
        read_prior(tmp_path / "d.npz")
