"""Cut and changed model files become a program or one of two errors: no crash, no hang."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.safectl.export.importers.fuzz_child import CUTS
from tests.unit.safectl.export.importers.model_files import FOLDER

CHANGED = 500
FILES = (
    "keras2_gru.h5",
    "keras3_nested.keras",
    "torch_convolutions_old.onnx",
    "torch_gru.onnx",
    "tflite_conv2d.tflite",
    "tflite_joined_int8.tflite",
)
TIMEOUT_S = 1200.0


def outcomes(name, first, count):
    child = Path(__file__).with_name("fuzz_child.py")
    arguments = [sys.executable, str(child), str(FOLDER / name), str(first), str(count)]
    done = subprocess.run(arguments, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads(done.stdout)


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_refused(name):
    assert outcomes(name, 0, CUTS) == {"refused": CUTS}


@pytest.mark.slow
@pytest.mark.timeout(TIMEOUT_S)
@pytest.mark.parametrize("name", FILES)
def test_a_changed_file_is_refused_or_a_valid_program(name):
    found = outcomes(name, CUTS, CHANGED)
    assert sum(found.values()) == CHANGED
    assert found["refused"] > 0
