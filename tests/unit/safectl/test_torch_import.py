"""Torch modules as programs: the interpreter agrees with the module."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from safectl.errors import UnsupportedLayer
from safectl.export import interpret, replay, torch_network

TOLERANCE = 1e-5  # relative to the largest output above one: sums of float32 in another order


class Lambda(nn.Module):
    """A module that computes one function, with layers it may use."""

    def __init__(self, function, *layers):
        super().__init__()
        self.layers, self.function = nn.ModuleList(layers), function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def check(module, shape, *, rows=20, channels_last=False):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.4)
    for layer in module.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.normal_(layer.running_mean)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
    program = torch_network("net", module, shape, channels_last=channels_last)
    x = torch.randn(rows, *shape)
    module.eval()
    with torch.no_grad():
        expected = torch.cat([module(row[None]) for row in x]).reshape(rows, -1).numpy()
    flat = x.movedim(1, -1) if channels_last else x
    found = interpret(program, flat.reshape(rows, -1).numpy()).action
    scale = max(1.0, float(np.abs(expected).max()))
    assert np.abs(found - expected).max() < TOLERANCE * scale
    return program


def setup_function():
    torch.manual_seed(0)


ACTIVATIONS = [
    *(nn.ReLU(), nn.ReLU6(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SELU(), nn.Softplus()),
    *(nn.Softsign(), nn.Tanh(), nn.Sigmoid(), nn.Hardsigmoid(), nn.SiLU(), nn.GELU()),
    *(nn.GELU("tanh"), nn.Softmax(-1), nn.Hardtanh(-0.3, 0.4), nn.Hardswish(), nn.Mish()),
    *(nn.PReLU(), nn.Dropout(0.5), nn.Identity()),
]


@pytest.mark.parametrize("layer", ACTIVATIONS, ids=lambda layer: type(layer).__name__)
def test_an_activation(layer):
    check(nn.Sequential(nn.Linear(5, 7), layer, nn.Linear(7, 3)), (5,))
    check(layer, (6,))


FUNCTIONS = {
    "residual": (lambda x, a, b: x + b(torch.tanh(a(x))), nn.Linear(6, 4), nn.Linear(4, 6)),
    "two branches": (
        lambda x, a, b: torch.cat([a(x), functional.silu(b(x)), x], dim=1),
        nn.Linear(6, 4),
        nn.Linear(6, 3),
    ),
    "gate": (lambda x, a: torch.sigmoid(a(x)) * x, nn.Linear(6, 6)),
    "constants": (lambda x: (2.0 - x) * 0.5 / 3.0 - x + torch.arange(6.0),),
    "square": (lambda x: x**2 - x.square(),),
    "slices": (lambda x: torch.cat([x[:, 4:], x[:, :4] * x[:, 2:]], dim=1)[:, ::2],),
    "transposed": (
        lambda x, a: a(x.reshape(-1, 2, 3).transpose(1, 2)).flatten(1),
        nn.Linear(2, 4),
    ),
    "a matrix": (lambda x: x @ torch.linspace(0.0, 1.0, 12).reshape(6, 2),),
    "mean": (lambda x: x.reshape(-1, 2, 3).mean(1) - x.mean(-1, keepdim=True),),
    "clamped": (lambda x: x.clamp(min=-0.2) + x.abs() - (-x).clamp(-1.0, 0.1),),
    "chunks": (lambda x: torch.stack([*x.chunk(3, dim=1)], dim=-1).softmax(1).flatten(1),),
    "norms": (
        lambda x, a, b: b(a(x).reshape(-1, 4, 3)).flatten(1),
        nn.Linear(6, 12),
        nn.LayerNorm([4, 3]),
    ),
    "normalised first": (lambda x, a, b: b(a(x)), nn.BatchNorm1d(6), nn.Linear(6, 3)),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_functional_graph(name):
    function, *layers = FUNCTIONS[name]
    check(Lambda(function, *layers), (6,))


def image_net(*middle, flat):
    return nn.Sequential(*middle, nn.Flatten(), nn.Linear(flat, 4))


IMAGES = {
    "conv, batch norm, pool": image_net(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), flat=128
    ),
    "strided and dilated": image_net(
        nn.Conv2d(3, 5, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)),
        nn.Tanh(),
        nn.AvgPool2d(2, 2, padding=1),
        flat=5 * 3 * 4,
    ),
    "depthwise separable": image_net(
        nn.Conv2d(3, 6, 3, groups=3, bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU6(),
        nn.Conv2d(6, 4, 1),
        nn.AdaptiveAvgPool2d(2),
        flat=16,
    ),
    "grouped": image_net(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 6, 3, groups=2), flat=216),
    "channels joined": Lambda(
        lambda x, a, b: torch.cat([a(x), b(x)], dim=1).mean((2, 3)),
        nn.Conv2d(3, 4, 3, padding="same"),
        nn.Conv2d(3, 5, 1),
    ),
    "batch norm last": nn.Sequential(nn.MaxPool2d(3, 2, padding=1), nn.BatchNorm2d(3)),
}


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("channels_last", [False, True])
def test_an_image_network(name, channels_last):
    check(IMAGES[name], (3, 8, 8), channels_last=channels_last)


def test_a_network_over_a_sequence_of_signals():
    layers = [nn.Conv1d(4, 6, 3, padding=1), nn.BatchNorm1d(6), nn.ELU(), nn.MaxPool1d(2)]
    check(nn.Sequential(*layers, nn.AvgPool1d(2), nn.Flatten(), nn.Linear(18, 2)), (4, 12))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.memory = kind(4, 5, batch_first=True, **options)
        self.head = nn.Linear(5 * (1 + options.get("bidirectional", False)), 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.memory(x)[0])


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
@pytest.mark.parametrize(
    "options",
    [{}, {"num_layers": 2}, {"bidirectional": True, "num_layers": 2}, {"bias": False}],
    ids=str,
)
def test_a_recurrent_network(kind, options):
    check(Recurrent(kind, **options), (6, 4), rows=4)


def test_the_last_state_of_a_recurrent_network():
    check(Lambda(lambda x, a: a(x)[1][0][-1], nn.LSTM(4, 3, 2, batch_first=True)), (5, 4), rows=3)
    relu = nn.RNN(4, 3, nonlinearity="relu")
    check(Lambda(lambda x, a: a(x.transpose(0, 1))[1][0], relu), (5, 4), rows=3)


@pytest.mark.parametrize("kind", [nn.RNN, nn.GRU, nn.LSTM])
def test_a_stateful_network_continues_where_it_ended(kind):
    module = Recurrent(kind, num_layers=2)
    program = torch_network("net", module, (1, 4), stateful=True)
    x = torch.randn(1, 15, 4)
    with torch.no_grad():
        expected = module(x)[0].numpy()
    found = replay(program, x[0].numpy()).action
    assert np.abs(found - expected).max() < TOLERANCE


def test_normalisation_dropout_and_flattening_cost_nothing():
    module = image_net(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(), flat=144)
    program = check(module, (1, 8, 8))
    assert [op.kind for op in program.ops] == ["conv2d", "dense", "concat"]


def test_a_module_is_left_as_it_was():
    module = nn.Sequential(nn.Linear(3, 3), nn.Dropout(), nn.BatchNorm1d(3).eval())
    torch_network("net", module, (3,))
    assert [layer.training for layer in module] == [True, True, False]


UNSUPPORTED = [
    (nn.ConvTranspose2d(3, 4, 3), (3, 8, 8), "conv_transpose2d.*ConvTranspose2d"),
    (nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4)), (3, 8, 8), r"layer 1 \(InstanceNorm"),
    (nn.MaxPool2d(3, ceil_mode=True), (3, 8, 8), "ceil_mode"),
    (nn.AdaptiveAvgPool2d(3), (3, 8, 8), "divide the input size"),
    (nn.Bilinear(3, 3, 2), (3,), "torch.export says"),
    (Lambda(lambda x: x if x.sum() > 0 else -x), (3,), "without branching"),
    (Lambda(lambda x: x[:, 1:] / x[:, :2]), (3,), "constants only"),
    (Lambda(lambda x: x @ x.transpose(1, 2)), (3, 3), "constant matrix"),
    (Lambda(lambda x: (x, x)), (3,), "2 outputs"),
    (nn.LSTM(3, 4, proj_size=2, batch_first=True), (5, 3), "3 outputs|proj_size"),
    (nn.Softplus(beta=2.0), (3,), "beta=1"),
]


@pytest.mark.parametrize(("module", "shape", "words"), UNSUPPORTED)
def test_anything_else_is_an_error_that_names_the_layer(module, shape, words):
    with pytest.raises(UnsupportedLayer, match=words):
        torch_network("net", module, shape)


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(UnsupportedLayer, match="shape"):
        torch_network("net", nn.Linear(3, 4), (5,))
