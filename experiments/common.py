"""What the scripts share: their start, options from the command line, files written whole."""

import ast
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from absl import app, logging


def start(argv: Sequence[str]) -> None:
    """Refuses stray arguments, quiets the libraries' notes, and says what the script runs on."""
    if len(argv) > 1:
        raise app.UsageError(f"expected flags only, got {list(argv[1:])}")
    logging.set_verbosity(logging.WARNING)
    devices = jax.devices()
    print(f"jax {jax.__version__} on {len(devices)} x {devices[0].device_kind}")


def parse_options(pairs: Sequence[str]) -> dict[str, Any]:
    """Reads `name=value` pairs; a value that is no Python literal is a string.

    Raises:
      ValueError: A pair without "=".

    >>> parse_options(["num_steps=10", "name=ddpm"])
    {'num_steps': 10, 'name': 'ddpm'}
    """
    options = {}
    for pair in pairs:
        name, found, text = pair.partition("=")
        if not found or not name:
            raise ValueError(f"option: expected name=value, got {pair!r}")
        try:
            options[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[name] = text
    return options


def write_json(path: str | Path, value: Mapping[str, Any]) -> None:
    """Writes a JSON file that is there whole or not at all."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", "utf-8")
    partial.replace(path)
