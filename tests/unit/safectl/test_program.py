"""Programs check themselves, and their files cannot be mistaken for something else."""

import inspect
import json
import math
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from torch import nn

from safectl.errors import (
    FileFormatError,
    NonFiniteError,
    RangeError,
    SafectlError,
    ShapeError,
    StorageError,
    UnknownNameError,
)
from safectl.export import Network, Op, Program, interpret, load_program, policy_program
from safectl.export.plan import plan_buffers
from safectl.export.store import save_program
from safectl.spec import Signal, Spec
from safectl.types import Status

SPEC = Spec(
    (Signal("angle", "rad", -math.inf, math.inf), Signal("rate", "rad/s", -4.0, 4.0)),
    (Signal("torque", "N m", -1.0, 1.0),),
    0.01,
)


def constants(**changes):
    arrays = {
        "weight": np.ones((1, 2), np.float32),
        "bias": np.zeros(1, np.float32),
        "low": -np.ones(1, np.float32),
        "high": np.ones(1, np.float32),
        "fail_safe": np.zeros(1, np.float32),
    }
    return {name: array for name, array in {**arrays, **changes}.items() if array is not None}


OPS = (
    Op("dense", ("observation",), ("u",), ("weight", "bias")),
    Op("clip", ("u",), ("action",), ("low", "high")),
)


def make(ops=OPS, name="p", **changes):
    return Program(name, SPEC, tuple(ops), constants(**changes))


def test_constants_are_copied_and_read_only():
    weight = np.ones((1, 2), np.float32)
    program = make(weight=weight)
    weight[0, 0] = 7.0
    assert program.constants["weight"][0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        program.constants["weight"][0, 0] = 2.0


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"name": "Bad name"}, RangeError, "lower-case"),
        ({"weight": np.ones((1, 3), np.float32)}, ShapeError, "weight"),
        ({"bias": np.ones(2, np.float32)}, ShapeError, "bias"),
        ({"bias": np.array([np.nan], np.float32)}, NonFiniteError, "bias"),
        ({"high": np.array([2.0], np.float32)}, RangeError, "those of the specification"),
        ({"fail_safe": np.array([2.0], np.float32)}, RangeError, "within the action limits"),
        ({"fail_safe": np.zeros(2, np.float32)}, ShapeError, "fail_safe"),
        ({"fail_safe": None}, RangeError, "fail_safe"),
        ({"unused": np.zeros(2, np.float32)}, RangeError, "unused"),
        ({"bias": None}, UnknownNameError, "bias"),
        ({"ops": OPS[:1]}, UnknownNameError, "action"),
        ({"ops": [*OPS, OPS[0]]}, RangeError, "not defined before"),
        ({"ops": [OPS[1], OPS[0]]}, UnknownNameError, "'u'"),
        ({"ops": [Op("dence", ("observation",), ("u",)), OPS[1]]}, UnknownNameError, "did you"),
        (
            {
                "ops": [
                    Op("dense", ("observation",), ("action",), ("weight", "bias")),
                    Op("clip", ("action",), ("v",), ("low", "high")),
                ]
            },
            RangeError,
            "first output",
        ),
        (
            {"ops": [Op("slice", ("observation",), ("u",), start=1, stop=3), OPS[1]]},
            RangeError,
            "slice",
        ),
        (
            {"ops": [Op("dense", ("observation",), ("u",), ("weight",)), OPS[1]]},
            RangeError,
            "2 names",
        ),
        (
            {
                "ops": [
                    Op("dense", ("observation",), ("u",), ("weight", "bias"), activation="gelo"),
                    OPS[1],
                ]
            },
            UnknownNameError,
            "gelo",
        ),
        ({"ops": [Op("add", ("observation",), ("u",)), OPS[1]]}, RangeError, "2 names"),
        ({"ops": [Op("abs", ("observation",), ("u", "v")), OPS[1]]}, RangeError, "1 names"),
    ],
)
def test_a_wrong_program_is_refused_with_the_reason(changes, error, words):
    with pytest.raises(error, match=words):
        make(**changes)


