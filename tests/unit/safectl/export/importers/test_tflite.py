"""TFLite files: quantised layers keep the integers of the file; the rest is refused by name."""

import flatbuffers
import numpy as np
import pytest
import tflite

from safectl.errors import FileFormatError
from safectl.export import interpret
from safectl.export.importers import import_model
from safectl.export.importers.tflite_files import read_tflite
from tests.unit.safectl.export.importers.model_files import FOLDER, examples


def stored(file, dtype):
    """All constants of a number format with more than one axis, as sorted lists."""
    found = (tensor.stored for tensor in file.tensors if tensor.stored is not None)
    return sorted(sorted(x.ravel().tolist()) for x in found if x.dtype == dtype and x.ndim > 1)


@pytest.mark.parametrize("name", ["mlp", "steps", "conv2d"])
def test_the_weights_of_a_quantised_model_are_the_integers_of_its_file(name):
    path = FOLDER / f"tflite_{name}_int8.tflite"
    program = import_model(path, name="net")
    tables = (a for a in program.constants.values() if a.dtype == np.int8 and a.ndim > 1)
    weights = [table for table in tables if not (table == 1).all()]  # those of a mean are ours
    expected = stored(read_tflite(path, path.read_bytes()), np.dtype("i1"))
    assert sorted(sorted(weight.ravel().tolist()) for weight in weights) == expected


@pytest.mark.parametrize("name", ["mlp", "steps"])
def test_a_network_of_integer_layers_returns_the_integers_of_the_tflite_interpreter(name):
    path = FOLDER / f"tflite_{name}_int8.tflite"
    file = read_tflite(path, path.read_bytes())
    form = file.tensors[file.outputs[0]].quantisation
    inputs, outputs = examples(path)
    result = interpret(import_model(path, name="net"), inputs).action
    assert np.array_equal(np.rint(result / form.scale), np.rint(outputs / form.scale))


def test_values_beyond_the_calibration_are_limited_as_integers_are():
    path = FOLDER / "tflite_mlp_int8.tflite"
    program = import_model(path, name="net")
    file = read_tflite(path, path.read_bytes())
    form = file.tensors[file.outputs[0]].quantisation
    result = interpret(program, np.full((1, 36), 1e6, np.float32)).action
    low, high = form.real(np.array([-128, 127]))
    assert (low - 1e-6 <= result).all()
    assert (result <= high + 1e-6).all()


def test_the_limit_inside_an_lstm_is_kept():
    program = import_model(FOLDER / "tflite_lstm.tflite", name="net")
    (lstm,) = (op for op in program.ops if op.kind == "lstm")
    assert lstm.detail.cell_limit == 10.0


def test_a_file_with_two_graphs_is_refused(tmp_path):
    builder = flatbuffers.Builder(64)
    graphs = []
    for _ in range(2):
        tflite.SubGraphStart(builder)
        graphs.append(tflite.SubGraphEnd(builder))
    tflite.ModelStartSubgraphsVector(builder, len(graphs))
    for graph in graphs:
        builder.PrependUOffsetTRelative(graph)
    vector = builder.EndVector()
    tflite.ModelStart(builder)
    tflite.ModelAddSubgraphs(builder, vector)
    builder.Finish(tflite.ModelEnd(builder), b"TFL3")
    path = tmp_path / "two.tflite"
    path.write_bytes(builder.Output())
    with pytest.raises(FileFormatError, match="holds 2 graphs"):
        import_model(path, name="net")
