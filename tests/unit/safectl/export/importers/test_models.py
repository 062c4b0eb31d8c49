"""Every recorded model file gives what its own framework gives."""

import numpy as np
import pytest

from safectl.export import load_program, replay, save_program
from safectl.export.importers import import_model
from safectl.export.importers.tflite_files import read_tflite
from tests.unit.safectl.export.importers.model_files import FILES, examples

FLOAT_ERROR = 1e-5  # absolute; the recorded outputs are below 10
WHOLE_STEPS = {"tflite_joined_int8": 2}  # sums and products of integers are float here


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_a_program_returns_what_its_framework_returns(path, tmp_path):
    program = import_model(path, name="model")
    inputs, outputs = examples(path)
    save_program(program, tmp_path / "program")
    result = replay(load_program(tmp_path / "program"), inputs).action
    assert result.shape == outputs.shape
    assert np.abs(result - outputs).max() <= tolerance(path)


def tolerance(path):
    if "int8" not in path.name:
        return FLOAT_ERROR
    file = read_tflite(path, path.read_bytes())
    step = file.tensors[file.outputs[0]].quantisation.scale.item()
    return FLOAT_ERROR + WHOLE_STEPS.get(path.stem, 0) * step


def test_the_recorded_files_are_small():
    assert all(path.stat().st_size < 50_000 for path in FILES)
    assert sum(path.stat().st_size for path in FILES) < 1_000_000