def test_saving_and_loading_gives_the_same_program_and_the_same_bytes(tmp_path):
    program = policy_program("p", SPEC, Network(nn.Linear(2, 1)))
    save_program(program, tmp_path / "one")
    save_program(program, tmp_path / "two")
    loaded = load_program(tmp_path / "one")
    assert loaded.digest() == program.digest()
    assert loaded.ops == program.ops
    assert loaded.spec == program.spec
    rows = np.random.default_rng(0).standard_normal((9, 2)).astype(np.float32)
    assert np.array_equal(interpret(loaded, rows).action, interpret(program, rows).action)
    for name in ("program.json", "program.npz"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(StorageError):
        save_program(program, tmp_path / "one")


@pytest.mark.parametrize("name", ["program.json", "program.npz"])
def test_every_truncation_of_a_file_is_refused(tmp_path, name):
    save_program(make(), tmp_path / "p")
    path = tmp_path / "p" / name
    whole = path.read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError):
            load_program(tmp_path / "p")
    path.unlink()
    with pytest.raises(FileFormatError, match="does not exist"):
        load_program(tmp_path / "p")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("format", "onnx", "is no safectl-program"),
        ("version", 3, "version 3"),
        ("version", None, "version None"),
        ("spec", "{}", "not a specification"),
        ("spec", 3, "not a specification"),
        ("ops", [{}], "kind"),
        ("ops", 3, "not a valid program"),
        ("name", "a b", "lower-case"),
        ("weights_crc32", 1, "does not belong"),
    ],
)
def test_foreign_and_unknown_content_is_refused(tmp_path, key, value, words):
    save_program(make(), tmp_path / "p")
    path = tmp_path / "p" / "program.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, key: value}))
    with pytest.raises(FileFormatError, match=words):
        load_program(tmp_path / "p")
    del content[key]
    path.write_text(json.dumps(content))
    with pytest.raises(FileFormatError):
        load_program(tmp_path / "p")


def test_arrays_of_another_program_objects_and_doubles_are_refused(tmp_path):
    save_program(make(), tmp_path / "p")
    path = tmp_path / "p" / "program.npz"
    np.savez(path, **constants(bias=np.ones(1, np.float32)))
    with pytest.raises(FileFormatError, match="does not belong"):
        load_program(tmp_path / "p")
    np.savez(path, **constants(bias=np.zeros(1)))
    with pytest.raises(FileFormatError, match="float64"):
        load_program(tmp_path / "p")
    np.savez(path, **constants(bias=np.array([{}], object)))
    with pytest.raises(FileFormatError):
        load_program(tmp_path / "p")


PROJECT = Op(
    "project_halfspace_box",
    ("u", "u", "u", "u"),
    ("action", "margin", "status"),
    ("low", "high"),
)


def test_margin_and_status_are_those_of_the_projection_that_gives_the_action():
    make(ops=[OPS[0], PROJECT])
    for ops in (
        [*OPS, Op("abs", ("u",), ("margin",)), Op("abs", ("u",), ("status",))],
        [OPS[0], replace(PROJECT, outputs=("other", "margin", "status")), OPS[1]],
        [OPS[0], replace(PROJECT, outputs=("action", "status", "margin"))],
        [OPS[0], replace(PROJECT, outputs=("action", "margin", "other"))],
        [OPS[0], Op("slice", ("observation",), ("status",), stop=1), OPS[1]],
    ):
        with pytest.raises(RangeError, match="margin and status"):
            make(ops=ops)


def test_the_interpreter_rounds_doubles_first_and_refuses_other_shapes():
    program = make()
    rows = np.random.default_rng(0).standard_normal((50, 2))
    assert rows.dtype == np.float64
    run = inspect.unwrap(interpret)  # without the type checks of the tests
    steps, rounded = run(program, rows), run(program, rows.astype(np.float32))
    assert steps.action.dtype == np.float32
    assert np.array_equal(steps.action, rounded.action)
    assert run(program, np.full((1, 2), 1e300)).status.tolist() == [Status.FALLBACK]
    for shape in ((2,), (3, 1), (1, 2, 1)):
        with pytest.raises(ShapeError, match="observation has shape"):
            run(program, np.zeros(shape, np.float32))


def test_a_limited_action_is_reported_as_corrected():
    rows = np.array([[0.5, 0.5], [0.5, 0.6], [-3.0, 0.0], [0.0, 0.0]], np.float32)
    steps = interpret(make(), rows)
    assert steps.action[:, 0].tolist() == [1.0, 1.0, -1.0, 0.0]
    assert steps.status.tolist() == [0, 1, 1, 0]


def test_values_that_are_alive_together_never_overlap():
    layers = [nn.Linear(2, 8)]
    for inputs, outputs in ((8, 5), (5, 9), (9, 1)):
        layers.append(nn.Linear(inputs, outputs))
    program = policy_program("p", SPEC, Network(nn.Sequential(*layers)))
    plan = plan_buffers(program)
    sizes = program.sizes
    for op in program.ops:
        spans = [
            (plan.offsets[name], plan.offsets[name] + sizes[name])
            for name in (*op.inputs, *op.outputs)
            if name not in plan.in_observation
        ]
        spans.sort()
        assert all(one[1] <= two[0] for one, two in pairwise(spans))
    assert plan.size == 22  # first fit: 8 and 5 side by side, then 9 that fits in neither gap


def test_a_missing_output_is_an_error_of_this_project():
    with pytest.raises(SafectlError):
        Program("p", SPEC, (), constants())
