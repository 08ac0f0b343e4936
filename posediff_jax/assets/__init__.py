"""The weights that come with the package: a pose prior and its anchors, with a card beside them."""

from importlib import resources

from posediff_jax.data.anchors import Anchors, read_anchors
from posediff_jax.prior_file import PriorFile, read_prior
from posediff_jax.skeleton import get_skeleton

PRIOR = "zedo_prior.npz"
# By the number of hypotheses that they were made for: K-Means with so many clusters.
ANCHORS = {1: "zedo_anchors_1.npz", 10: "zedo_anchors_10.npz", 50: "zedo_anchors_50.npz"}

_HOW = (
    "Make it from a checkout: python -m experiments.train --config=configs/zedo_prior_cmu.py "
    "--config.data.root=DIR --workdir=RUN, python -m experiments.anchors for 1, 10 and 50 anchors, "
    "and python -m experiments.export_assets; or give a checkpoint and anchors of your own"
)


class MissingAssetError(FileNotFoundError):
    """This installation was built without weights."""


def load_prior() -> PriorFile:
    """The pose prior.

    Raises:
      MissingAssetError: It is not there; the message says how to make it.
      ValueError: The file is damaged.
    """
    with resources.as_file(resources.files(__package__) / PRIOR) as path:
        if not path.is_file():
            raise MissingAssetError(f"assets/{PRIOR}: not in this installation. {_HOW}")
        return read_prior(path)


def load_anchors(num_hypotheses: int, *, skeleton: str = "h36m_17") -> Anchors:
    """The anchors made for a number of hypotheses, or the next larger number there is.

    Args:
      num_hypotheses: At least 1; fewer than the file holds use its first, for most poses.
      skeleton: Name of the joint order they must have.

    Raises:
      MissingAssetError: They are not there; the message says how to make them.
      ValueError: More hypotheses than there are anchors, or the file is damaged.
    """
    enough = [size for size in ANCHORS if size >= num_hypotheses]
    if not enough or num_hypotheses < 1:
        raise ValueError(
            f"hypotheses: expected 1 to {max(ANCHORS)}, the anchors there are, got {num_hypotheses}"
        )
    name = ANCHORS[min(enough)]
    with resources.as_file(resources.files(__package__) / name) as path:
        if not path.is_file():
            raise MissingAssetError(f"assets/{name}: not in this installation. {_HOW}")
        return read_anchors(path, get_skeleton(skeleton), num_anchors=num_hypotheses)
