import numpy as np
import pytest
import torch

from safectl.export import forward_model_of, ngpc_program, verify
from safectl.export.importers import import_model
from safectl.planners import Ngpc, NgpcProblem
from safectl_agents.composites.tracking import controller_spec
from tests.unit.safectl.export.importers.model_files import FOLDER

FRAMEWORK_TOLERANCE = 1e-5
"""Float32 in the framework against float64 here."""


@pytest.mark.parametrize(
    "file", ["tflite_mlp.tflite", "keras3_mlp.keras", "keras2_mlp.h5", "sklearn_mlp.onnx"]
)
def test_a_model_of_any_framework_becomes_a_controller_in_c(file):
    path = FOLDER / file
    model = forward_model_of(import_model(path, name="kinematics"))
    with np.load(path.with_suffix(".npz")) as known:
        inputs, outputs = torch.as_tensor(known["inputs"]).double(), known["outputs"]
    np.testing.assert_allclose(model.value(inputs), outputs, atol=FRAMEWORK_TOLERANCE)
    m, p = 1, model.outputs
    problem = NgpcProblem(
        outputs=p,
        sensors=model.inputs - 2 * m - p,
        output_lags=1,
        last=3,
        tracking=np.ones(p),
        effort=np.full(m, 1e-2),
        low=np.full(m, -0.5),
        high=np.full(m, 0.5),
    )
    controller = Ngpc(problem, model, torch.zeros(m, dtype=torch.float64))
    program = ngpc_program("controller", controller_spec(controller, 0.01), controller)
    assert verify(program, rows=10).rows == 10  # equal bits, with sanitizers
