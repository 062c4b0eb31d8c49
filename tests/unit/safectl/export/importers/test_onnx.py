"""ONNX operators one by one against the reference evaluator of the onnx package."""

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from safectl.errors import FileFormatError, UnsupportedLayer
from safectl.export import interpret
from safectl.export.importers import import_model
from tests.unit.safectl.export.importers.graph_reference import function

FLOAT_ERROR = 2e-6  # relative above one, absolute below


def draw(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def ints(*numbers):
    return np.array(numbers, np.int64)


def node(kind, *constants, **attributes):
    """A node that reads `x` and then constants; None is an absent input."""
    return kind, constants, attributes


def model(nodes, shape, opset=20, outputs=("y",)):
    """Chain nodes: each reads what the one before wrote, the last one writes `y`."""
    made, stored = [], []
    for number, (kind, constants, attributes) in enumerate(nodes):
        names = [f"x{number}"]
        for place, constant in enumerate(constants):
            names.append("" if constant is None else f"c{number}_{place}")
            if constant is not None:
                stored.append(numpy_helper.from_array(constant, names[-1]))
        is_last = number == len(nodes) - 1
        written = list(outputs) if is_last else [f"x{number + 1}"]
        made.append(helper.make_node(kind, names, written, name=kind, **attributes))
    door = helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape)
    exits = [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs if n]
    graph = helper.make_graph(made, "net", [door], exits, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])


def both(tmp_path, nodes, shape, **options):
    """What the program and the reference evaluator return for one row."""
    proto = model(nodes, shape, **options)
    path = tmp_path / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    x = np.random.default_rng(1).normal(0.0, 2.0, shape).astype(np.float32)
    program = import_model(path, name="net")
    result = interpret(program, x.reshape(1, -1)).action[0]
    expected = ReferenceEvaluator(proto).run(None, {"x0": x})
    return result, np.concatenate([part.reshape(-1) for part in expected])


