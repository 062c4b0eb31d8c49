"""What is no importable model gives one clear error, and nothing else happens."""

import builtins
import io
import json
import shutil
import subprocess
import sys
import zipfile

import h5py
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from safectl.errors import FileFormatError, MissingExtra, ShapeError, UnsupportedLayer
from safectl.export import interpret
from safectl.export.importers import import_model
from safectl.export.program import action_limits
from safectl.spec import Signal, Spec
from tests.unit.safectl.export.importers.model_files import FOLDER, examples

MLP = FOLDER / "keras3_mlp.keras"


@pytest.mark.parametrize(
    "name", ["keras2_mlp.h5", "keras3_mlp.keras", "torch_mlp_old.onnx", "tflite_mlp.tflite"]
)
def test_the_content_decides_and_not_the_suffix(name, tmp_path):
    renamed = tmp_path / "model.bin"
    shutil.copy(FOLDER / name, renamed)
    assert import_model(renamed, name="net").spec.nu in (2, 3)


@pytest.mark.parametrize("content", [b"", b"\0" * 64, b"PK\x03\x04", b"\x89HDF\r\n\x1a\n", b"{}\n"])
def test_a_file_of_another_kind_is_refused(content, tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=r"save the|export"):
        import_model(path, name="net")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    for path in (tmp_path / "none.onnx", tmp_path):
        with pytest.raises(FileFormatError, match="cannot be read"):
            import_model(path, name="net")


def test_the_limits_of_a_specification_hold_for_the_action():
    signals = tuple(Signal(f"x{i}", "1", -9.0, 9.0) for i in range(36))
    actions = tuple(Signal(f"u{i}", "1", -0.1, 0.2) for i in range(3))
    program = import_model(MLP, name="net", spec=Spec(signals, actions, 0.01))
    inputs, outputs = examples(MLP)
    low, high = action_limits(program.spec)
    result = interpret(program, inputs).action
    assert np.allclose(result, np.clip(outputs, low, high), rtol=0.0, atol=1e-5)
    with pytest.raises(ShapeError, match="specification has shape"):
        import_model(MLP, name="net", spec=Spec(signals[:5], actions, 0.01))


@pytest.mark.parametrize(
    ("module", "name"),
    [("onnx", "torch_mlp.onnx"), ("tflite", "tflite_mlp.tflite")],
)
def test_a_missing_package_names_its_extra(module, name, monkeypatch):
    original = builtins.__import__

    def absent(wanted, *arguments, **options):
        if wanted == module:
            raise ModuleNotFoundError(name=module)
        return original(wanted, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", absent)
    with pytest.raises(MissingExtra, match="belongs to the extra 'mcu'"):
        import_model(FOLDER / name, name="net")


def test_a_missing_h5py_names_its_extra(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="h5py is not installed"):
        import_model(MLP, name="net")


def test_importing_the_importers_loads_no_format_package():
    code = (
        "import sys, safectl.export.importers; "
        "sys.exit(any(name in sys.modules for name in ('h5py', 'onnx', 'tflite')))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_zip_bomb_is_not_unpacked(tmp_path):
    path = tmp_path / "bomb.keras"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("metadata.json", bytes(1 << 27))
    with pytest.raises(FileFormatError, match=r"unpacks metadata.json to over"):
        import_model(path, name="net")


def test_a_small_hdf5_file_with_huge_arrays_is_refused(tmp_path):
    path = tmp_path / "huge.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("a", (1 << 34,), "f4", chunks=(1 << 20,), compression="gzip")
    with pytest.raises(FileFormatError, match="bytes of arrays"):
        import_model(path, name="net")


def test_links_in_an_hdf5_file_are_not_followed(tmp_path):
    path = tmp_path / "linked.h5"
    with h5py.File(path, "w") as file:
        file["elsewhere"] = h5py.ExternalLink("/etc/hostname", "/")
    with pytest.raises(FileFormatError, match="is a link to elsewhere"):
        import_model(path, name="net")
    with h5py.File(path, "w") as file:
        file["circle"] = file["/"]
    with pytest.raises(FileFormatError, match="inside each other"):
        import_model(path, name="net")


def edited(tmp_path, edit):
    """A copy of a small archive whose architecture went through `edit`."""
    path = tmp_path / "edited.keras"
    with zipfile.ZipFile(MLP) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.namelist():
            content = source.read(member)
            if member == "config.json":
                config = json.loads(content)
                edit(config["config"]["layers"])
                content = json.dumps(config).encode()
            target.writestr(member, content)
    return path


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda layers: layers[1].update(class_name="Lambda"), r"layer dense.* \(Lambda\)"),
        (lambda layers: layers[1].update(registered_name="my>Dense"), r"layer dense.* \(Dense\)"),
        (lambda layers: layers[1]["config"].update(activation="mish"), "activation 'mish'"),
        (lambda layers: layers[0]["config"].update(batch_shape=[None, None]), "input of shape"),
    ],
)
def test_a_layer_that_cannot_be_imported_is_named(edit, message, tmp_path):
    with pytest.raises(UnsupportedLayer, match=message):
        import_model(edited(tmp_path, edit), name="net")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda layers: layers.pop(), "belong to no known layer: layers/dense_2"),
        (lambda layers: layers.append(layers[-1]), "holds 0 arrays for the kernel"),
        (lambda layers: layers[1]["config"].update(units=9), r"as \(36, 10\), not as \(36, 9\)"),
        (lambda layers: layers[1]["config"].update(units="x"), "is damaged, or not what it seems"),
    ],
)
def test_weights_and_architecture_must_belong_together(edit, message, tmp_path):
    with pytest.raises(FileFormatError, match=message):
        import_model(edited(tmp_path, edit), name="net")


