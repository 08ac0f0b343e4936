"""The contract of a system: three pure functions that bind a denoiser to a process."""

from typing import Any, NamedTuple, Protocol

import jax

from posediff_jax.types import Array, Aux, PoseBatch, SampleResult, Variables


class InitFn(Protocol):
    """Draws fresh variables."""

    def __call__(self, key: jax.Array) -> dict[str, Any]:
        """Returns linen variables: `params`, and `batch_stats` where the network has them."""
        ...


class LossFn(Protocol):
    """Training loss of one batch; all randomness derives from `key` and `batch.index`."""

    def __call__(
        self,
        key: jax.Array,
        variables: Variables,
        batch: PoseBatch,
        *,
        train: bool,
        axis_name: str | None = None,
    ) -> tuple[Array, Aux]:
        """Returns the mean loss over unmasked frames, with metrics and mutable collections.

        With `axis_name` the mean runs over all devices of that mapped axis: the `pmean` of the
        values returned by the devices is the mean over the global batch, so is their gradient's.
        """
        ...


class SampleFn(Protocol):
    """Draws hypotheses for one batch."""

    def __call__(
        self,
        key: jax.Array,
        variables: Variables,
        batch: PoseBatch,
        *,
        num_hypotheses: int,
        return_trajectory: bool = False,
    ) -> SampleResult:
        """Returns root-relative poses `(B, H, F, J, 3)` in metres, camera axes.

        A deterministic system refuses `num_hypotheses` above 1 with a ValueError.
        """
        ...


class System(NamedTuple):
    """A paper's method, ready to train and to sample. Built by a `from_config` of `systems`."""

    init: InitFn
    loss: LossFn
    sample: SampleFn
