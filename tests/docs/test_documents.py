"""Every Python block of the READMEs runs, every link leads somewhere, every export exists."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "envs/*.md", "hardware/*.md", "launch/*.md")
    for path in ROOT.glob(pattern)
)
BLOCKS = [
    pytest.param(block, id=f"{path.relative_to(ROOT)}:{number}")
    for path in DOCUMENTS
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL))
]
PACKAGES = ["safectl", "safectl_envs", "safectl_agents", "safectl_hardware", "safectl_ros"]
MODULES = [
    info.name
    for package in PACKAGES
    for info in pkgutil.walk_packages(importlib.import_module(package).__path__, f"{package}.")
]


@pytest.mark.parametrize("block", BLOCKS)
def test_readme_block_runs(block, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README block", "exec"), {"__name__": "__main__"})  # noqa: S102  our text


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(path):
    text = re.sub(r"```.*?```", "", path.read_text(), flags=re.DOTALL)
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", text)
    missing = [t for t in targets if "://" not in t and not (path.parent / t).exists()]
    assert missing == []


@pytest.mark.parametrize("name", [*PACKAGES, *MODULES])
def test_exports_exist_and_doctests_hold(name):
    module = importlib.import_module(name)
    absent = [export for export in getattr(module, "__all__", []) if not hasattr(module, export)]
    assert absent == []
    assert doctest.testmod(module, verbose=False).failed == 0


def test_readme_has_a_short_example_and_both_commands():
    text = (ROOT / "README.md").read_text()
    block = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert block
    assert len(block.group(1).splitlines()) <= 12
    assert "make demo" in text
    assert "make test" in text
