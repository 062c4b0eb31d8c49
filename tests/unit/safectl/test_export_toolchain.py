"""Finding the programs that builds and flashing call."""

import sys
from pathlib import Path

import pytest

from safectl.errors import MissingTool
from safectl.export.toolchain import find_tool


def test_a_tool_beside_this_python_is_found_without_a_search_path(monkeypatch):
    monkeypatch.setenv("PATH", "")
    python = Path(sys.executable)
    assert Path(find_tool(python.name, "")) == python


def test_a_tool_on_the_search_path_comes_first(monkeypatch, tmp_path):
    fake = tmp_path / Path(sys.executable).name
    fake.touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert Path(find_tool(fake.name, "")) == fake


def test_a_missing_tool_names_its_package():
    with pytest.raises(MissingTool, match="a-package"):
        find_tool("no-such-tool", "a-package")
