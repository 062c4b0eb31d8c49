"""Keras files: what the compiler nn4mc fails on, and options that change the meaning of a layer."""

import io
import json
import zipfile

import h5py
import numpy as np
import pytest

from safectl.errors import UnsupportedLayer
from safectl.export import interpret, replay
from safectl.export.arithmetic import sigmoid
from safectl.export.importers import import_model
from tests.unit.safectl.export.importers.graph_reference import function
from tests.unit.safectl.export.importers.model_files import FOLDER, examples

FLOAT_ERROR = 1e-5  # absolute

NN4MC = {
    # What nn4mc 0.3.0 does with such a file, and a file of ours of that kind.
    "dense 36-10-5-3 of Keras 2: C does not compile": "keras2_mlp.h5",
    "functional one-layer dense: C does not compile": "keras2_functional.h5",
    "Flatten first: C does not compile": "keras2_flatten.h5",
    "Conv1D and MaxPool1D: wrong size": "keras2_conv1d.h5",
    "GRU: C does not compile": "keras2_gru.h5",
    "LSTM: KeyError": "keras2_lstm.h5",
    "SimpleRNN: KeyError": "keras2_recurrent.h5",
    "Conv2D and MaxPool2D: never returns": "keras2_conv2d.h5",
    "Activation layer and swish: KeyError": "keras2_activations.h5",
    "Dropout: KeyError": "keras2_two_doors.h5",
    "h5 of Keras 3: KeyError": "keras3_mlp.h5",
    "archive of Keras 3: OSError": "keras3_mlp.keras",
}


@pytest.mark.parametrize("name", NN4MC.values(), ids=NN4MC.keys())
def test_what_nn4mc_cannot_compile_is_imported(name):
    inputs, outputs = examples(FOLDER / name)
    result = interpret(import_model(FOLDER / name, name="net"), inputs).action
    assert np.abs(result - outputs).max() <= FLOAT_ERROR


def one_layer(tmp_path, layer, shape=(4,), version="3.0.0"):
    """An archive of one layer, without weights."""
    config = {"name": "only", "trainable": True, **layer["config"]}
    doors = {"class_name": "InputLayer", "config": {"batch_shape": [None, *shape], "name": "in"}}
    layers = [doors, {"class_name": layer["class_name"], "config": config}]
    model = {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}
    path = tmp_path / "one.keras"
    weights = io.BytesIO()
    h5py.File(weights, "w").close()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": version}))
        archive.writestr("config.json", json.dumps(model))
        archive.writestr("model.weights.h5", weights.getvalue())
    return path


X = np.linspace(-7.0, 7.0, 24).reshape(6, 4).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "config", "expected"),
    [
        ("Activation", {"activation": "relu6"}, lambda x: np.clip(x, 0.0, 6.0)),
        ("Activation", {"activation": "leaky_relu"}, lambda x: np.where(x < 0, 0.2 * x, x)),
        ("Activation", {"activation": "linear"}, lambda x: x),
        ("ReLU", {"max_value": None, "negative_slope": 0.3}, lambda x: np.where(x < 0, 0.3 * x, x)),
        ("ReLU", {"max_value": 2.0}, lambda x: np.clip(x, 0.0, 2.0)),
        ("ELU", {"alpha": 0.5}, lambda x: np.where(x < 0, 0.5 * np.expm1(np.minimum(x, 0)), x)),
        ("Softmax", {"axis": -1}, lambda x: function("softmax", x)),
        (
            "Rescaling",
            {"scale": 2.0, "offset": [1.0, 2.0, 3.0, 4.0]},
            lambda x: 2 * x + [1, 2, 3, 4],
        ),
        ("RepeatVector", {"n": 2}, lambda x: np.tile(x, 2)),
        ("SpatialDropout1D", {"rate": 0.5}, lambda x: x),
        ("ActivityRegularization", {"l1": 0.5}, lambda x: x),
    ],
)
def test_a_layer_without_weights_means_what_keras_documents(kind, config, expected, tmp_path):
    path = one_layer(tmp_path, {"class_name": kind, "config": config})
    result = interpret(import_model(path, name="net"), X).action
    assert np.allclose(result, expected(X.astype(np.float64)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("version", "slope"), [("2.15.0", 0.2), ("3.0.0", 1.0 / 6.0)])
def test_hard_sigmoid_means_what_the_version_of_the_file_means(version, slope, tmp_path):
    layer = {"class_name": "Activation", "config": {"activation": "hard_sigmoid"}}
    program = import_model(one_layer(tmp_path, layer, version=version), name="net")
    expected = np.clip(slope * X + 0.5, 0.0, 1.0)
    assert np.allclose(interpret(program, X).action, expected, rtol=0.0, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "config", "message"),
    [
        ("ReLU", {"threshold": 1.0}, "threshold=1.0"),
        ("Softmax", {"axis": 0}, r"axis \[0\]"),
        ("Flatten", {"data_format": "channels_first"}, "data_format='channels_first'"),
        ("LSTM", {"units": 2, "return_state": True}, "return_state=True"),
        ("Conv1D", {"filters": 1, "kernel_size": [2]}, r"an input of shape \(4,\)"),
        ("Normalization", {"invert": True}, "invert=True"),
        ("Concatenate", {"axis": 0}, "along the batch"),
        ("Concatenate", {"axis": -2}, "along the batch"),
        ("RepeatVector", {"n": 1 << 30}, "n=1073741824"),
        ("Bidirectional", {"layer": {"class_name": "Dense", "config": {}}}, "around Dense"),
    ],
)
def test_an_option_that_would_be_lost_is_refused(kind, config, message, tmp_path):
    path = one_layer(tmp_path, {"class_name": kind, "config": config})
    with pytest.raises(UnsupportedLayer, match=message):
        import_model(path, name="net")


