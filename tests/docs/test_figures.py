"""The page of figures says what the recorded results say."""

import importlib.util
from pathlib import Path


def load_figures():
    path = Path(__file__).with_name("figures.py")
    spec = importlib.util.spec_from_file_location("figures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_of_figures_is_that_of_the_recorded_results():
    figures = load_figures()
    assert figures.PAGE.read_text() == figures.page(), "run: make figures"
