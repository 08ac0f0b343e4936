"""The README's Python runs, and its commands name what is there."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import posediff_jax
from tests.test_lifter import save

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def snippet(words):
    (code,) = [s for s in SNIPPETS if words in s]
    return code


def test_the_sampler_snippet_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(snippet("sample_ddim"), "README.md", "exec"), names)
    assert names["poses"].shape == (50, 17, 3)
    # The joints that are less certain spread more.
    spread = names["pd"].joint_spread(names["poses"], axis=0)
    assert spread[-1] > 5 * spread[0]
    assert (tmp_path / "spread.png").exists()


def test_the_lifter_snippet_runs(tmp_path, monkeypatch):
    save(tmp_path / "runs" / "diffupose_cmu")
    monkeypatch.chdir(tmp_path)
    names = {"keypoints": np.random.default_rng(0).uniform(100, 900, (4, 17, 2))}
    exec(compile(snippet("posediff_jax.load"), "README.md", "exec"), names)
    result = names["result"]
    shapes = [np.shape(x) for x in (result.poses, result.pose, result.spread)]
    assert shapes == [(50, 4, 17, 3), (4, 17, 3), (4, 17)]


@pytest.mark.slow
def test_the_lifting_snippet_runs_with_the_weights_of_the_package(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = {"posediff_jax": posediff_jax}
    exec(compile(snippet("posediff_jax.lift("), "README.md", "exec"), names)
    walking, reaching = names["people"]
    for person in (walking, reaching):
        assert person.pose.shape == (60, 17, 3)
        assert person.poses.shape == (10, 60, 17, 3)
        assert person.valid.all()
        # y is down, and the wanted height is theirs.
        extent = person.pose[..., 1].max(axis=1) - person.pose[..., 1].min(axis=1)
        assert 1.3 < np.median(extent) < 1.75
    # Where the example has them, but that the focal length was guessed.
    assert walking.root[:, 0].mean() < 0 < reaching.root[:, 0].mean()
    assert 4 < np.median(walking.root[:, 2]) < 9


def test_snippets_that_need_pytorch_import_what_is_there():
    lines = [
        line
        for line in snippet("import torch").splitlines()
        if re.match("(from|import) posediff", line)
    ]
    assert len(lines) == 3
    exec("\n".join(lines), {})


def test_commands_name_modules_and_files_that_exist():
    for module in re.findall(r"python -m ((?:experiments|tests)\.\w+)", README):
        assert importlib.util.find_spec(module), module
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).exists(), picture