def test_weights_that_are_not_finite_are_refused(tmp_path):
    path = tmp_path / "infinite.onnx"
    weight = numpy_helper.from_array(np.full((2, 2), np.inf, np.float32), "w")
    save_onnx(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    with pytest.raises(FileFormatError, match="non-finite"):
        import_model(path, name="net")


def save_onnx(path, nodes, constants):
    doors = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2]) for n in "xy"]
    graph = helper.make_graph(nodes, "net", doors[:1], doors[1:], constants)
    path.write_bytes(helper.make_model(graph).SerializeToString())


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "absent"])
def test_onnx_weights_outside_the_folder_are_not_read(location, tmp_path):
    (tmp_path / "secret").write_bytes(bytes(1000))
    (tmp_path / "inside").mkdir()
    path = tmp_path / "inside" / "model.onnx"
    weight = TensorProto(name="w", dims=(2, 2), data_type=TensorProto.FLOAT)
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    save_onnx(path, [helper.make_node("MatMul", ["x", "w"], ["y"])], [weight])
    with pytest.raises(FileFormatError, match="no file of its folder"):
        import_model(path, name="net")


def test_onnx_weights_beside_the_model_are_read_and_checked(tmp_path):
    for name in ("torch_mlp.onnx", "torch_mlp.weights"):
        shutil.copy(FOLDER / name, tmp_path / name)
    assert import_model(tmp_path / "torch_mlp.onnx", name="net").spec.nx == 5
    content = (tmp_path / "torch_mlp.weights").read_bytes()
    (tmp_path / "torch_mlp.weights").write_bytes(content[:-4])
    with pytest.raises(FileFormatError, match="is shorter than the model says"):
        import_model(tmp_path / "torch_mlp.onnx", name="net")


def test_weights_without_architecture_say_so(tmp_path):
    path = tmp_path / "weights.h5"
    with h5py.File(path, "w") as file:
        file["model_weights/dense/kernel:0"] = np.ones((2, 2))
    with pytest.raises(FileFormatError, match="only its weights"):
        import_model(path, name="net")


def test_an_archive_of_another_kind_says_what_is_missing(tmp_path):
    path, content = tmp_path / "arrays.npz", io.BytesIO()
    np.savez(content, a=np.ones(2))
    path.write_bytes(content.getvalue())
    with pytest.raises(FileFormatError, match=r"is a ZIP archive without metadata.json"):
        import_model(path, name="net")


def test_an_onnx_operator_that_cannot_be_imported_is_named(tmp_path):
    path = tmp_path / "model.onnx"
    node = helper.make_node("Mish", ["x"], ["y"], name="odd")
    save_onnx(path, [node], [])
    with pytest.raises(UnsupportedLayer, match=r"node odd \(Mish\)"):
        import_model(path, name="net")
    assert onnx.load(path).graph.node[0].op_type == "Mish"
