"""Networks and their optimisers as named tensors, which safetensors can hold."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn


def named_state(
    modules: Mapping[str, nn.Module], optimizers: Mapping[str, torch.optim.Optimizer]
) -> dict[str, Tensor]:
    """Return every weight, buffer and optimiser entry by name, sharing memory with them."""
    named: dict[str, Tensor] = {}
    for prefix, module in modules.items():
        named |= {f"{prefix}.{name}": value for name, value in module.state_dict().items()}
    for prefix, optimizer in optimizers.items():
        for index, entries in optimizer.state_dict()["state"].items():
            named |= {f"adam.{prefix}.{index}.{key}": value for key, value in entries.items()}
    return named


def load_named_state(
    named: Mapping[str, Tensor],
    modules: Mapping[str, nn.Module],
    optimizers: Mapping[str, torch.optim.Optimizer],
) -> None:
    """Take over what `named_state` returned for equal networks.

    Raises:
        KeyError, RuntimeError: If it is the state of other networks.
    """
    for prefix, module in modules.items():
        own = module.state_dict()
        module.load_state_dict({name: named[f"{prefix}.{name}"] for name in own})
    for prefix, optimizer in optimizers.items():
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in named.items():
            if name.startswith(f"adam.{prefix}."):
                index, key = name.split(".")[2:]
                state.setdefault(int(index), {})[key] = value
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": state, "param_groups": groups})
