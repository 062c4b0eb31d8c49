"""Benchmarks of the adaptive chance-constraint safeguard itself, without training a policy."""

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from safectl.dynamics import Bicycle, Propagates, Unicycle, double_integrator, propagate_plan
from safectl.export import Network, guarded_program, interpret
from safectl.models import LearnedSafety, ScoreNetwork
from safectl.safeguards import ACS, ACSOptions, Brake, ChanceBound, CorrectionOptions, correct
from safectl.safeguards.correction import Mode
from safectl.safeguards.evidence import Limits
from safectl.seed import torch_generator
from safectl.types import Gaussian
from safectl_agents.bench import acs_theory, acs_toy
from safectl_agents.bench.benchmark import NOTHING_DRAWN, Benchmark, Measurement
from safectl_agents.bench.programs import details_of, perceptron, spec_of
from safectl_agents.bench.timing import time_calls
from safectl_agents.reliability import reliability
from safectl_hardware.verify import verify_on_board

_NX, _NU = 17, 6
_SINGLE = 2000  # timed steps with one row, each another one
_BATCH = 4096
_BOARD_ROWS = 200
_TOLERANCES = (0.05, 0.1, 0.3, 0.5, 0.8)
_DELTAS = (0.01, 0.05, 0.1)
_SAMPLES = 100_000
_HORIZON = 10


@dataclass(frozen=True)
class _LinearCritic:
    """The critic of the published vectors: Q_c = 0.5 - 0.3 a_1 + 0.4 a_2."""

    def value(self, observation: Tensor, /) -> Tensor:
        return torch.zeros_like(observation[:, :1])

    def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
        del observation
        return 0.5 - 0.3 * action[:, :1] + 0.4 * action[:, 1:]


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def gamma_vectors() -> Measurement:
    """Compare corrected actions of a linear critic with the specified ones."""
    origin, threshold = torch.zeros(1, 2), torch.full((1, 1), 0.1)
    limits = Limits(torch.full((2,), -5.0), torch.full((2,), 5.0))
    vectors: dict[Mode, tuple[tuple[float, float], int]] = {
        "newton": ((0.48, -0.64), 1),
        "gradient": ((0.4875, -0.65), 13),
    }
    worst, iterations = 0.0, {}
    for mode, (action, _) in vectors.items():
        options = CorrectionOptions(mode)
        found = correct(_LinearCritic(), origin, origin, threshold, limits, options)
        worst = max(worst, float((found.action - torch.tensor([action])).abs().max()))
        iterations[mode] = int(found.iterations)
    return Measurement(
        worst,
        details={
            "seed": NOTHING_DRAWN,
            "iterations": iterations,
            "iterations_specified": {mode: count for mode, (_, count) in vectors.items()},
        },
    )


def calibration_error() -> Measurement:
    """Learn the safety value of the toy task and compare it with Monte-Carlo."""
    generator = torch_generator(0, "toy task")
    with _one_thread():
        critic = acs_toy.learn(episodes=4000, updates=1500, generator=generator)
        state = acs_toy.starts(4000, generator)
        truth = acs_toy.monte_carlo(state, repeats=400, generator=generator)
    with torch.no_grad():
        predicted = critic.safety(state).sigmoid()[:, 0]
    found = reliability(predicted.double().numpy(), truth.double().numpy())
    distance = (predicted - truth).abs()
    details: dict[str, float] = {"seed": 0, "states": 4000, "repeats": 400}
    details |= {"bins": len(found.states), "mean_absolute_error": float(distance.mean())}
    return Measurement(found.error, details=details)


def statements() -> Measurement:
    """Count contradictions to P1 to P4 on random processes, with an adversary for P3."""
    generator = torch_generator(0, "random processes")
    process = acs_theory.random_processes(500, generator=generator)
    tables = acs_theory.solve(process, 30)
    counts: dict[str, list[acs_theory.Count]] = {}
    for eps in _TOLERANCES:
        one = acs_theory.count_one_step(process, tables, tolerance=eps, rate=0.8)
        feasible = acs_theory.count_feasible(tables, tolerance=eps, rate=0.8)
        stays, recovers = acs_theory.count_invariance(process, tables, tolerance=eps, rate=0.8)
        noisy = acs_theory.count_robustness(
            tables,
            tolerance=eps,
            rate=0.8,
            safety_error=0.05,
            advantage_error=0.05,
            generator=generator,
        )
        named = {"P1": one, "P2": feasible, "P3i": stays, "P3ii": recovers, "P4": noisy}
        for name, count in named.items():
            counts.setdefault(name, []).append(count)
    failures = sum(count.failures for part in counts.values() for count in part)
    cases = {name: sum(count.cases for count in part) for name, part in counts.items()}
    return Measurement(
        failures,
        details={"seed": 0, "processes": 500, "tolerances": list(_TOLERANCES), "cases": cases},
    )


