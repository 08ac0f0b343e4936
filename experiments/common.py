"""What every script does first."""

from collections.abc import Sequence

import jax
from absl import app, logging


def start(argv: Sequence[str]) -> None:
    """Refuses stray arguments, quiets the libraries' notes, and says what the script runs on."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {list(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    devices = jax.devices()
    print(f"jax {jax.__version__} on {len(devices)} x {devices[0].device_kind}")
