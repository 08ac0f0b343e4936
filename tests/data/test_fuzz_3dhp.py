"""Broken files of MPI-INF-3DHP in all layouts: the same data, others, or a ValueError."""

import shutil

import numpy as np
import pytest

from posediff_jax.data import load_mpi_inf_3dhp_test, load_mpi_inf_3dhp_train
from tests import fakes
from tests.data.test_fuzz import JUNK, entries, equal, packed, places, rewrite, with_value

NPZ = ("data_train_3dhp_ori.npz", "data_test_3dhp_ori.npz")
# Version 5, text, and version 7.3.
ORIGINAL = ("S1/Seq1/annot.mat", "S1/Seq1/camera.calibration", "TS1/annot_data.mat")


def load(folder, name):
    """What one camera, or one test sequence, gives."""
    if "test" in name or name.startswith("TS"):
        return load_mpi_inf_3dhp_test(folder, sequences=("TS1",)).views
    return load_mpi_inf_3dhp_train(folder, subjects=("S1",), cameras=(0,))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Of npz files and of originals, whole."""
    made = {kind: tmp_path_factory.mktemp(kind) for kind in ("npz", "mat")}
    fakes.write_fake_3dhp_npz(made["npz"], frames=3)
    fakes.write_fake_3dhp_mat(made["mat"], tests=("TS1",), frames=3)
    return made


@pytest.fixture
def replaced(folders, tmp_path):
    """`(name, whole bytes) -> run`, where `run(bytes)` loads with that file replaced.

    "same", "other" if finite, or the error's text.
    """

    def prepare(name):
        source = folders["npz" if name in NPZ else "mat"]
        folder = shutil.copytree(source, tmp_path / "copy")
        whole, expected = (folder / name).read_bytes(), load(folder, name)

        def run(data):
            (folder / name).write_bytes(data)
            try:
                found = load(folder, name)
            except ValueError as error:
                return str(error)
            if equal(found, expected):
                return "same"
            assert all(
                np.isfinite(getattr(s, field)).all()
                for s in found.sequences
                for field in ("pose", "root", "keypoints_px")
            )
            return "other"

        return whole, run

    return prepare


@pytest.mark.parametrize("name", [*NPZ, *ORIGINAL])
def test_truncated_files_are_errors_that_name_the_file(name, replaced):
    whole, run = replaced(name)
    found = [run(whole[:end]) for end in np.linspace(0, len(whole) - 1, 8).astype(int)]
    if name.endswith("calibration"):
        # Text may end early: behind the camera that is asked for nothing is missed.
        found = [outcome for outcome in found if outcome != "same"]
    assert found
    assert all(name in outcome for outcome in found), found


@pytest.mark.parametrize("name", [*NPZ, *ORIGINAL])
def test_files_with_altered_bytes_hold_data_or_are_errors_that_name_the_file(name, replaced):
    """An npz has checksums; without them altered numbers cannot be told from others."""
    whole, run = replaced(name)
    allowed = ("same",) if name in NPZ else ("same", "other")
    rng = np.random.default_rng(0)
    for _ in range(8):
        broken = bytearray(whole)
        # Mostly what comes first: headers.
        for at in rng.integers(len(whole) if rng.random() < 0.5 else 600, size=3):
            broken[at] = rng.integers(256)
        outcome = run(bytes(broken))
        assert outcome in allowed or name in outcome, outcome


@pytest.mark.parametrize("name", NPZ)
def test_altered_pickles_under_right_checksums_are_data_or_errors(name, replaced):
    whole, run = replaced(name)
    rng = np.random.default_rng(1)

    def change(member, data):
        broken = bytearray(data)
        for at in rng.integers(min(600, len(data)), size=2):
            broken[at] = rng.integers(256)
        return bytes(broken)

    found = [run(rewrite(whole, change)) for _ in range(8)]
    errors = [outcome for outcome in found if outcome not in ("same", "other")]
    assert errors
    assert all(name in error or "sequence " in error for error in errors), errors


@pytest.mark.parametrize("name", NPZ)
def test_altered_structure_is_an_error_that_names_the_file(name, replaced):
    whole, run = replaced(name)
    values = entries(whole)
    read = {NPZ[0]: ("S1 Seq1", "0"), NPZ[1]: ("TS1", "")}[name]
    # Other takes, and other cameras, are not asked for.
    paths = [p for p in places(values) if p[1:2] == read[:1] and (len(p) < 4 or p[3] == read[1])]
    found = [
        run(packed(with_value(values, path, JUNK[(3 * i + j) % len(JUNK)])))
        for i, path in enumerate(paths)
        for j in range(3)
    ]
    assert len(found) >= 12
    assert all(outcome == "same" or name in outcome for outcome in found), found
    assert sum(outcome != "same" for outcome in found) >= 10
