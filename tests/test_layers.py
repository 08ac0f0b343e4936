"""The four layers of the house: a file imports from lower layers or siblings, without cycles."""

import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "posediff_jax"
LAYERS = {
    "core": (
        "types",
        "config",
        "keys",
        "skeleton",
        "geometry",
        "camera",
        "calibration",
        "process",
        "_version",
    ),
    "parts": ("data", "denoisers", "samplers"),
    "systems": ("systems",),
    "apps": (
        *("training", "evaluation", "interop", "inference", "lifter", "visualize", "parallel"),
        *("prior_file", "assets", "lift_engine", "lifted_person", "lifting", "cli"),
    ),
}
RANK = {top: rank for rank, tops in enumerate(LAYERS.values()) for top in tops}


def modules():
    for path in sorted(PACKAGE.rglob("*.py")):
        name = ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
        yield name.removesuffix(".__init__"), ast.parse(path.read_text())


def imports_of(tree):
    """Modules of the package that a file imports, at any depth of nesting."""
    known = {name for name, _ in modules()}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                target = full if full in known else node.module
                if target in known and target != "posediff_jax":
                    yield target


def top(module):
    return module.split(".")[1] if "." in module else ""


GRAPH = {name: sorted(set(imports_of(tree)) - {name}) for name, tree in modules()}


@pytest.mark.parametrize("module", [m for m in GRAPH if top(m)])
def test_imports_point_down(module):
    assert top(module) in RANK, f"{module} belongs to no layer: say in which it lives"
    for target in GRAPH[module]:
        assert RANK[top(target)] <= RANK[top(module)], f"{module} imports {target} from above"
        assert {top(module), top(target)} != {"denoisers", "samplers"}, (
            f"{module} imports {target}: denoisers and samplers never import each other"
        )


def test_there_is_no_cycle():
    tuple(graphlib.TopologicalSorter(GRAPH).static_order())


def test_orbax_is_imported_in_one_place():
    users = [
        name
        for name, tree in modules()
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        and "orbax" in (getattr(node, "module", None) or node.names[0].name)
    ]
    assert set(users) == {"posediff_jax.training.checkpoints"}


def test_nothing_below_the_apps_compiles():
    """Compilation belongs to callers; a function that jits cannot be composed.

    But for what is no function of JAX to its callers: masks that the host draws, as NumPy arrays.
    """
    for name, tree in modules():
        if RANK.get(top(name), 0) == RANK["training"] or name == "posediff_jax.data.occlusion":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr in ("jit", "pmap"):
                assert not (isinstance(node.value, ast.Name) and node.value.id == "jax"), name


def test_configs_import_only_ml_collections():
    """And each other: a recipe that builds on another says only what differs."""
    for path in (PACKAGE.parent / "configs").glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                root = node.module.partition(".")[0]
                assert root in ("ml_collections", "configs", "collections"), path
            if isinstance(node, ast.Import):
                assert [a.name for a in node.names] == ["ml_collections"], path


def test_importing_the_package_is_clean():
    """No optional package, no orbax, no device, no warning."""
    code = """
import sys
import posediff_jax
from jax._src import xla_bridge
for name in ("matplotlib", "scipy.io", "torch", "orbax"):
    assert name not in sys.modules, name
assert not xla_bridge.backends_are_initialized()
"""
    ignore = "ignore:the load_module:DeprecationWarning"
    subprocess.run([sys.executable, "-W", "error", "-W", ignore, "-c", code], check=True)
