"""What all public functions share: key first, options by keyword, docstrings that say so."""

import ast
import inspect
from pathlib import Path

import pytest

import posediff_jax

PACKAGE = Path(posediff_jax.__file__).parent


def public_functions():
    """Every public module-level function of the package, read from the source."""
    for path in sorted(PACKAGE.rglob("*.py")):
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                yield pytest.param(node, id=f"{path.relative_to(PACKAGE)}:{node.name}")


FUNCTIONS = list(public_functions())


def parameters(node):
    return [a.arg for a in (*node.args.posonlyargs, *node.args.args)]


@pytest.mark.parametrize("node", FUNCTIONS)
def test_jax_randomness_comes_first_and_by_the_name_key(node):
    names = [*parameters(node), *(a.arg for a in node.args.kwonlyargs)]
    # NumPy generators are for procedural data on the host.
    assert not {"rng_key", "prng"} & set(names)
    for name in ("key", "keys"):
        if name in parameters(node) and _is_random(node, name):
            assert parameters(node)[0] == name


def _is_random(node, name):
    """`key` is also the name of dictionary keys; those are strings."""
    (argument,) = [a for a in node.args.args if a.arg == name]
    return argument.annotation is not None and "str" not in ast.unparse(argument.annotation)


@pytest.mark.parametrize("node", FUNCTIONS)
def test_flags_are_keyword_only(node):
    """A bare True in a call says nothing."""
    positional = node.args.args[len(node.args.args) - len(node.args.defaults) :]
    for argument, default in zip(positional, node.args.defaults, strict=True):
        is_flag = isinstance(default, ast.Constant) and isinstance(default.value, bool)
        assert not is_flag, f"{node.name}({argument.arg}=...)"


@pytest.mark.parametrize("node", FUNCTIONS)
def test_docstrings_say_what_is_raised(node):
    docstring = ast.get_docstring(node)
    assert docstring, node.name
    raises = any(isinstance(n, ast.Raise) for n in ast.walk(node))
    if raises:
        assert "Raises:" in docstring or "errors as in" in docstring, node.name


def test_the_public_names_are_documented_and_importable():
    public = [n for n in dir(posediff_jax) if not n.startswith("_")]
    functions = [n for n in public if inspect.isfunction(getattr(posediff_jax, n))]
    assert {"sample_ddim", "sample_ddpm", "fan_out", "make_system", "make_sampler"} <= set(
        functions
    )
    assert all(getattr(posediff_jax, n).__doc__ for n in functions)
