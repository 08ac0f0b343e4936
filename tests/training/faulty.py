"""The training command, and what happens to it: a program for `test_faults`.

`python -m tests.training.faulty FAULT --config=... --workdir=...` runs
`python -m experiments.train --config=... --workdir=...` and, as FAULT says,

- `{"signal": S, "step": N, "after": T}` sends itself S, T seconds after its N-th step was begun;
- `{"signal": S, "event": N}` sends itself S at the N-th thing that Python does to a file of an
  unfinished checkpoint (opening, renaming, making and removing files and folders);
- `{"file_size": B, "step": N}` lets files grow to B bytes only, from its N-th step on;
  with `"late": true` that shows when arrays are being written, not before.
"""

import json
import os
import resource
import runpy
import sys
import threading

_EVENTS = ("open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "shutil.rmtree", "os.scandir")


def main(fault, argv):
    _watch_files(fault) if "event" in fault else _watch_steps(fault)
    sys.argv = ["train", *argv]
    runpy.run_module("experiments.train", run_name="__main__", alter_sys=True)


def _watch_files(fault):
    count = 0

    def look(event, args):
        nonlocal count
        if event in _EVENTS and any(_unfinished(arg) for arg in args):
            count += 1
            if count == fault["event"]:
                os.kill(os.getpid(), fault["signal"])

    sys.addaudithook(look)


def _unfinished(path):
    return isinstance(path, (str, os.PathLike)) and (
        ".partial" in os.fspath(path) or ".removed" in os.fspath(path)
    )


def _watch_steps(fault):
    from posediff_jax import data

    original = data.endless_batches

    def endless_batches(*args, **options):
        for step, batch in enumerate(original(*args, **options), start=1):
            if step == fault["step"]:
                _strike(fault)
            yield batch

    data.endless_batches = endless_batches


def _strike(fault):
    if fault.get("late"):
        os.posix_fallocate = lambda *_: None
    if "file_size" in fault:
        resource.setrlimit(resource.RLIMIT_FSIZE, (fault["file_size"],) * 2)
    else:
        threading.Timer(fault["after"], os.kill, (os.getpid(), fault["signal"])).start()


if __name__ == "__main__":
    main(json.loads(sys.argv[1]), sys.argv[2:])