def coverage_error() -> Measurement:
    """Compare tail frequencies after ten steps with the tolerances of the tightened bound."""
    noise = {"unicycle": [0.01, 0.01, 0.03], "bicycle": [0.0, 0.0, 0.02, 0.05]}
    models: dict[str, tuple[Propagates, list[float], list[float]]] = {
        "unicycle": (Unicycle(0.1, noise=noise["unicycle"]), [0.0, 0.0, 0.5], [1.0, 0.8]),
        "bicycle": (
            Bicycle(0.1, wheelbase=0.5, noise=noise["bicycle"]),
            [0.0, 0.0, -0.4, 1.0],
            [0.5, 0.3],
        ),
        "double_integrator": (
            double_integrator(0.1, axes=2, noise=[0.0, 0.0, 0.1, 0.1]),
            [0.0, 0.0, 1.0, -0.5],
            [0.3, 0.4],
        ),
    }
    generator = torch_generator(0, "uncertain states")
    errors = {
        name: _coverage(model, mean, action, generator)
        for name, (model, mean, action) in models.items()
    }
    details = {"seed": 0, "samples": _SAMPLES, "steps": _HORIZON, "deltas": list(_DELTAS)}
    return Measurement(max(errors.values()), details=details | {"errors": errors})


def _coverage(
    model: Propagates, mean: list[float], action: list[float], generator: torch.Generator
) -> float:
    root = torch.diag(torch.tensor([0.05, 0.05] + [0.1] * (model.nx - 2)).double())
    belief = Gaussian(torch.tensor([mean]).double(), (root @ root.T).unsqueeze(0))
    command = torch.tensor([action]).double()
    after = propagate_plan(model, belief, command.expand(_HORIZON, -1).unsqueeze(0))[-1]

    def draw() -> Tensor:
        return torch.randn(_SAMPLES, model.nx, generator=generator, dtype=torch.float64)

    state = belief.mean + draw() @ root
    for _ in range(_HORIZON):
        predicted = model.predict(state, command.expand(_SAMPLES, -1))
        state = predicted.mean + draw() * predicted.covariance[0].diagonal().sqrt()
    worst = 0.0
    for angle in np.linspace(0.0, 2.0 * np.pi, 16, endpoint=False):
        normal = torch.tensor([np.cos(angle), np.sin(angle)])
        spread = (normal @ after.covariance[0, :2, :2] @ normal).sqrt()
        along = (state[:, :2] - after.mean[0, :2]) @ normal
        for delta in _DELTAS:
            bound = NormalDist().inv_cdf(1.0 - delta) * spread
            worst = max(worst, abs(float((along < -bound).double().mean()) - delta))
    return worst


class _Scene(NamedTuple):
    """A 64-64 policy, a safeguard over 64-64 critics, and observations with their proposals."""

    policy: nn.Sequential
    acs: ACS
    observation: Tensor
    proposal: Tensor


def _scene(rows: int, *, iterations: int = 5) -> _Scene:
    """Build the scene; the bound lets about two thirds of the proposals pass."""
    generator = torch_generator(0, "safeguard scene")
    activations: list[nn.Module] = [nn.Tanh(), nn.Tanh(), nn.Identity()]
    policy = perceptron((_NX, 64, 64, _NU), activations)
    safety = ScoreNetwork(_NX, 0, generator=generator).requires_grad_(False)
    advantage = ScoreNetwork(_NX, _NU, generator=generator).requires_grad_(False)
    with torch.no_grad():
        for parameter in advantage.parameters():
            parameter.mul_(1.5)
    critic = LearnedSafety(safety, advantage)
    observation = torch.randn(rows, _NX, generator=generator)
    with torch.no_grad():
        proposal = policy(observation).clamp(-1.0, 1.0)
        known = torch.randn(1000, _NX, generator=generator)
        cost = critic.cost(known, policy(known).clamp(-1.0, 1.0))
        tolerance = (cost - 0.2 * critic.value(known)).quantile(0.67).item() / 0.8
    options = ACSOptions(ChanceBound(tolerance), CorrectionOptions(iterations=iterations))
    acs = ACS(critic, fallback=Brake(spec_of(_NX, _NU)), options=options)
    return _Scene(policy, acs, observation, proposal)