IMAGE, ROW, SEQUENCE = (1, 3, 6, 5), (1, 6), (1, 4, 7)
CASES = {
    "Gemm": ([node("Gemm", draw(6, 4), draw(4), alpha=2.0, beta=0.5)], ROW),
    "Gemm transposed": ([node("Gemm", draw(4, 6), transB=1)], ROW),
    "MatMul over rows": ([node("MatMul", draw(7, 3)), node("Add", draw(3))], SEQUENCE),
    "Sub": ([node("Sub", draw(1, 6))], ROW),
    "Mul per channel": ([node("Mul", draw(3, 1, 1))], IMAGE),
    "Add per entry": ([node("Add", draw(3, 6, 5))], IMAGE),
    "Add that repeats": ([node("Add", draw(4, 6))], ROW),
    "Div": ([node("Div", np.float32([[1, 2, 3, 4, 5, 6]]))], ROW),
    "Neg": ([node("Neg")], ROW),
    "activations": (
        [
            node("LeakyRelu", alpha=0.1),
            node("Elu", alpha=0.7),
            node("Selu"),
            node("Softplus"),
            node("Softsign"),
            node("Tanh"),
        ],
        ROW,
    ),
    "HardSigmoid": ([node("HardSigmoid", alpha=0.3, beta=0.4)], ROW),
    "HardSwish": ([node("HardSwish")], ROW),
    "Gelu": ([node("Gelu")], ROW),
    "Gelu near": ([node("Gelu", approximate="tanh")], ROW),
    "Sigmoid, Exp": ([node("Sigmoid"), node("Exp")], ROW),
    "Clip below": ([node("Clip", np.float32(-0.5))], ROW),
    "Clip above": ([node("Clip", None, np.float32(0.5))], ROW),
    "PRelu": ([node("PRelu", draw(3, 1, 1))], IMAGE),
    "Softmax of channels": ([node("Softmax", axis=1)], IMAGE),
    "Softmax last": ([node("Softmax")], SEQUENCE),
    "BatchNormalization": (
        [node("BatchNormalization", draw(3), draw(3), draw(3), draw(3) ** 2)],
        IMAGE,
    ),
    "LayerNormalization": ([node("LayerNormalization", draw(7), draw(7))], SEQUENCE),
    "LayerNormalization of two axes": (
        [node("LayerNormalization", draw(4, 7), draw(4, 7), axis=1)],
        SEQUENCE,
    ),
    "Conv": (
        [node("Conv", draw(4, 3, 3, 2), draw(4), strides=[2, 1], pads=[1, 0, 2, 1])],
        IMAGE,
    ),
    "Conv in groups": ([node("Conv", draw(6, 1, 2, 2), group=3, dilations=[2, 1])], IMAGE),
    "Conv same upper": ([node("Conv", draw(2, 3, 2, 2), auto_pad="SAME_UPPER")], IMAGE),
    "Conv of a sequence": ([node("Conv", draw(2, 4, 3), draw(2), pads=[2, 0])], SEQUENCE),
    "MaxPool": ([node("MaxPool", kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1)], IMAGE),
    "AveragePool": ([node("AveragePool", kernel_shape=[2, 3], pads=[1, 0, 0, 1])], IMAGE),
    "AveragePool with padding": (
        [node("AveragePool", kernel_shape=[2, 2], pads=[1, 1, 1, 1], count_include_pad=1)],
        IMAGE,
    ),
    "GlobalAveragePool": ([node("GlobalAveragePool")], IMAGE),
    "GlobalMaxPool": ([node("GlobalMaxPool"), node("Flatten")], IMAGE),
    "ReduceMean": ([node("ReduceMean", ints(2, 3), keepdims=0)], IMAGE),
    "ReduceMax": ([node("ReduceMax", ints(-1))], SEQUENCE),
    "Pad": ([node("Pad", ints(0, 0, 1, 2, 0, 0, 3, 0))], IMAGE),
    "Transpose, Flatten, Gemm": (
        [
            node("Transpose", perm=[0, 2, 3, 1]),
            node("Flatten"),
            node("Gemm", draw(90, 2)),
        ],
        IMAGE,
    ),
    "Reshape": ([node("Reshape", ints(0, -1, 2)), node("Softmax")], ROW),
    "Squeeze, Unsqueeze": (
        [node("Squeeze", ints(0)), node("Unsqueeze", ints(0, 2)), node("Relu")],
        SEQUENCE,
    ),
    "Slice": ([node("Slice", ints(3, 5), ints(-9, 1), ints(1, 2), ints(-1, -2))], SEQUENCE),
    "Gather": ([node("Gather", ints(2, 0), axis=2)], SEQUENCE),
    "Expand, Tile": ([node("Expand", ints(2, 6)), node("Tile", ints(1, 2))], ROW),
}


@pytest.mark.parametrize("name", CASES)
def test_an_operator_means_what_the_standard_says(name, tmp_path):
    nodes, shape = CASES[name]
    result, expected = both(tmp_path, nodes, shape)
    assert result.shape == expected.shape
    scale = np.maximum(1.0, np.abs(expected))
    assert (np.abs(result - expected) <= FLOAT_ERROR * scale).all()


def gates(kind, units=3, features=7, directions=1, **attributes):
    count = {"RNN": 1, "GRU": 3, "LSTM": 4}[kind] * units
    weights = (
        0.4 * draw(directions, count, features),
        0.4 * draw(directions, count, units),
        0.4 * draw(directions, 2 * count),
    )
    return node(kind, *weights, hidden_size=units, **attributes)


@pytest.mark.parametrize(
    "layer",
    [
        gates("RNN"),
        gates("GRU"),
        gates("GRU", linear_before_reset=1),
        gates("LSTM"),
    ],
    ids=["rnn", "gru", "gru with a late reset", "lstm"],
)
@pytest.mark.parametrize("outputs", [("y",), ("", "y"), ("y", "z")])
def test_a_recurrent_operator_returns_all_states_and_the_last(layer, outputs, tmp_path):
    result, expected = both(tmp_path, [layer], (4, 1, 7), outputs=outputs)
    assert np.allclose(result, expected, rtol=0.0, atol=FLOAT_ERROR)


