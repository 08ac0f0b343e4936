"""Test-wide set-up: eight fake CPU devices, and each program compiled once."""

import gc
import os
from importlib.metadata import version

# Before jax is imported anywhere.
os.environ["JAX_NUM_CPU_DEVICES"] = "8"
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("MPLBACKEND", "Agg")
# Tests compile much and run little: leave out the passes of LLVM that buy speed.
# XLA_FLAGS="" in the environment runs them with the code that users run.
# Those of jaxlib 0.10 alone: later emitters compile as fast, and XLA ends on unknown flags.
os.environ.setdefault(
    "XLA_FLAGS",
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
    + (
        " --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
        if version("jaxlib").startswith("0.10.")
        else ""
    ),
)

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

# JAX keeps many small objects alive; collecting among all of them cost a fifth of the time.
gc.set_threshold(100_000, 50, 1000)


@pytest.fixture(scope="session", autouse=True)
def _compiled_once(tmp_path_factory):
    """Many tests trace functions of their own that are the same program."""
    options = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("xla")),
        "jax_persistent_cache_min_compile_time_secs": 0.3,
    }
    before = {name: getattr(jax.config, name) for name in options}
    for name, value in options.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()
