"""Synthetic rigs: logs with random inputs, forward models trained on them, their controllers."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from safectl.dynamics import MassSpringDamper, MassSpringDamperParameters
from safectl.planners import ForwardModel, Layer, Ngpc, NgpcProblem, forward_model
from safectl.seed import torch_generator
from safectl_agents.composites.log import Log, make_windows
from safectl_agents.composites.tracking import Plant
from safectl_agents.composites.training import TrainingOptions, train_forward_model
from safectl_envs.soft_platform import SoftPlatform

SPRING_PERIOD = 0.02
"""Of the mass-spring-damper [s]."""
VELOCITY_UNIT = 5.0
"""Velocity [m/s] that a learned model of the mass-spring-damper calls 1."""

_RUNS, _SAMPLES = 20, 1000
_KNOT_DISTANCES = (5, 20, 80)  # samples: slow and fast motion in one log


def random_inputs(
    low: float, high: float, size: tuple[int, int, int], *, seed: int
) -> Float[Tensor, "samples runs m"]:
    """Draw inputs that wander between the limits: piecewise linear at three time scales."""
    samples, runs, m = size
    generator = torch_generator(seed, "random inputs")
    time, total = torch.arange(samples), torch.zeros(samples, runs, m, dtype=torch.float64)
    for distance in _KNOT_DISTANCES:
        shape = (samples // distance + 2, runs, m)
        knots = 2.0 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1.0
        left, share = time // distance, (time % distance / distance)[:, None, None]
        total += 0.5 * (knots[left] * (1.0 - share) + knots[left + 1] * share)
    return (low + 0.5 * (high - low) * (total + 1.0)).clamp(low, high)


@dataclass(frozen=True, slots=True)
class PlatformRig:
    """A soft platform with the shape of its network and the weights of its cost.

    Attributes:
        platform: The synthetic plant.
        input_lags: nd.
        output_lags: dd.
        last: N2.
        hidden: Widths of the hidden layers.
        tracking: Q, diagonal.
        effort: L per input.
    """

    platform: SoftPlatform
    input_lags: int
    output_lags: int
    last: int
    hidden: tuple[int, ...]
    tracking: tuple[float, float, float]
    effort: float

    def logs(self, *, seed: int = 0) -> list[Log]:
        """Move several copies with random inputs and log them."""
        platform = self.platform
        size = (_SAMPLES, _RUNS, platform.inputs)
        inputs = random_inputs(platform.low, platform.high, size, seed=seed)
        state, states = platform.rest(_RUNS), []
        for action in inputs:
            state = platform.step(state, action)
            states.append(state)
        seen = torch.stack(states)
        return [
            Log(inputs[:, run], seen[:, run, :3], platform.signals(seen[:, run]))
            for run in range(_RUNS)
        ]

    def train(self, *, epochs: int = 100) -> ForwardModel:
        """Learn the forward kinematics from `logs`."""
        windows = [
            make_windows(log, input_lags=self.input_lags, output_lags=self.output_lags)
            for log in self.logs()
        ]
        options = TrainingOptions(hidden=self.hidden, epochs=epochs)
        return forward_model(train_forward_model(windows, options).network)

    def controller(self, model: ForwardModel) -> Ngpc:
        """Return the controller of the rig with a learned model."""
        platform = self.platform
        m = platform.inputs
        problem = NgpcProblem(
            outputs=3,
            sensors=platform.sensors,
            input_lags=self.input_lags,
            output_lags=self.output_lags,
            last=self.last,
            tracking=np.array(self.tracking),
            effort=np.full(m, self.effort),
            low=np.full(m, platform.low),
            high=np.full(m, platform.high),
            sharpness=0.0,
        )
        return Ngpc(problem, model, torch.full((m,), platform.start, dtype=torch.float64))

    def plant(self) -> Plant:
        """Return the platform in its rest pose."""
        platform = self.platform
        return Plant(
            start=platform.rest(1),
            step=lambda state, action, _: platform.step(state, action),
            measure=lambda state: (state[:, :3], platform.signals(state)),
        )


def spring_plant(
    parameters: MassSpringDamperParameters, *, push: float = 0.0, has_velocity: bool = False
) -> Plant:
    """Return the mass-spring-damper at rest.

    Args:
        parameters: Its constants.
        push: Force added to the input from sample 500 on [N].
        has_velocity: Whether the velocity is an output, in `VELOCITY_UNIT`.
    """
    plant = MassSpringDamper(SPRING_PERIOD, parameters)
    scale = torch.tensor([1.0, 1.0 / VELOCITY_UNIT], dtype=torch.float64)
    outputs = 2 if has_velocity else 1

    def step(state: Tensor, action: Tensor, sample: int) -> Tensor:
        return plant.predict(state, action + (push if sample >= 500 else 0.0)).mean

    def measure(state: Tensor) -> tuple[Tensor, Tensor]:
        return (state * scale)[:, :outputs], state[:, :0]

    return Plant(torch.zeros(1, 2, dtype=torch.float64), step, measure)


def exact_spring_model() -> ForwardModel:
    """Return y(n) of the linear plant from two inputs and two outputs, exact for held forces.

    With the discrete matrices A and b: y(n) = tr(A) y(n-1) - det(A) y(n-2) + b1 u(n) + (A12 b2 -
    A22 b1) u(n-1), u(n) being the input that leads to y(n).
    """
    parameters = MassSpringDamperParameters()
    rate = math.sqrt(parameters.stiffness / parameters.mass)
    decay = parameters.damping / (2.0 * parameters.mass)
    generator = torch.tensor([[0.0, 1.0, 0.0], [-(rate**2), -2.0 * decay, 1.0 / parameters.mass]])
    block = torch.zeros(3, 3, dtype=torch.float64)
    block[:2] = generator
    power = torch.linalg.matrix_exp(block * SPRING_PERIOD)
    A, b = power[:2, :2], power[:2, 2]
    row = [b[0], A[0, 1] * b[1] - A[1, 1] * b[0], A.trace(), -torch.linalg.det(A)]
    weight = torch.stack([torch.as_tensor(entry) for entry in row])[None]
    return ForwardModel((Layer(weight, torch.zeros(1, dtype=torch.float64)),))


def train_spring_model(options: TrainingOptions) -> ForwardModel:
    """Learn position and velocity of the linear plant from random forces."""
    plant = MassSpringDamper(SPRING_PERIOD)
    inputs = random_inputs(-1.0, 1.0, (_SAMPLES, _RUNS, 1), seed=0)
    jitter = torch.rand(
        inputs.shape, generator=torch_generator(0, "spring jitter"), dtype=torch.float64
    )
    inputs = (inputs + 0.6 * (jitter - 0.5)).clamp(-1.0, 1.0)
    state, states = torch.zeros(_RUNS, 2, dtype=torch.float64), []
    for action in inputs:
        state = plant.predict(state, action).mean
        states.append(state)
    seen = torch.stack(states) / torch.tensor([1.0, VELOCITY_UNIT], dtype=torch.float64)
    windows = [
        make_windows(
            Log(inputs[:, run], seen[:, run], seen[:, run, :0]), input_lags=2, output_lags=2
        )
        for run in range(_RUNS)
    ]
    return forward_model(train_forward_model(windows, options).network)


def spring_controller(
    model: ForwardModel, *, sharpness: float = 0.0, disturbance_gain: float = 0.2
) -> Ngpc:
    """Return the controller of the mass-spring-damper: N2 20, Nu 3, one Newton step."""
    problem = NgpcProblem(
        outputs=model.outputs,
        last=20,
        control=3,
        tracking=np.array([1.0, 0.0])[: model.outputs],
        effort=np.array([1e-3]),
        low=np.array([-1.0]),
        high=np.array([1.0]),
        sharpness=sharpness,
        disturbance_gain=disturbance_gain,
    )
    return Ngpc(problem, model, torch.zeros(1, dtype=torch.float64))
