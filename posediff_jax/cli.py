"""The command `posediff-lift`: arguments only, the work is in `lifting`."""

import argparse
import re
import sys
from collections.abc import Sequence

from posediff_jax.data.keypoints import LAYOUTS
from posediff_jax.lift_engine import RULES, SCALES, LiftOptions
from posediff_jax.lifting import lift_to_folder


def main(argv: Sequence[str] | None = None) -> int:
    """Lifts a file of keypoints into a folder; the exit status is 1 where that is refused."""
    given = _parser().parse_args(argv)
    try:
        lift_to_folder(
            given.keypoints,
            given.out,
            image_size=given.image_size,
            layout=given.layout,
            camera=given.camera,
            options=LiftOptions(
                hypotheses=given.hypotheses,
                height=given.height,
                scale=given.scale,
                rule=given.rule,
                warm_start=given.warm_start,
                batch_size=given.batch_size,
            ),
            min_confidence=given.min_confidence,
            checkpoint=given.checkpoint,
            anchors=given.anchors,
            overwrite=given.overwrite,
            pictures=not given.no_pictures,
            fps=given.fps,
        )
    # What a user can mend is said in a line; anything else is a fault of ours and shows where.
    except (ValueError, OSError) as error:
        print(f"posediff-lift: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="posediff-lift",
        description="Lifts 2D keypoints to 3D: for each person an npz, a picture, an animation.",
        epilog="Called again with the same arguments it lifts the people who are not there yet.",
    )
    add = parser.add_argument
    add("keypoints", help=".npz or .json file (AlphaPose, OpenPose, MMPose), or OpenPose's folder")
    add("--image-size", type=_size, metavar="WxH", help="of the images, in pixels")
    add("--out", required=True, metavar="DIR", help="where results go")
    add("--layout", metavar="NAME", help=f"joint order, if the file does not say: {LAYOUTS}")
    add("--camera", metavar="K.json", help="intrinsics; by default the focal length is guessed")
    add(
        "--hypotheses",
        type=int,
        default=10,
        metavar="H",
        help="default 10, at most 50 (best: 1, 10, 50)",
    )
    add("--height", type=float, metavar="M", help="of the people, in metres")
    add("--scale", choices=SCALES, default="sequence", help="what --height sets")
    add("--rule", choices=RULES, default=LiftOptions.rule, help="how one hypothesis is chosen")
    add("--warm-start", action="store_true", help="start also from the frame before")
    add("--min-confidence", type=float, default=0.1, metavar="C", help="less is missing")
    add("--checkpoint", metavar="DIR", help="a prior of your own: a run's folder or an .npz")
    add("--anchors", metavar="FILE", help="its anchors, by experiments.anchors")
    add("--batch-size", type=int, default=0, metavar="B", help="frames in memory at a time")
    add("--fps", type=float, default=25.0, help="of the video, for the animation")
    add("--overwrite", action="store_true", help="replace results of other input or options")
    add("--no-pictures", action="store_true", help="write the npz only")
    return parser


def _size(text: str) -> tuple[int, int]:
    found = re.fullmatch(r"(\d+)[xX,](\d+)", text.strip())
    if not found:
        raise argparse.ArgumentTypeError(f"expected WxH, such as 1920x1080, got {text!r}")
    return int(found[1]), int(found[2])


if __name__ == "__main__":
    sys.exit(main())
