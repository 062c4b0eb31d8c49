"""Imported model files: C on the host equals the interpreter bit for bit."""

import pytest

from safectl.export import verify
from safectl.export.importers import import_model
from tests.unit.safectl.export.importers.model_files import FOLDER

FILES = (
    "keras2_activations.h5",
    "keras2_conv1d.h5",
    "keras3_recurrent.keras",
    "keras3_two_doors.keras",
    "torch_convolutions.onnx",
    "torch_parts.onnx",
    "tflite_conv2d.tflite",
    "tflite_joined_int8.tflite",
)


@pytest.mark.parametrize("name", FILES)
def test_an_imported_model_runs_in_c_as_in_the_interpreter(name):
    assert verify(import_model(FOLDER / name, name="net"), rows=200).rows == 200
