"""Batches as a pure function of (table, seed, epoch, step): resumable, of constant shape, in NumPy.

`item_table` lays all frames of a data set end to end once; an item is a window of them, plain or
mirrored; a batch is a few gathers.
"""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from posediff_jax.camera import flip_camera
from posediff_jax.data.occlusion import Occlusion, check_clips, visible_joints_on_host
from posediff_jax.data.sequences import PoseSequences
from posediff_jax.data.windows import expand, window_starts
from posediff_jax.skeleton import Skeleton
from posediff_jax.types import Camera, PoseBatch

ORDERS = ("shuffled", "sequential", "official", "official_stream")


@dataclasses.dataclass(frozen=True, eq=False)
class ItemTable:
    """All items of a data set over contiguous arrays; built by `item_table`. N is all frames.

    Attributes:
      items: Sequence, first frame (negative with `pad="split"`), one past the last frame within
        the sequence, and flip (0 or 1) of each item, `(M, 4)` int32.
      length: F, frames per item.
      offsets: Where each sequence starts in the arrays below, `(S + 1,)`.
      skeleton: The joint order.
      keypoints_px: `(N, J, 2)`.
      confidence: `(N, J)`.
      cameras: Leaves `(2 S, ...)`: of each sequence, then each mirrored.
      subject: Of each sequence, `(S,)` int32.
      action: Of each sequence, `(S,)` int32.
      pose: `(N, J, 3)` or None.
      root: `(N, 3)` or None.
      occlusion: Which joints are hidden in which items, or None.
    """

    items: NDArray[np.int32]
    length: int
    offsets: NDArray[np.int64]
    skeleton: Skeleton
    keypoints_px: NDArray
    confidence: NDArray
    cameras: Camera
    subject: NDArray[np.int32]
    action: NDArray[np.int32]
    pose: NDArray | None
    root: NDArray | None
    occlusion: Occlusion | None = None

    @property
    def num_items(self) -> int:
        """M."""
        return len(self.items)

    def gather(
        self, index: NDArray, *, stream: str = "score", seed: int = 0, epoch: int = 0
    ) -> PoseBatch:
        """The items of the given global indices, `(B,)`, as one batch.

        With `occlusion`, joints that are hidden or have confidence 0 in the data lie at the centre
        of the image. A mirrored item is hidden first and mirrored then: it lacks the other leg.

        Args:
          index: Global indices.
          stream: What is hidden follows from this and the next two, see `occlusion_key`.
          seed: Likewise.
          epoch: Likewise.

        Raises:
          ValueError: An index is not in [0, num_items).
        """
        index = np.asarray(index)
        if index.ndim != 1 or (len(index) and not 0 <= index.min() <= index.max() < self.num_items):
            raise ValueError(f"index: expected (B,) within [0, {self.num_items}), got {index}")
        sequence, start, end, flip = self.items[index].T
        local, shown = expand(start, end, length=self.length)
        frames = local + self.offsets[sequence][:, None]
        # PoseBatch is typed by what its leaves become on a device.
        mask: Any = shown
        number: Any = index.astype(np.int32)
        mirrored = np.flatnonzero(flip)
        camera_rows = sequence + flip * len(self.subject)
        camera = jax.tree.map(lambda leaf: leaf[camera_rows], self.cameras)

        pixels = self.keypoints_px[frames]
        confidence = self.confidence[frames]
        size = camera.image_size[:, None, None]
        if self.occlusion is not None:
            seen = self._seen(index, stream, seed, epoch)
            confidence = np.where(seen, confidence, 0)
            pixels = centre_missing(pixels, confidence, size)
        pixels[mirrored] = self._mirror(pixels[mirrored], size[mirrored, ..., :1])
        confidence[mirrored] = confidence[mirrored][..., self.skeleton.flip_permutation]
        pose = root = None
        if self.pose is not None:
            pose = self.pose[frames]
            pose[mirrored] = self._mirror(pose[mirrored])
        if self.root is not None:
            root = self.root[frames]
            root[mirrored, :, 0] *= -1.0
        return PoseBatch(
            # The formula of camera.to_screen, which lives on the device.
            keypoints=2.0 * pixels / size[..., :1] - size / size[..., :1],
            keypoints_px=pixels,
            confidence=confidence,
            mask=mask,
            index=number,
            subject=self.subject[sequence],
            action=self.action[sequence],
            camera=camera,
            pose=pose,
            root=root,
        )

    def _seen(self, index: NDArray, stream: str, seed: int, epoch: int) -> NDArray | bool:
        if self.occlusion is None or not self.occlusion.hides:
            return True
        return visible_joints_on_host(
            seed,
            stream,
            epoch,
            index,
            self.occlusion,
            num_frames=self.length,
            skeleton=self.skeleton,
        )

    def _mirror(self, points: NDArray, width: NDArray | float = 0.0) -> NDArray:
        return mirror(points, self.skeleton.flip_permutation, width=width)


