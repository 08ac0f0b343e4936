"""Compares this package with the authors' code: `python -m tests.parity [FILE.npz ...]`.

Without files it takes all of tests/golden. One line per output: file, output, largest absolute
error, largest absolute value, tolerance, verdict. Exit status 1 on any miss. Kinds in `EXCLUDED`
are named and not checked.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np

from tests.parity_checks import ddhpose, diffhpe, diffhpe_coherence, diffupose, zedo
from tests.parity_checks.fixture import Check, Fixture, Line, judge, read_fixture

GOLDEN = Path(__file__).parent / "golden"
SYSTEMS: dict[str, Mapping[str, Check]] = {
    "diffupose": diffupose.CHECKS,
    "ddhpose": ddhpose.CHECKS,
    "diffhpe": {**diffhpe.CHECKS, **diffhpe_coherence.CHECKS},
    "zedo": zedo.CHECKS,
}
# Kinds that are left out on purpose, by system, each with the reason.
EXCLUDED: dict[str, Mapping[str, str]] = {"diffhpe": diffhpe.EXCLUDED}


def exclusion(fixture: Fixture) -> str | None:
    """Why fixtures of this kind are not checked, or None."""
    excluded = EXCLUDED.get(fixture.meta.get("system", ""), {})
    kind = fixture.meta["kind"]
    return next((why for prefix, why in excluded.items() if kind.startswith(prefix)), None)


def find_check(fixture: Fixture) -> Check:
    """The check of the fixture's system whose kind is the longest prefix of the fixture's.

    Raises:
      ValueError: There is none.
    """
    system, kind = fixture.meta.get("system"), fixture.meta["kind"]
    if system not in SYSTEMS:
        raise ValueError(f"unknown system {system!r}; there are {sorted(SYSTEMS)}")
    checks = SYSTEMS[system]
    fitting = [prefix for prefix in checks if kind.startswith(prefix)]
    if not fitting:
        raise ValueError(f"unknown kind {kind!r} of {system!r}; there are {sorted(checks)}")
    return checks[max(fitting, key=len)]


def check_file(path: Path) -> list[Line]:
    """The verdict on each output of one file; a file that cannot be checked is one MISS."""
    try:
        fixture = read_fixture(path)
        if why := exclusion(fixture):
            return [Line(path.name, "-", "excluded", note=why)]
        check = find_check(fixture)
        if not fixture.outputs:
            raise ValueError("no out_* arrays")
        with jax.enable_x64(True), jax.default_matmul_precision("highest"):
            ours = {name: np.asarray(value) for name, value in check.run(fixture).items()}
    # Whatever goes wrong with one file, the others are still to be checked.
    except Exception as error:
        return [Line(path.name, "-", "MISS", note=f"{type(error).__name__}: {error}")]
    return [judge(fixture, name, ours.get(name), check.limit(name)) for name in fixture.outputs]


def main(arguments: Sequence[str]) -> int:
    """Checks the files and prints; returns the exit status."""
    paths = [Path(a) for a in arguments] or sorted(GOLDEN.glob("*.npz"))
    print("file  output  max-abs-error  max-abs-value  tolerance  verdict")
    counts = {"ok": 0, "skipped": 0, "excluded": 0, "MISS": 0}
    for path in paths:
        for line in check_file(path):
            print(line, flush=True)
            counts[line.status] += 1
    counts = {k: n for k, n in counts.items() if n or k != "excluded"}
    summary = ", ".join(f"{n} {status}" for status, n in counts.items())
    print(f"{len(paths)} files: {summary}")
    return 1 if counts["MISS"] or not counts["ok"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
