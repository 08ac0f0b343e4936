"""One process of a run of several: a program for `test_multiprocess`.

`python -m tests.training.one_of_many PORT PROCESS COUNT WORKDIR SIGNAL STEP PATIENCE` trains the
small system of `fakes` with a part of each batch, saves the last state in `WORKDIR.PROCESS.npz`,
and prints `wrote PATH` for whatever Python opened, made, moved or removed in WORKDIR. Before a
step (0-based) the process sends itself the signal. PATIENCE: seconds until one that is silent
counts as dead.
"""

import os
import sys

import jax
import numpy as np
from jax.experimental import multihost_utils

from posediff_jax.inference import make_sampler
from posediff_jax.training import EmaOptions, make_optimizer, train
from tests.training.fakes import make_batch, make_system

BATCH, NUM_STEPS, LOG_EVERY, SAVE_EVERY, EVAL_EVERY = 16, 12, 2, 4, 6


def batches(part=slice(None), before=lambda step: None):
    """Rows `part` of each batch; every third batch has but five items, all in the first half."""

    def from_step(step):
        while True:
            before(step)
            batch = make_batch(step, BATCH, real=5 if step % 3 == 2 else None, dtype=np.float64)
            yield jax.tree.map(lambda leaf: leaf[part], batch)
            step += 1

    return from_step


def run(workdir, batches_fn, devices=None):
    """The last state of the run, as host arrays."""
    state = train(
        make_system(),
        make_optimizer({"learning_rate": 0.05}),
        batches_fn,
        num_steps=NUM_STEPS,
        workdir=workdir,
        ema=EmaOptions(update_every=2, update_after_step=3),
        log_every=LOG_EVERY,
        save_every=SAVE_EVERY,
        eval_every=EVAL_EVERY,
        evaluate=_evaluate,
        select_on="error",
        progress=False,
        devices=devices,
    )
    return jax.device_get(state)


def _evaluate(variables):
    """Each process scores all items, on its own devices."""
    batch = make_batch(NUM_STEPS, BATCH, dtype=np.float64)
    sample_batch = make_sampler(make_system(), variables, num_hypotheses=2)
    samples = sample_batch(jax.random.key(0), batch).samples
    return {"error": float(np.mean((samples - batch.pose[:, None]) ** 2))}


def _report_writing(workdir):
    def look(event, args):
        path = args[0] if args and isinstance(args[0], (str, os.PathLike)) else ""
        if not os.fspath(path).startswith(workdir + os.sep):
            return
        reading = event == "open" and not args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if not reading and event in ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir"):
            print(f"wrote {path}", flush=True)

    sys.addaudithook(look)


def main(port, process, count, workdir, signal, at_step, patience):
    jax.distributed.initialize(
        f"127.0.0.1:{port}", count, process, heartbeat_timeout_seconds=patience
    )
    _report_writing(workdir)

    def before(step):
        if step == at_step:
            os.kill(os.getpid(), signal)

    rows = BATCH // count
    state = run(workdir, batches(slice(process * rows, (process + 1) * rows), before))
    np.savez(f"{workdir}.{process}.npz", *jax.tree.leaves(state))
    multihost_utils.sync_global_devices("done")
    jax.distributed.shutdown()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:4]), sys.argv[4], *map(int, sys.argv[5:]))