@pytest.mark.parametrize(
    ("nodes", "shape", "message"),
    [
        ([node("Erf")], ROW, r"node Erf \(Erf\)"),
        ([node("Gemm", draw(1, 4), transA=1)], (1, 6), "transA=1"),
        ([node("MatMul", draw(2, 6, 2))], ROW, "a weight of shape"),
        ([node("Gemm", draw(6, 3), draw(3, 1))], (3, 6), r"C of shape \(3, 1\)"),
        ([node("Selu", alpha=1.0)], ROW, "alpha=1.0"),
        ([node("MaxPool", kernel_shape=[2, 2], dilations=[2, 2])], IMAGE, "dilations"),
        ([node("Pad", ints(0, 1, 0, 0, 0, 0, 0, 0))], IMAGE, "pads"),
        ([node("Pad", ints(0, 0, 1, 0, 0, 0, 0, 0), mode="reflect")], IMAGE, "mode='reflect'"),
        ([gates("LSTM", clip=1.0)], (4, 1, 7), "clip=1.0"),
        ([gates("GRU", activations=["Sigmoid", "Affine"])], (4, 1, 7), "activations"),
        ([gates("RNN")], (4, 2, 7), "an input of shape"),
    ],
)
def test_what_cannot_be_imported_is_named(nodes, shape, message, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model(nodes, shape).SerializeToString())
    with pytest.raises(UnsupportedLayer, match=message):
        import_model(path, name="net")


def test_an_initial_state_is_not_dropped(tmp_path):
    path = tmp_path / "model.onnx"
    kind, constants, attributes = gates("RNN")
    nodes = [(kind, (*constants, None, draw(1, 1, 3)), attributes)]
    path.write_bytes(model(nodes, (4, 1, 7)).SerializeToString())
    with pytest.raises(UnsupportedLayer, match="an initial state"):
        import_model(path, name="net")


@pytest.mark.parametrize(
    ("shape", "fits"),
    [(("batch", 6), True), (("n", 6), True), ((1, "n"), False), (("time", "batch", 6), False)],
)
def test_only_the_batch_may_be_free(shape, fits, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model([node("Relu")], shape).SerializeToString())
    if fits:
        assert import_model(path, name="net").spec.nx == 6
    else:
        with pytest.raises(UnsupportedLayer, match="with fixed sizes"):
            import_model(path, name="net")


def test_softmax_before_version_13_runs_over_all_axes_from_its_own_on(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(model([node("Softmax", axis=1)], SEQUENCE, opset=11).SerializeToString())
    x = draw(1, 28)
    result = interpret(import_model(path, name="net"), x).action
    assert np.allclose(result, function("softmax", x), rtol=0.0, atol=FLOAT_ERROR)


def test_an_output_that_is_a_constant_is_refused(tmp_path):
    path = tmp_path / "model.onnx"
    proto = model([node("Relu")], ROW)
    proto.graph.output[0].name = "nothing"
    path.write_bytes(proto.SerializeToString())
    with pytest.raises(FileFormatError, match="do not depend on the network's input"):
        import_model(path, name="net")


@pytest.mark.parametrize(("noop", "expected"), [(1, [1.0, 2.0, 3.0, 6.0]), (0, [3.0])])
def test_a_mean_over_no_axis_is_one_over_all_or_none(noop, expected, tmp_path):
    path = tmp_path / "model.onnx"
    for constants in ((), (ints(),)):
        mean = node("ReduceMean", *constants, noop_with_empty_axes=noop)
        path.write_bytes(model([mean], (1, 4), opset=18).SerializeToString())
        row = np.array([[1.0, 2.0, 3.0, 6.0]], np.float32)
        assert interpret(import_model(path, name="net"), row).action[0].tolist() == expected


@pytest.mark.parametrize(
    ("declared", "fits"), [((1, 6), True), (("batch", 6), True), ((1, 7), False), ((6,), False)]
)
def test_the_result_has_the_shape_that_the_file_declares(declared, fits, tmp_path):
    path = tmp_path / "model.onnx"
    proto = model([node("Relu")], ROW)
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, declared))
    path.write_bytes(proto.SerializeToString())
    if fits:
        assert import_model(path, name="net").spec.nu == 6
    else:
        with pytest.raises(FileFormatError, match=r"is imported as \(1, 6\)"):
            import_model(path, name="net")