def response_overhead() -> Measurement:
    """Time one action with and without the safeguard, batch 1, one thread, another row each."""
    scene = _scene(_SINGLE)
    seconds = {}
    with _one_thread():
        for name in ("policy", "guarded"):
            places = itertools.cycle(range(_SINGLE))

            @torch.no_grad()
            def act(name: str = name, places: Iterator[int] = places) -> None:
                place = next(places)
                row = scene.observation[place : place + 1]
                action = scene.policy(row).clamp(-1.0, 1.0)
                if name == "guarded":
                    scene.acs.filter(row, action)

            seconds[name] = time_calls(act, calls=_SINGLE, warm_up=100)
    status = scene.acs.filter(scene.observation, scene.proposal).certificate.status
    details = {"seed": 0, "threads": 1, "iterations": 5, "mode": "newton"}
    details |= {"statuses": np.bincount(status.numpy(), minlength=3).tolist()}
    for name, timing in seconds.items():
        details |= timing.as_details(name)
    return Measurement(1e3 * (seconds["guarded"].p99 - seconds["policy"].p99), details=details)


def batch_overhead() -> Measurement:
    """Time 4,096 rows through the policy and the safeguard, against the policy alone."""
    scene = _scene(_BATCH)

    @torch.no_grad()
    def alone() -> None:
        scene.policy(scene.observation)

    @torch.no_grad()
    def guarded() -> None:
        scene.acs.filter(scene.observation, scene.policy(scene.observation).clamp(-1.0, 1.0))

    bare, whole = time_calls(alone, calls=30), time_calls(guarded, calls=10)
    details: dict[str, float] = {"seed": 0, "rows": _BATCH, "threads": torch.get_num_threads()}
    details |= bare.as_details("policy") | whole.as_details("guarded")
    return Measurement(whole.median / bare.median, details=details)


def step_instructions() -> Measurement:
    """Count a guarded 64-64 policy over 64-64 critics with five Newton steps on a Cortex-M4."""
    scene = _scene(_BOARD_ROWS)
    program = guarded_program("acs", spec_of(_NX, _NU), Network(scene.policy), scene.acs)
    rows = scene.observation.numpy()
    report, steps = verify_on_board(program, observations=rows), interpret(program, rows)
    decision = scene.acs.filter(scene.observation, scene.proposal)
    same = steps.status == decision.certificate.status.numpy()
    return Measurement(
        report.instructions_max,
        details=details_of(report)
        | {
            "iterations": 5,
            "statuses": np.bincount(steps.status, minlength=3).tolist(),
            "status_as_in_torch": int(same.sum()),
            "largest_difference_to_torch": float(
                np.abs(steps.action - decision.action.numpy())[same].max()
            ),
        },
    )


ACS_SAFEGUARD = (
    Benchmark(
        name="acs.gamma_vectors",
        summary="largest deviation of corrected actions from the specified test vectors",
        unit="1",
        baseline="worked out by hand for a linear critic",
        target=1e-4,
        better="lower",
        quick=True,
        measure=gamma_vectors,
    ),
    Benchmark(
        name="acs.calibration_error",
        summary="expected calibration error of a learned safety value against Monte-Carlo",
        unit="1",
        baseline="400 simulated futures per state",
        target=0.05,
        better="lower",
        quick=False,
        measure=calibration_error,
    ),
    Benchmark(
        name="acs.contradictions",
        summary="contradictions to the statements P1 to P4 on 500 random processes",
        unit="cases",
        baseline="none",
        target=0.0,
        better="lower",
        quick=True,
        measure=statements,
    ),
    Benchmark(
        name="acs.coverage_error",
        summary="largest error of a tail probability after ten uncertain steps, 1e5 samples",
        unit="1",
        baseline="Monte-Carlo",
        target=0.01,
        better="lower",
        quick=True,
        measure=coverage_error,
    ),
    Benchmark(
        name="acs.response_overhead",
        summary="what the safeguard adds to the 99th percentile of one action, batch 1, one thread",
        unit="ms",
        baseline="the policy alone, in the same run",
        target=1.0,
        better="lower",
        quick=True,
        measure=response_overhead,
    ),
    Benchmark(
        name="acs.batch_overhead",
        summary="time of 4,096 guarded actions over that of the policy alone",
        unit="ratio",
        baseline="the policy alone, in the same run",
        target=20.0,
        better="lower",
        quick=True,
        measure=batch_overhead,
    ),
    Benchmark(
        name="acs.step_instructions",
        summary="instructions of a guarded 64-64 policy, 64-64 critics, K = 5, on a Cortex-M4",
        unit="instructions",
        baseline="720,000: a step in 4 ms at 180 MHz",
        target=720_000.0,
        better="lower",
        quick=True,
        measure=step_instructions,
    ),
)
