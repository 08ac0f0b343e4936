"""Figures of a set of hypotheses, and the table that prints them with what each one needed."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from posediff_jax.evaluation.metrics import NEEDS, mpjpe, p_mpjpe
from posediff_jax.samplers.aggregate import joint_spread, mean_pose

_WIDEST = 10_000  # characters


def score_hypotheses(hypotheses: NDArray, truth: NDArray) -> dict[str, float]:
    """Scores the mean of the hypotheses, in millimetres.

    Args:
      hypotheses: `(N, H, F, J, 3)` metres, root-relative.
      truth: `(N, F, J, 3)` metres, root-relative.

    Returns:
      `mpjpe` and `p_mpjpe` of the mean pose ("P-Agg": nothing but the truth to compare with is
      used), and `spread`, the mean over joints of the hypotheses' root mean square distance to it.

    Raises:
      ValueError: The shapes do not fit.
    """
    expected = (hypotheses.shape[0], *hypotheses.shape[2:])
    if hypotheses.ndim != 5 or truth.shape != expected:
        raise ValueError(f"truth: expected {expected} for these hypotheses, got {truth.shape}")
    figures = jax.device_get(_figures(jnp.asarray(hypotheses), jnp.asarray(truth)))
    return {name: 1000 * float(np.mean(values)) for name, values in figures.items()}


@jax.jit
def _figures(hypotheses: jax.Array, truth: jax.Array) -> dict[str, jax.Array]:
    pose = mean_pose(hypotheses)
    return {
        "mpjpe": mpjpe(pose, truth),
        "p_mpjpe": p_mpjpe(pose, truth),
        "spread": joint_spread(hypotheses),
    }


def print_scores(
    rows: Mapping[str, Mapping[str, float]], *, title: str, columns: Sequence[str]
) -> None:
    """Prints one line per method and one column per figure, in millimetres.

    Args:
      rows: Figures of each method by name.
      title: Printed on top.
      columns: Names of the figures to print.
    """
    table = Table(title=f"{title} (mm)", caption=_needs(columns))
    table.add_column("method")
    for column in columns:
        table.add_column(column.upper().replace("_", "-"), justify="right")
    for method, figures in rows.items():
        table.add_row(method, *(f"{figures[c]:.1f}" for c in columns))
    print_whole(table)


def print_whole(table: Table) -> None:
    """Prints a table as wide as it is, whatever the terminal: a figure cut short is lost."""
    Console(width=Console(width=_WIDEST).measure(table).maximum).print(table)


def _needs(columns: Sequence[str]) -> str:
    return "; ".join(
        f"{c.upper().replace('_', '-')} needs {', '.join(NEEDS[c])}" for c in columns if c in NEEDS
    )
