"""Benchmarks of adaptation to sensor drift: what it recovers and what it costs."""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from safectl.export import Program, interpret, replay, torch_network
from safectl.export.adapt import (
    adapting_forward_program,
    adapting_inputs_program,
    adapting_output_program,
)
from safectl.planners import ForwardModel, forward_model
from safectl.seed import torch_generator
from safectl_agents.bench.benchmark import Benchmark, Measurement
from safectl_envs.soft_platform import HASEL
from safectl_hardware.verify import verify_on_board

SEEDS = (0, 1, 2)
UPDATES = 3000
"""Single samples from which every method learns."""
RATES = (0.01, 0.03, 0.1, 0.3)
"""Of full backpropagation; the best on the test rows is taken, which favours the baseline."""

_TRAINING, _TEST = 5000, 3000
_GAIN_SPREAD, _OFFSET_SPREAD, _NOISE = 0.3, 0.2, 0.01


class Drift(NamedTuple):
    """A trained network 26-8-3 and drifted rows: what it sees (rows, 26), true pose (rows, 3)."""

    network: nn.Sequential
    learning: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    fresh_error: float


def make_drift(seed: int) -> Drift:
    """Train the pose of a synthetic platform from 26 sensors; then let gains and offsets drift."""
    generator = torch_generator(seed, "sensor drift")

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    platform, rows = replace(HASEL, sensors=26), _TRAINING + _TEST
    drawn = torch.rand(rows, platform.inputs, generator=generator, dtype=torch.float64)
    pose = platform.target(platform.low + (platform.high - platform.low) * drawn)
    seen = platform.signals(torch.cat([pose, torch.zeros_like(pose)], 1))
    seen = seen + _NOISE * draw(rows, 26)
    network = _train(seen[:_TRAINING], pose[:_TRAINING], generator)
    drifted = seen * (1.0 + _GAIN_SPREAD * draw(26)) + _OFFSET_SPREAD * draw(26)
    order = torch.randint(0, _TRAINING, (UPDATES,), generator=generator)
    return Drift(
        network,
        (drifted[order], pose[order]),
        (drifted[_TRAINING:], pose[_TRAINING:]),
        _error(network(seen[_TRAINING:]), pose[_TRAINING:]),
    )


def recovery() -> Measurement:
    """Compare the drift error that each method removes with what full backpropagation removes."""
    shares: dict[str, list[float]] = {}
    errors: dict[str, dict[str, float]] = {}
    for seed in SEEDS:
        drift = make_drift(seed)
        before = _error(drift.network(drift.test[0]), drift.test[1])
        backprop = min(_backprop(drift, rate) for rate in RATES)
        errors[str(seed)] = {"fresh": drift.fresh_error, "drifted": before, "backprop": backprop}
        for name, make in _PROGRAMS.items():
            after = _adapted_error(make(forward_model(drift.network)), drift)
            errors[str(seed)][name] = after
            shares.setdefault(name, []).append((before - after) / (before - backprop))
    worst = {name: min(values) for name, values in shares.items()}
    details = {"seeds": SEEDS, "worst_share": worst, "rmse_cm": errors, "updates": UPDATES}
    return Measurement(worst["adapt_inputs"], details=details)


def ram() -> Measurement:
    """Measure the RAM of an adapting network beyond that of the network alone."""
    network = make_drift(0).network
    model = forward_model(network)
    plain = _ram(torch_network("network", network.float(), (model.inputs,)))
    beyond = {name: _ram(make(model)) - plain for name, make in _PROGRAMS.items()}
    gradient = 4 * sum(parameter.numel() for parameter in network.parameters())
    details = {"bytes_beyond_the_network": beyond, "gradient_of_all_weights_bytes": gradient}
    return Measurement(float(beyond["adapt_inputs"]), details={"seed": 0, **details})


_PROGRAMS: dict[str, Callable[[ForwardModel], Program]] = {
    "adapt_inputs": lambda model: adapting_inputs_program("inputs", model),
    "adapt_output": lambda model: adapting_output_program("output", model),
    "adapt_forward": lambda model: adapting_forward_program("forward", model),
}


def _train(seen: Tensor, pose: Tensor, generator: torch.Generator) -> nn.Sequential:
    network = nn.Sequential(nn.Linear(26, 8), nn.Tanh(), nn.Linear(8, 3), nn.Tanh()).double()
    for parameter in network.parameters():
        drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        parameter.data.copy_(0.3 * drawn)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        order = torch.randperm(len(seen), generator=generator)
        for start in range(0, len(seen), 250):
            rows = order[start : start + 250]
            optimizer.zero_grad()
            (network(seen[rows]) - pose[rows]).square().mean().backward()
            optimizer.step()
    return network


def _backprop(drift: Drift, rate: float) -> float:
    """Return the error after plain gradient descent on all weights, one sample at a time."""
    network = deepcopy(drift.network)
    for seen, pose in zip(*drift.learning, strict=True):
        network.zero_grad()
        (0.5 * (network(seen) - pose).square().sum()).backward()
        with torch.no_grad():
            for parameter in network.parameters():
                assert parameter.grad is not None
                parameter.sub_(rate * parameter.grad)
    return _error(network(drift.test[0]), drift.test[1])


def _adapted_error(program: Program, drift: Drift) -> float:
    """Return the error of the interpreter, whose bits the C has, after learning."""
    memory = replay(program, _rows(drift.learning)).states["memory"][-1]
    test = _rows(drift.test)
    found = interpret(program, test, {"memory": np.tile(memory, (len(test), 1))}).action
    return _error(torch.from_numpy(found).double(), drift.test[1])


def _rows(pair: tuple[Tensor, Tensor]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    return torch.cat(pair, 1).float().numpy()


def _error(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).detach().square().mean().sqrt())


def _ram(program: Program) -> int:
    report = verify_on_board(program, rows=20)
    return report.ram_bytes + report.stack_bound_bytes


ADAPTATION = (
    Benchmark(
        name="mcu.adaptation_recovery",
        summary="drift error of 26 sensors that adapting input gains and offsets removes",
        unit="1",
        baseline="full backpropagation, best of four rates: the share of what it removes",
        target=0.8,
        better="higher",
        quick=False,
        measure=recovery,
    ),
    Benchmark(
        name="mcu.adaptation_ram_bytes",
        summary="RAM and stack of that adaptation beyond those of the network 26-8-3 alone",
        unit="B",
        baseline="2 KiB",
        target=2048.0,
        measure=ram,
    ),
)
