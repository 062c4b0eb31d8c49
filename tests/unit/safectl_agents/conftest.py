"""Small worlds for the tests of training and evaluation."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for slide.py, also in child processes


@pytest.fixture(scope="session", autouse=True)
def _registered():
    import slide

    slide.register()