def test_a_stateful_layer_keeps_its_state_until_the_program_is_reset(tmp_path):
    path = tmp_path / "stateful.keras"
    with zipfile.ZipFile(FOLDER / "keras3_gru.keras") as source, zipfile.ZipFile(path, "w") as to:
        for member in source.namelist():
            content = source.read(member)
            if member == "config.json":
                content = content.replace(b'"stateful": false', b'"stateful": true')
            to.writestr(member, content)
    program, plain = (
        import_model(file, name="net") for file in (path, FOLDER / "keras3_gru.keras")
    )
    inputs, _ = examples(FOLDER / "keras3_gru.keras")
    first, second = replay(program, np.stack([inputs[0]] * 2)).action
    assert np.array_equal(first, interpret(plain, inputs[:1]).action[0])
    assert not np.array_equal(first, second)


SLOPES = {"leaky_relu": lambda x: np.where(x < 0, 0.2 * x, x), "elu": lambda x: function("elu", x)}
CELLS = {
    "SimpleRNN": (1, lambda act, gate, x: act(x)),
    "GRU": (3, lambda act, gate, x: (1.0 - gate(x)) * act(x)),
    "LSTM": (4, lambda act, gate, x: gate(x) * act(gate(x) * act(x))),
}


def keras2_cell(tmp_path, kind, **options):
    """One unit that reads one number; every weight is one, there is no bias."""
    config = {"name": "cell", "units": 1, "use_bias": False, "batch_input_shape": [None, 1, 1]}
    config["recurrent_activation"] = "sigmoid"
    layers = [{"class_name": kind, "config": {**config, **options}}]
    model = {"class_name": "Sequential", "config": {"name": "model", "layers": layers}}
    path = tmp_path / "cell.h5"
    with h5py.File(path, "w") as file:
        file.attrs.update(model_config=json.dumps(model), keras_version="2.15.0", backend="tf")
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = [b"cell"]
        layer = weights.create_group("cell")
        layer.attrs["weight_names"] = [b"cell/c/kernel:0", b"cell/c/recurrent_kernel:0"]
        for name in layer.attrs["weight_names"]:
            layer[name] = np.ones((1, CELLS[kind][0]), np.float32)
    return path


@pytest.mark.parametrize("name", SLOPES)
@pytest.mark.parametrize("kind", CELLS)
def test_a_recurrent_layer_keeps_the_slope_of_its_activation(kind, name, tmp_path):
    program = import_model(keras2_cell(tmp_path, kind, activation=name), name="net")
    x = np.array([[-1.0], [-0.3], [0.5]], np.float32)
    expected = CELLS[kind][1](SLOPES[name], sigmoid, x)
    assert np.abs(interpret(program, x).action - expected).max() <= FLOAT_ERROR
    assert expected[0, 0] < -0.001


def test_two_slopes_in_one_recurrent_layer_are_refused(tmp_path):
    options = {"activation": "leaky_relu", "recurrent_activation": "elu"}
    with pytest.raises(
        UnsupportedLayer, match=r"layer cell \(LSTM: activations leaky_relu and elu"
    ):
        import_model(keras2_cell(tmp_path, "LSTM", **options), name="net")


def test_an_archive_keeps_the_slope_of_a_recurrent_activation(tmp_path):
    path = tmp_path / "sloped.keras"
    with zipfile.ZipFile(FOLDER / "keras3_gru.keras") as source, zipfile.ZipFile(path, "w") as to:
        for member in source.namelist():
            content = source.read(member)
            if member == "config.json":
                content = content.replace(b'"activation": "tanh"', b'"activation": "elu"')
            to.writestr(member, content)
    cells = [op for op in import_model(path, name="net").ops if op.kind == "gru"]
    assert [(op.activation, op.alpha) for op in cells] == [("elu", 1.0)] * len(cells)
    assert cells