def item_table(
    sequences: PoseSequences,
    *,
    length: int = 1,
    stride: int | None = None,
    pad: str = "edge",
    augment: bool = False,
    occlusion: Occlusion | None = None,
) -> ItemTable:
    """Lists the windows of all sequences.

    Args:
      sequences: The data set.
      length: Frames per item.
      stride: Frames between items; None means `length`.
      pad: As for `windows.window_starts`.
      augment: List each window twice, plain and mirrored.
      occlusion: Which joints are hidden; None leaves those without a confidence where the data have
        them, the pattern "none" puts them to the centre of the image as the other patterns do.

    Returns:
      The table; items are numbered sequence by sequence, in each first all plain windows, then all
      mirrored ones. That number is the global item index of a batch.

    Raises:
      ValueError: A window option is out of range, no window fits (`pad="drop"`), or what is to be
        hidden does not fit windows or skeleton.
    """
    if occlusion is not None:
        check_clips(occlusion, length, sequences.skeleton)
    members = sequences.sequences
    items = list_items(
        [s.num_frames for s in members], length=length, stride=stride, pad=pad, augment=augment
    )
    if not len(items):
        longest = max(s.num_frames for s in members)
        raise ValueError(f"length: no window of {length} fits, the longest has {longest} frames")

    def join(field: str) -> NDArray:
        return np.concatenate([np.asarray(getattr(s, field)) for s in members])

    def codes(field: str, legend: Sequence[str]) -> NDArray[np.int32]:
        code = {name: i for i, name in enumerate(legend)}
        return np.array([code[getattr(s, field)] for s in members], np.int32)

    cameras = jax.tree.map(lambda *leaves: np.stack(leaves), *(s.camera for s in members))
    both = jax.tree.map(
        lambda a, b: np.concatenate([a, np.asarray(b)]), cameras, flip_camera(cameras)
    )
    return ItemTable(
        items=items,
        length=length,
        offsets=np.cumsum([0, *(s.num_frames for s in members)]),
        skeleton=sequences.skeleton,
        keypoints_px=join("keypoints_px"),
        confidence=join("confidence"),
        cameras=both,
        subject=codes("subject", sequences.subjects),
        action=codes("action", sequences.actions),
        pose=None if members[0].pose is None else join("pose"),
        root=None if members[0].root is None else join("root"),
        occlusion=occlusion,
    )


def list_items(
    num_frames: Sequence[int],
    *,
    length: int = 1,
    stride: int | None = None,
    pad: str = "edge",
    augment: bool = False,
) -> NDArray[np.int32]:
    """The `items` of an `ItemTable` from the lengths of its sequences alone, `(M, 4)`.

    >>> list_items([2, 1], augment=True).tolist()
    [[0, 0, 1, 0], [0, 1, 2, 0], [0, 0, 1, 1], [0, 1, 2, 1], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    parts = []
    for sequence, frames in enumerate(num_frames):
        starts = window_starts(frames, length=length, stride=stride, pad=pad)
        for flip in (0, 1) if augment else (0,):
            columns = [np.full_like(starts, sequence), starts, starts, np.full_like(starts, flip)]
            columns[2] = np.minimum(starts + length, frames)
            parts.append(np.stack(columns, axis=1))
    return np.concatenate(parts).astype(np.int32)


def mirror(
    points: NDArray, flip_permutation: Sequence[int], *, width: NDArray | float = 0.0
) -> NDArray:
    """Mirrors `(..., J, C)` on the host: x becomes `width - x`, left and right change places.

    The NumPy side of `geometry.flip`, for pixels too.
    """
    swapped = points[..., list(flip_permutation), :]
    swapped[..., 0] = np.asarray(width - swapped[..., :1])[..., 0]
    return swapped


def centre_missing(pixels: NDArray, confidence: NDArray, size: Any) -> NDArray:
    """Puts joints of confidence 0 to the centre of the image, which is zero in screen units.

    Args:
      pixels: 2D joints, `(..., J, 2)`.
      confidence: `(..., J)`.
      size: Width and height, `(2,)` or such as broadcast.

    Returns:
      Like `pixels`.
    """
    centre = np.asarray(size, pixels.dtype) / 2
    return np.where(np.asarray(confidence)[..., None] > 0, pixels, centre)


def epoch_order(seed: int, epoch: int, num_items: int) -> NDArray[np.int64]:
    """The order of items in one epoch, a permutation that is a function of (seed, epoch).

    Args:
      seed: Not negative.
      epoch: Counted from 0.
      num_items: M.

    Returns:
      `(M,)`.

    Raises:
      ValueError: A number is negative.
    """
    if min(seed, epoch, num_items) < 0:
        raise ValueError(
            f"seed, epoch, num_items: expected at least 0, got {seed}, {epoch}, {num_items}"
        )
    rng = np.random.default_rng(np.random.SeedSequence((seed, epoch)))
    return rng.permutation(num_items)


def official_order(num_items: int, *, seed: int = 1234, epoch: int = 0) -> NDArray[np.int64]:
    """The order of the released code: permutation number `epoch` of `RandomState(1234)`.

    DiffuPose takes the first one in every epoch; with MixSTE, D3DP and DDHPose the stream goes on.
    With `list_items(..., augment=True)` it gives the batches of the authors' training scripts.
    """
    stream = np.random.RandomState(seed)
    for _ in range(epoch):
        stream.permutation(num_items)
    return stream.permutation(num_items)


def num_batches(table: ItemTable, batch_size: int, *, drop_last: bool = False) -> int:
    """Batches of one epoch.

    Raises:
      ValueError: `batch_size` is less than 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size: expected at least 1, got {batch_size}")
    whole, rest = divmod(table.num_items, batch_size)
    return whole + (rest > 0 and not drop_last)


