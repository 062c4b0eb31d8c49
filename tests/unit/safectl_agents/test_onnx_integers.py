"""The 8-bit ONNX file of a torch network means that network, to the resolution of its integers."""

import numpy as np
import pytest
import torch
from onnx.reference import ReferenceEvaluator
from torch import nn

from safectl.errors import UnsupportedLayer
from safectl_agents.bench.onnx_integers import write_integer_onnx


def test_the_reference_of_onnx_computes_the_network_within_two_percent(tmp_path):
    torch.manual_seed(0)
    layers = nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 3, 3), nn.Tanh(), nn.Conv2d(3, 2, 1), nn.Flatten()),
    )
    rows = torch.randn(40, 2, 8, 8)
    write_integer_onnx(layers, rows, tmp_path / "net.onnx")
    network = ReferenceEvaluator(str(tmp_path / "net.onnx"))
    with torch.no_grad():
        expected = layers(rows).numpy()
    found = np.concatenate([network.run(None, {"x": row[None].numpy()})[0] for row in rows])
    assert 0.0 < np.abs(found - expected).max() < 0.02 * np.abs(expected).max()


def test_another_layer_is_refused(tmp_path):
    with pytest.raises(UnsupportedLayer, match="GELU"):
        write_integer_onnx(nn.Sequential(nn.GELU()), torch.zeros(1, 3), tmp_path / "net.onnx")
