"""Make the model files of `tests/golden/models` with the frameworks that users have.

Every file NAME.SUFFIX has inputs and outputs of its own framework beside it in NAME.npz: `inputs`
(rows, nx) and `outputs` (rows, nu), flattened. The recorded files come from these environments:

    python make_models.py keras2    tensorflow-cpu 2.15.1, Keras 2.15.0
    python make_models.py keras3    tensorflow-cpu 2.20.0, Keras 3; writes .h5, .keras and .tflite
    python make_models.py onnx      torch, onnx and onnxscript
    python make_models.py sklearn   scikit-learn, skl2onnx and onnxruntime
"""

import sys
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent / "models"
ROWS = 8


def mlp(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((36,)),
            layers.Dense(10, activation="relu"),
            layers.Dense(5, activation="tanh"),
            layers.Dense(3),
        ]
    )


def functional(keras: Any) -> Any:
    given = keras.Input((7,))
    return keras.Model(given, keras.layers.Dense(2)(given))


def flatten(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((4, 3)), layers.Flatten(), layers.Dense(5, "elu"), layers.Dense(2)]
    )


def conv1d(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.Conv1D(6, 3, padding="same", activation="relu"),
            layers.MaxPooling1D(2),
            layers.Conv1D(4, 2, padding="causal", dilation_rate=2, activation="softplus"),
            layers.AveragePooling1D(2, padding="same"),
            layers.DepthwiseConv1D(2, depth_multiplier=2),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


def conv2d(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((9, 8, 2)),
            layers.Conv2D(4, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.Activation("relu"),
            layers.MaxPooling2D(2, strides=1),
            layers.DepthwiseConv2D(2, depth_multiplier=2, activation="tanh"),
            layers.SeparableConv2D(5, 2, padding="same"),
            layers.BatchNormalization(scale=False),
            layers.GlobalAveragePooling2D(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def gru(keras: Any) -> Any:
    return keras.Sequential([keras.Input((6, 3)), keras.layers.GRU(5), keras.layers.Dense(2)])


def gru_before(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((6, 3)),
            layers.GRU(
                4,
                reset_after=False,
                recurrent_activation="hard_sigmoid",
                return_sequences=True,
                go_backwards=True,
            ),
            layers.Flatten(),
            layers.Dense(2, activation="hard_sigmoid"),
        ]
    )


def lstm(keras: Any) -> Any:
    return keras.Sequential(
        [keras.Input((5, 3)), keras.layers.LSTM(4), keras.layers.Dense(2, "sigmoid")]
    )


def recurrent(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((5, 3)),
            layers.LSTM(4, return_sequences=True, dropout=0.1),
            layers.SimpleRNN(3, return_sequences=True, activation="softsign"),
            layers.Bidirectional(layers.GRU(2, return_sequences=True)),
            layers.GlobalMaxPooling1D(),
            layers.Dense(2, activation="exponential"),
        ]
    )


def activations(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((6,))
    kinds = ("selu", "softsign", "swish", "gelu", "elu", "exponential", "softplus", "sigmoid")
    parts = [layers.Activation(kind)(given) for kind in (*kinds, "hard_sigmoid")]
    parts += [layer(given) for layer in (layers.LeakyReLU(), layers.ReLU(6.0), layers.PReLU())]
    joined = layers.Concatenate()(parts)
    first, second = layers.Dense(4)(joined), layers.Dense(4, activation="relu")(joined)
    total = layers.Add()([first, second, layers.Multiply()([first, second])])
    total = layers.Subtract()([layers.LayerNormalization(epsilon=1e-2)(total), first])
    return keras.Model(given, layers.Softmax()(total))


def two_doors(keras: Any) -> Any:
    layers = keras.layers
    image, speed = keras.Input((4, 5, 3)), keras.Input((2,))
    seen = layers.Rescaling(0.5, offset=-0.25)(image)
    seen = layers.Permute((2, 3, 1))(layers.GaussianNoise(0.1)(seen))
    seen = layers.ZeroPadding2D(((1, 0), (0, 2)))(seen)
    seen = layers.Reshape((6, 20))(layers.AveragePooling2D(1)(seen))
    seen = layers.Dense(2)(layers.LayerNormalization()(layers.Dropout(0.3)(seen)))
    known = layers.Normalization(mean=[0.2, -0.1], variance=[0.5, 2.0])(speed)
    joined = layers.Concatenate()([layers.Flatten()(seen), known])
    return keras.Model([image, speed], [layers.Dense(2)(joined), layers.Dense(1)(known)])


def nested(keras: Any) -> Any:
    layers = keras.layers
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(3)])
    given = keras.Input((3,))
    shared = layers.Dense(3, activation="tanh")
    return keras.Model(given, layers.Add()([shared(shared(given)), inner(given)]))


KERAS: tuple[Callable[[Any], Any], ...] = (
    mlp,
    functional,
    flatten,
    conv1d,
    conv2d,
    gru,
    gru_before,
    lstm,
    recurrent,
    activations,
    two_doors,
    nested,
)


def keras_model(keras: Any, make: Callable[[Any], Any]) -> Any:
    """Build a model with weights that are not the trivial ones of an initialiser."""
    keras.utils.set_random_seed(len(make.__name__))
    keras.backend.clear_session()
    model = make(keras)
    generator = np.random.default_rng(len(make.__name__))
    for weight in model.weights:
        if any(word in weight.name for word in ("seed", "count")) or "int" in str(weight.dtype):
            continue
        noise = generator.normal(0.0, 0.2, weight.shape)
        positive = "variance" in weight.name
        weight.assign(np.abs(noise) + 0.5 if positive else np.asarray(weight) + noise)
    return model


def save(name: str, inputs: list[np.ndarray], outputs: list[np.ndarray]) -> None:
    """Write the flattened inputs and outputs."""
    flat = [
        np.concatenate([p.reshape(len(p), -1) for p in parts], 1) for parts in (inputs, outputs)
    ]
    np.savez(FOLDER / f"{name}.npz", inputs=flat[0].astype("f4"), outputs=flat[1].astype("f4"))


def keras_examples(model: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    generator = np.random.default_rng(3)
    inputs = [generator.normal(0.0, 1.0, (ROWS, *x.shape[1:])).astype("f4") for x in model.inputs]
    outputs = model.predict(inputs if len(inputs) > 1 else inputs[0], verbose=0)
    return inputs, outputs if isinstance(outputs, list) else [outputs]


def save_archive(model: Any, name: str) -> None:
    """Save as `.keras` and pack it tighter: Keras stores its members uncompressed."""
    with tempfile.TemporaryDirectory() as folder:
        loose = Path(folder) / name
        model.save(loose)
        with (
            zipfile.ZipFile(loose) as source,
            zipfile.ZipFile(FOLDER / name, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed,
        ):
            for member in source.namelist():
                packed.writestr(member, source.read(member))


def make_keras2() -> None:
    """Write the `.h5` files of Keras 2, and one `.keras`."""
    import tensorflow as tf

    for make in KERAS:
        model = keras_model(tf.keras, make)
        model.save(FOLDER / f"keras2_{make.__name__}.h5")
        save(f"keras2_{make.__name__}", *keras_examples(model))
        if make in (conv2d, recurrent):
            save_archive(model, f"keras2_{make.__name__}.keras")


def make_keras3() -> None:
    """Write the `.h5` and `.keras` files of Keras 3."""
    import keras

    for make in KERAS:
        if make in (functional, flatten):
            continue
        model = keras_model(keras, make)
        name = f"keras3_{make.__name__}"
        save_archive(model, f"{name}.keras")
        if make in (mlp, conv1d, gru, recurrent, nested):
            model.save(FOLDER / f"{name}.h5")
        save(name, *keras_examples(model))


def torch_models() -> dict[str, tuple[Any, tuple[int, ...]]]:
    """Return torch modules with the shape of their input, batch of one first."""
    import torch
    from torch import nn

    class Parts(nn.Module):
        """Sum, product, join, slice and the activations that torch writes as operators."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8), nn.Linear(20, 3)
            self.norm = nn.LayerNorm(8)

        def forward(self, x: Any) -> Any:
            hidden = self.norm(self.first(x))
            left, right = hidden[:, :4], hidden[:, 4:]
            parts = [
                nn.functional.silu(left),
                nn.functional.elu(right),
                nn.functional.hardsigmoid(left) - 0.5 * right,
                nn.functional.gelu(left + right, approximate="tanh"),
                nn.functional.leaky_relu(left * right, 0.2),
            ]
            return torch.softmax(self.second(torch.cat(parts, 1)), -1)

    class Recurrent(nn.Module):
        """A recurrent layer of which the last state goes on."""

        def __init__(self, kind: Any, **options: Any) -> None:
            super().__init__()
            self.layer = kind(3, 4, batch_first=True, **options)
            self.last = nn.Linear(8 if options.get("bidirectional") else 4, 2)

        def forward(self, x: Any) -> Any:
            return self.last(self.layer(x)[0][:, -1])

    convolutions = nn.Sequential(
        nn.Conv2d(2, 4, 3, stride=2, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU6(),
        nn.MaxPool2d(2, stride=1, ceil_mode=True),
        nn.Conv2d(4, 8, 2, groups=4, padding="same"),
        nn.Hardswish(),
        nn.AvgPool2d(2, stride=1, padding=1),
        nn.Flatten(),
        nn.Linear(8 * 4 * 4, 3),
    )
    sequence = nn.Sequential(
        nn.Conv1d(3, 6, 3, dilation=2, padding=2),
        nn.BatchNorm1d(6),
        nn.PReLU(6),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(6, 2),
        nn.Tanh(),
    )
    return {
        "mlp": (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)), (1, 5)),
        "parts": (Parts(), (1, 6)),
        "convolutions": (convolutions, (1, 2, 8, 7)),
        "sequence": (sequence, (1, 3, 12)),
        "gru": (Recurrent(nn.GRU), (1, 5, 3)),
        "lstm": (Recurrent(nn.LSTM, bidirectional=True), (1, 5, 3)),
        "rnn": (Recurrent(nn.RNN, nonlinearity="relu", num_layers=2), (1, 5, 3)),
    }


def make_torch() -> None:
    """Write ONNX files with both exporters of torch; `_old` is the one through TorchScript."""
    import onnx
    import torch

    for name, (module, shape) in torch_models().items():
        torch.manual_seed(len(name))
        generator = np.random.default_rng(len(name))
        for key, array in module.state_dict().items():
            noise = torch.from_numpy(generator.normal(0.0, 0.3, array.shape))
            array.add_(noise.abs() if "var" in key else noise) if array.is_floating_point() else 0
        module.eval()
        example = torch.from_numpy(generator.normal(0.0, 1.0, shape).astype("f4"))
        inputs = generator.normal(0.0, 1.0, (ROWS, *shape[1:])).astype("f4")
        with torch.no_grad():
            outputs = module(torch.from_numpy(inputs)).numpy()
        save(f"torch_{name}", [inputs], [outputs])
        old, new = FOLDER / f"torch_{name}_old.onnx", FOLDER / f"torch_{name}.onnx"
        torch.onnx.export(module, (example,), old, dynamo=False, opset_version=17)
        if name == "rnn":
            continue  # the new exporter unrolls it: over 50 kB
        torch.onnx.export(module, (example,), new, dynamo=True, external_data=False)
        forget_paths(new)
        if name == "mlp":
            beside = {"location": "torch_mlp.weights", "size_threshold": 0}
            onnx.save_model(onnx.load(new), new, save_as_external_data=True, **beside)


def forget_paths(path: Path) -> None:
    """Remove what torch notes at each node: stack traces with paths of the machine."""
    import onnx

    model = onnx.load(path)
    for node in model.graph.node:
        del node.metadata_props[:]
    onnx.save(model, path)


def make_sklearn() -> None:
    """Write a scikit-learn regressor with its scaler."""
    from skl2onnx import to_onnx
    from sklearn.neural_network import MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    generator = np.random.default_rng(0)
    x = generator.normal(2.0, 3.0, (200, 4)).astype("f4")
    y = np.stack([np.sin(x[:, 0]), x[:, 1] - x[:, 2]], 1)
    network = MLPRegressor(hidden_layer_sizes=(8,), activation="tanh", max_iter=300, random_state=0)
    model = make_pipeline(StandardScaler(), network).fit(x, y)
    content = to_onnx(model, x[:1]).SerializeToString()
    (FOLDER / "sklearn_mlp.onnx").write_bytes(content)
    save("sklearn_mlp", [x[:ROWS]], [model.predict(x[:ROWS])])


def joined(keras: Any) -> Any:
    layers = keras.layers
    given = keras.Input((6,))
    first, second = layers.Dense(8, "relu")(given), layers.Dense(8, "tanh")(given)
    parts = [layers.Add()([first, second]), layers.Multiply()([first, second])]
    return keras.Model(given, layers.Dense(3, "sigmoid")(layers.Concatenate()(parts)))


def steps(keras: Any) -> Any:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((12, 3)),
            layers.Conv1D(6, 3, padding="same", activation="relu"),
            layers.AveragePooling1D(2),
            layers.DepthwiseConv1D(2, activation="relu6"),
            layers.Flatten(),
            layers.Dense(2),
        ]
    )


TFLITE = (mlp, conv2d, joined, steps)


def convert(model: Any, name: str, *, whole: bool) -> None:
    """Convert to TFLite; with `whole` to int8 throughout, calibrated on normal numbers.

    Outputs are those of the reference kernels of the interpreter, in real numbers.
    """
    import tensorflow as tf

    generator = np.random.default_rng(5)
    (shape,) = (x.shape[1:] for x in model.inputs)
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    if whole:
        rows = [[generator.normal(0.0, 1.0, (1, *shape)).astype("f4")] for _ in range(200)]
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.representative_dataset = lambda: rows
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    content = converter.convert()
    (FOLDER / f"{name}.tflite").write_bytes(content)
    reference = tf.lite.experimental.OpResolverType.BUILTIN_REF
    runner = tf.lite.Interpreter(model_content=content, experimental_op_resolver_type=reference)
    runner.allocate_tensors()
    (door,), (exit_,) = runner.get_input_details(), runner.get_output_details()
    inputs, outputs = generator.normal(0.0, 1.0, (ROWS, *shape)).astype("f4"), []
    for number in range(ROWS):
        row = inputs[number : number + 1]
        if whole:
            scale, zero = door["quantization"]
            row = np.clip(np.round(row / scale) + zero, -128, 127).astype("i1")
        runner.set_tensor(door["index"], row)
        runner.invoke()
        result = runner.get_tensor(exit_["index"]).astype("f4")
        if whole:
            scale, zero = exit_["quantization"]
            result = (result - zero) * scale
        outputs.append(result)
    save(name, [inputs], [np.concatenate(outputs)])


def make_tflite() -> None:
    """Write `.tflite` files, float and int8, with the converter of TensorFlow 2.20."""
    import keras

    for make in TFLITE:
        model = keras_model(keras, make)
        convert(model, f"tflite_{make.__name__}", whole=False)
        convert(model, f"tflite_{make.__name__}_int8", whole=True)


def make_tflite_lstm() -> None:
    """Write a `.tflite` file with the LSTM operator, which TensorFlow 2.15 makes."""
    import tensorflow as tf

    model = keras_model(tf.keras, lstm)
    given = tf.keras.Input(batch_shape=(1, *model.inputs[0].shape[1:]))
    convert(tf.keras.Model(given, model(given)), "tflite_lstm", whole=False)


COMMANDS: Mapping[str, Callable[[], None]] = {
    "keras2": make_keras2,
    "keras3": make_keras3,
    "torch": make_torch,
    "sklearn": make_sklearn,
    "tflite": make_tflite,
    "tflite_lstm": make_tflite_lstm,
}

if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for command in sys.argv[1:]:
        COMMANDS[command]()