def batches(
    table: ItemTable,
    *,
    batch_size: int,
    seed: int = 0,
    epoch: int = 0,
    start_step: int = 0,
    order: str = "shuffled",
    drop_last: bool = False,
) -> Iterator[PoseBatch]:
    """The batches of one epoch from `start_step` on; nothing but the arguments decides on them.

    All batches have `batch_size` rows, so that a jitted step compiles once. The last one is filled
    up with copies of its last item, whose mask is 0 in every frame; a copy carries the index of its
    item, so results may be put back by index as they are.

    Args:
      table: The items.
      batch_size: B.
      seed: For order "shuffled", and for what is hidden.
      epoch: Likewise.
      start_step: Batches of this epoch to skip.
      order: "shuffled" (`epoch_order`), "sequential" for evaluation, "official"
        (`official_order`, that of epoch 0), or "official_stream" (likewise, that of `epoch`).
      drop_last: Leave out a last batch that is not full.

    Returns:
      An iterator of batches with NumPy leaves, `(B, F, ...)`.

    Raises:
      ValueError: An option is out of range.
    """
    count = num_batches(table, batch_size, drop_last=drop_last)
    if not 0 <= start_step <= count:
        raise ValueError(f"start_step: expected 0 to {count}, got {start_step}")
    permutation = _order(order, table.num_items, seed, epoch)
    return (
        _padded(
            table,
            permutation[step * batch_size : (step + 1) * batch_size],
            batch_size,
            seed=seed,
            epoch=epoch,
        )
        for step in range(start_step, count)
    )


def endless_batches(
    table: ItemTable,
    *,
    batch_size: int,
    seed: int = 0,
    start_step: int = 0,
    order: str = "shuffled",
    drop_last: bool = False,
) -> Iterator[PoseBatch]:
    """Epoch after epoch of `batches`; `start_step` counts batches over all epochs.

    Args:
      table: The items.
      batch_size: B.
      seed: For order "shuffled", and for what is hidden.
      start_step: Batches of the whole run to skip.
      order: As for `batches`.
      drop_last: As for `batches`.

    Returns:
      An iterator without end.

    Raises:
      ValueError: An option is out of range, or an epoch has no batch.
    """
    count = num_batches(table, batch_size, drop_last=drop_last)
    if count == 0:
        raise ValueError(
            f"batch_size: expected at most {table.num_items} with drop_last, got {batch_size}"
        )
    if start_step < 0:
        raise ValueError(f"start_step: expected at least 0, got {start_step}")
    first, skip = divmod(start_step, count)
    _order(order, 0, seed, first)

    def epochs() -> Iterator[Iterator[PoseBatch]]:
        for epoch in itertools.count(first):
            yield batches(
                table,
                batch_size=batch_size,
                seed=seed,
                epoch=epoch,
                start_step=skip if epoch == first else 0,
                order=order,
                drop_last=drop_last,
            )

    return itertools.chain.from_iterable(epochs())


def _order(order: str, num_items: int, seed: int, epoch: int) -> NDArray[np.int64]:
    if order == "shuffled":
        return epoch_order(seed, epoch, num_items)
    if order == "sequential":
        return np.arange(num_items)
    if order == "official":
        return official_order(num_items)
    if order == "official_stream":
        return official_order(num_items, epoch=epoch)
    raise ValueError(f"order: expected one of {ORDERS}, got {order!r}")


def _padded(
    table: ItemTable, index: NDArray, batch_size: int, *, seed: int, epoch: int
) -> PoseBatch:
    real = len(index)
    rows = np.pad(index, (0, batch_size - real), mode="edge")
    batch = table.gather(rows, stream="train", seed=seed, epoch=epoch)
    batch.mask[real:] = 0.0
    return batch
