"""Child processes of a test: started from the root of the repository, never left hanging."""

import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def start(*arguments, **environment):
    """Starts `python ARGUMENTS` with the environment of the tests and the given variables."""
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(*children, timeout=180.0):
    """Exit status and output of each child; one that hangs fails the test with its output."""
    results, hung = [], []
    for child in children:
        try:
            output, _ = child.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            hung.append(child)
            for other in children:
                other.kill()
            output, _ = child.communicate()
        print(f"--- {' '.join(child.args[1:])}: status {child.returncode}\n{output}")
        results.append((child.returncode, output))
    assert not hung, f"{len(hung)} of {len(children)} children hung for {timeout} s, see above"
    return results
