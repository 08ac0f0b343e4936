"""The README's Python runs, and its commands name what is there."""

import importlib.util
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("code", [s for s in SNIPPETS if "import torch" not in s])
def test_python_snippets_run(code, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["poses"].shape == (50, 17, 3)
    # The joints that are less certain spread more.
    spread = names["pd"].joint_spread(names["poses"], axis=0)
    assert spread[-1] > 5 * spread[0]
    assert (tmp_path / "spread.png").exists()


def test_snippets_that_need_pytorch_import_what_is_there():
    (code,) = [s for s in SNIPPETS if "import torch" in s]
    lines = [line for line in code.splitlines() if re.match("(from|import) posediff", line)]
    assert len(lines) == 3
    exec("\n".join(lines), {})


def test_commands_name_modules_and_files_that_exist():
    for module in re.findall(r"python -m ((?:experiments|tests)\.\w+)", README):
        assert importlib.util.find_spec(module), module
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (ROOT / picture).exists(), picture
