"""The README's Python runs, and its commands name what is there."""

import importlib.util
import re
from pathlib import Path

import numpy as np

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
