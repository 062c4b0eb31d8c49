import pytest
import torch
from torch import nn

from safectl.errors import UnsupportedLayer
from safectl.export import forward_model_of, torch_network
from safectl.seed import torch_generator


class Gated(nn.Module):
    """One step of a GRU and two dense layers, the shape 6 - GRU 20 - 15 - 2."""

    def __init__(self) -> None:
        super().__init__()
        self.gates = nn.GRU(6, 20, batch_first=True)
        self.rest = nn.Sequential(nn.Linear(20, 15), nn.ReLU(), nn.Linear(15, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rest(self.gates(x)[0][:, -1])


def draw(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch_generator(0, "forward model"))


@pytest.mark.parametrize("last", [nn.Tanh(), nn.Sigmoid(), nn.Identity()])
def test_an_exported_perceptron_is_the_same_model(last):
    module = nn.Sequential(nn.Linear(6, 10), nn.ReLU(), nn.Linear(10, 3), last)
    model, x = forward_model_of(torch_network("network", module, (6,))), draw(9, 6)
    torch.testing.assert_close(model.value(x), module(x).detach())


def test_an_exported_gru_that_sees_one_step_is_the_same_model():
    module, x = Gated(), draw(9, 1, 6)
    model = forward_model_of(torch_network("network", module, (1, 6)))
    torch.testing.assert_close(model.value(x[:, 0]), module(x).detach())


def test_networks_that_are_no_chain_of_supported_layers_are_refused():
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)

    for module, shape, said in (
        (Residual(), (4,), "chain"),
        (nn.Sequential(nn.Linear(4, 4), nn.GELU()), (4,), "gelu"),
        (Gated(), (3, 6), "several steps"),
        (nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten()), (2, 5), "no derivative"),
    ):
        program = torch_network("network", module, shape)
        with pytest.raises(UnsupportedLayer, match=said):
            forward_model_of(program)
