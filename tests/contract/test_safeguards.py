"""The laws of `Safeguard`, over every implementation. Registering one is one line in SAFEGUARDS."""

import ast
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cvxpy as cp
import pytest
import torch
from cvxpy.atoms.norm1 import norm1
from torch import Tensor

from safectl.barriers import (
    Discs,
    HalfSpaces,
    RelativeDegreeTwo,
    Stack,
    StoppingDistance,
    box,
)
from safectl.dynamics import Uncertain, double_integrator
from safectl.errors import RangeError, ShapeError
from safectl.safeguards import (
    ACS,
    ACSOptions,
    AffineSignalModel,
    BarrierQP,
    Brake,
    Calibration,
    Chain,
    ChanceBound,
    Clip,
    CorrectionOptions,
    Hold,
    Least,
    RateLimit,
    Remembering,
    SafetyLayer,
    VisitLimit,
)
from safectl.safeguards.convex import ConvexGuard
from safectl.safeguards.correction import Mode
from safectl.solve.convex import ConvexSet
from safectl.spec import Signal, Spec
from safectl.types import Decision, Safeguard, Status

ROOT = Path(__file__).parents[2]
AREAS = ("safectl", "envs", "agents", "hardware", "launch")
PERIOD = 0.1
ROWS = 256

RESIDUAL_TOLERANCE = 1e-6
"""Largest residual of a certified action: ten roundings of a float32 of order one."""

ALONE_TOLERANCE = 1e-4
"""How far a row's action may depend on the batch: libraries round sums in another order, and the
projection divides by gradients that are as small as a tenth of the period."""

DISTANCE_TOLERANCE = 1e-4
"""How much longer a correction may be under a looser constraint, for the same reason."""


def spec(scale: float = 1.0) -> Spec:
    return Spec(
        observation=tuple(Signal(name, "m", -9.0, 9.0) for name in ("px", "py", "vx", "vy")),
        action=tuple(Signal(name, "m/s^2", -scale, scale) for name in ("ax", "ay")),
        period=PERIOD,
    )


DYNAMICS = double_integrator(PERIOD, axes=2)
BRAKE = Brake(spec(), velocities=(2, 3))


def stopping(half_width: float = 1.0) -> StoppingDistance:
    return StoppingDistance(
        [-half_width] * 2,
        [half_width] * 2,
        braking=1.0,
        period=PERIOD,
        positions=(0, 1),
        velocities=(2, 3),
    )


def speed_box(limit: float = 0.8) -> HalfSpaces:
    return box([-limit] * 2, [limit] * 2, positions=(2, 3))


def discs(radius: float, *, escape: bool = False) -> BarrierQP:
    barrier = Discs(torch.tensor([[0.5, 0.1], [-0.4, 0.3]]), radius)
    return BarrierQP(barrier, DYNAMICS, fallback=BRAKE, rate=0.2, escape=escape)


def second_order(radius: float) -> BarrierQP:
    barrier = RelativeDegreeTwo(Discs(torch.tensor([[0.5, 0.1]]), radius), DYNAMICS, rate=2.0)
    return BarrierQP(barrier, DYNAMICS, fallback=BRAKE, rate=0.2)


def noisy() -> BarrierQP:
    model = Uncertain(DYNAMICS, 0.0004 * torch.eye(4))
    return BarrierQP(speed_box(), model, fallback=BRAKE, rate=0.7, tolerance=0.05)


def safety_layer(limit: float = 0.6, rate: float = 1.0) -> SafetyLayer:
    generator = torch.Generator().manual_seed(3)
    model = AffineSignalModel(4, 2, 2, hidden=(16,), generator=generator).requires_grad_(False)
    calibration = Calibration(torch.tensor([0.05, 0.1]), 0.05, 100, torch.tensor([0.02, 0.04]))
    limits = [limit, limit]
    return SafetyLayer(
        model,
        calibration,
        spec=spec(),
        limit=limits,
        fallback=Least(spec(), model, limit=limits),
        rate=rate,
        signal=lambda observation: observation[:, 2:].abs(),
    )


@dataclass(frozen=True)
class SpeedCosts:
    """Two costs that grow with the next speed; as probabilities, so steep only near 0.5."""

    def value(self, observation: Tensor, /) -> Tensor:
        return torch.sigmoid(6.0 * observation[:, 2:].abs() - 4.0)

    def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
        return torch.sigmoid(6.0 * (observation[:, 2:] + 0.5 * action).abs() - 4.0)


def acs(mode: Mode, *, recover: bool = True) -> ACS:
    options = ACSOptions(ChanceBound(0.2), CorrectionOptions(mode, 60), recover=recover)
    return ACS(SpeedCosts(), fallback=BRAKE, options=options)


def convex(limit: float) -> ConvexGuard:
    action, speed = cp.Variable(2), cp.Parameter(2)
    constraints = [norm1(action + speed) <= limit]
    stated = ConvexSet(action, {"speed": speed}, constraints, low=[-1.0] * 2, high=[1.0] * 2)
    return ConvexGuard(
        stated,
        lambda observation: {"speed": observation[:, 2:]},
        fallback=BRAKE,
        claim="|ax + vx| + |ay + vy| <= limit",
    )


def chain(rows: int) -> Chain:
    qp = BarrierQP(Stack(stopping(), speed_box()), DYNAMICS, fallback=BRAKE)
    return Chain(RateLimit(spec(), [8.0, 8.0], rows=rows), qp, Clip(spec()), fallback=BRAKE)


def remembering(rows: int) -> Remembering:
    hold = Hold(BRAKE, rows=rows, patience=2)
    return Remembering(BarrierQP(speed_box(), DYNAMICS, fallback=hold), [hold])


def visit_limit(limit: float) -> VisitLimit:
    def bound(observation: Tensor, action: Tensor) -> Tensor:
        return torch.sigmoid(3.0 * (observation[:, 2:] + action).norm(dim=-1) - 4.0)

    return VisitLimit(bound, spec=spec(), limit=limit, steps=3)


@dataclass(frozen=True)
class Case:
    make: Callable[[int], Safeguard]  # from the number of rows
    looser: Callable[[int], Safeguard] | None = None  # the same with a larger constraint set


SAFEGUARDS = {
    "clip": Case(lambda _: Clip(spec()), lambda _: Clip(spec(1.5))),
    "rate limit": Case(
        lambda rows: RateLimit(spec(), [5.0, 2.0], rows=rows),
        lambda rows: RateLimit(spec(), [7.0, 2.0], rows=rows),
    ),
    "barrier, linear": Case(
        lambda _: BarrierQP(speed_box(), DYNAMICS, fallback=BRAKE, rate=0.7),
        lambda _: BarrierQP(speed_box(0.9), DYNAMICS, fallback=BRAKE, rate=0.7),
    ),
    "barrier, concave": Case(
        lambda _: BarrierQP(stopping(), DYNAMICS, fallback=BRAKE),
        lambda _: BarrierQP(stopping(1.05), DYNAMICS, fallback=BRAKE),
    ),
    "barrier, convex": Case(lambda _: discs(0.3), lambda _: discs(0.25)),
    "barrier, with escape": Case(
        lambda _: discs(0.3, escape=True), lambda _: discs(0.25, escape=True)
    ),
    "barrier, with noise": Case(lambda _: noisy()),
    "barrier, second order": Case(lambda _: second_order(0.3)),
    "safety layer": Case(lambda _: safety_layer(), lambda _: safety_layer(0.7)),
    "safety layer, gradual": Case(
        lambda _: safety_layer(rate=0.5), lambda _: safety_layer(0.7, rate=0.5)
    ),
    "learned costs, gradient": Case(lambda _: acs("gradient", recover=False)),
    "learned costs, newton": Case(lambda _: acs("newton")),
    "learned costs, bfgs": Case(lambda _: acs("bfgs")),
    "learned costs, named fallback": Case(lambda _: acs("newton", recover=False)),
    "set in CVXPY": Case(lambda _: convex(1.0), lambda _: convex(1.2)),
    "visit limit": Case(lambda _: visit_limit(0.1), lambda _: visit_limit(0.2)),
    "chain": Case(chain),
    "remembering": Case(remembering),
}


@pytest.fixture(params=SAFEGUARDS)
def case(request: pytest.FixtureRequest) -> Case:
    return SAFEGUARDS[request.param]


def batch(rows: int = ROWS) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(11)
    observation = 2.0 * torch.rand(rows, 4, generator=generator) - 1.0
    return observation, 1.5 * torch.randn(rows, 2, generator=generator)


def has(decision: Decision, status: Status) -> Tensor:
    return decision.certificate.status == status.value


def test_it_is_a_safeguard_with_a_claim(case: Case) -> None:
    safeguard = case.make(1)
    assert isinstance(safeguard, Safeguard)
    assert safeguard.claim


def test_the_cases_meet_both_outcomes(case: Case) -> None:
    decision = case.make(ROWS).filter(*batch())
    assert has(decision, Status.KEPT).any()
    assert has(decision, Status.CORRECTED).any()


def test_kept_means_bit_for_bit(case: Case) -> None:
    observation, action = batch()
    decision = case.make(ROWS).filter(observation, action)
    same = (decision.action.view(torch.int32) == action.view(torch.int32)).all(-1)
    assert same[has(decision, Status.KEPT)].all()
    assert not same[has(decision, Status.CORRECTED)].any()


def test_certified_means_margin_and_residual(case: Case) -> None:
    decision = case.make(ROWS).filter(*batch())
    certified = ~has(decision, Status.FALLBACK)
    certificate = decision.certificate
    assert (certificate.margin[certified] >= 0.0).all()
    assert (certificate.residual[certified] <= RESIDUAL_TOLERANCE).all()
    assert (certificate.risk[certified] < 1.0).all()
    assert ((certificate.risk >= 0.0) & (certificate.risk <= 1.0)).all()
    assert not certificate.margin.isnan().any()
    assert not certificate.residual.isnan().any()


@pytest.mark.parametrize(
    ("observation", "action"),
    [
        (torch.zeros(ROWS, 4), torch.zeros(ROWS, 1)),
        (torch.zeros(ROWS, 4), torch.zeros(ROWS, 3)),
        (torch.zeros(1, 4), torch.zeros(ROWS, 2)),
        (torch.zeros(ROWS, 4), torch.zeros(1, 2)),
        (torch.zeros(4), torch.zeros(2)),
        (torch.zeros(ROWS, 4), torch.zeros(2)),
        (torch.zeros(1, ROWS, 4), torch.zeros(1, ROWS, 2)),
    ],
)
def test_shapes_that_would_broadcast_are_refused(
    case: Case, observation: Tensor, action: Tensor
) -> None:
    with pytest.raises(ShapeError):
        case.make(ROWS).filter(observation, action)


@pytest.mark.parametrize(
    ("seen", "proposed"),
    [
        (torch.float64, torch.float32),
        (torch.float32, torch.float64),
        (torch.int64, torch.float32),
        (torch.int64, torch.int64),
    ],
)
def test_mixed_and_whole_numbers_are_refused(
    case: Case, seen: torch.dtype, proposed: torch.dtype
) -> None:
    with pytest.raises(RangeError, match="dtype"):
        case.make(ROWS).filter(torch.zeros(ROWS, 4).to(seen), torch.zeros(ROWS, 2).to(proposed))


def test_a_fallback_promises_nothing_about_the_risk(case: Case) -> None:
    observation, action = 0.1 * batch()[0], torch.zeros(ROWS, 2)
    action[5] = torch.nan
    certificate = case.make(ROWS).filter(observation, action).certificate
    assert certificate.risk[5] == 1.0


def test_actions_are_finite_within_limits_and_without_gradient(case: Case) -> None:
    decision = case.make(ROWS).filter(*batch())
    assert decision.action.abs().max() <= 1.0
    assert not decision.action.requires_grad


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["observation", "action"])
def test_a_broken_row_falls_back_alone(case: Case, value: float, where: str) -> None:
    observation, action = batch()
    sound = case.make(ROWS).filter(observation, action)
    broken = {"observation": observation.clone(), "action": action.clone()}
    broken[where][5, 1] = value
    decision = case.make(ROWS).filter(broken["observation"], broken["action"])
    assert decision.certificate.status[5] == Status.FALLBACK
    assert decision.action[5].isfinite().all()
    assert decision.action[5].abs().max() <= 1.0
    others = torch.arange(ROWS) != 5
    torch.testing.assert_close(
        decision.action[others], sound.action[others], atol=ALONE_TOLERANCE, rtol=0.0
    )


def test_a_blind_fallback_claims_nothing(case: Case) -> None:
    observation, action = batch()
    observation[5] = torch.nan
    certificate = case.make(ROWS).filter(observation, action).certificate
    assert certificate.margin[5] == -torch.inf
    assert certificate.residual[5] == torch.inf
    assert certificate.risk[5] == 1.0


def test_a_broken_proposal_leaves_the_fallback_its_evidence(case: Case) -> None:
    observation, action = 0.1 * batch()[0], torch.zeros(ROWS, 2)
    action[5] = torch.nan
    certificate = case.make(ROWS).filter(observation, action).certificate
    assert certificate.status[5] == Status.FALLBACK
    assert certificate.margin[5].isfinite()
    assert certificate.residual[5].isfinite()


@pytest.mark.parametrize("scale", [1e6, 1e30])
def test_absurd_numbers_neither_raise_nor_pass(case: Case, scale: float) -> None:
    observation, action = batch()
    decision = case.make(ROWS).filter(scale * observation, scale * action)
    assert decision.action.isfinite().all()
    assert decision.action.abs().max() <= 1.0
    certified = ~has(decision, Status.FALLBACK)
    assert (decision.certificate.margin[certified] >= 0.0).all()


def test_a_row_does_not_depend_on_the_batch(case: Case) -> None:
    observation, action = batch()
    together = case.make(ROWS).filter(observation, action)
    for row in range(32):
        alone = case.make(1).filter(observation[row : row + 1], action[row : row + 1])
        torch.testing.assert_close(
            alone.action[0], together.action[row], atol=ALONE_TOLERANCE, rtol=0.0
        )


WITH_MEMORY = {
    name
    for name, case in SAFEGUARDS.items()
    if isinstance(case.make(1), RateLimit | Chain | Remembering)
}
"""They have a fixed number of rows."""


@pytest.mark.parametrize("name", sorted(SAFEGUARDS.keys() - WITH_MEMORY))
def test_an_empty_batch_is_a_batch(name: str) -> None:
    assert SAFEGUARDS[name].make(1).filter(*batch(0)).action.shape == (0, 2)


def test_filtering_twice_changes_nothing(case: Case) -> None:
    observation, action = batch()
    safeguard = case.make(ROWS)
    once = safeguard.filter(observation, action)
    twice = safeguard.filter(observation, once.action)
    certified = ~has(once, Status.FALLBACK)
    assert torch.equal(once.action[certified], twice.action[certified])
    assert has(twice, Status.KEPT)[certified].all()
    assert torch.equal(once.action, twice.action)


NEAREST = [name for name, case in SAFEGUARDS.items() if case.looser is not None]
"""Those that claim the nearest action."""


@pytest.mark.parametrize("name", NEAREST)
def test_a_looser_constraint_never_enlarges_the_correction(name: str) -> None:
    case = SAFEGUARDS[name]
    assert case.looser is not None
    observation, action = batch()
    tight = case.make(ROWS).filter(observation, action)
    loose = case.looser(ROWS).filter(observation, action)
    certified = ~has(tight, Status.FALLBACK)
    lengths = [(decision.action - action).norm(dim=-1)[certified] for decision in (tight, loose)]
    assert (lengths[1] <= lengths[0] + DISTANCE_TOLERANCE).all()
    assert not has(loose, Status.FALLBACK)[certified].any()


def test_only_safeguards_make_decisions() -> None:
    makers = set()
    for area in AREAS:
        for path in (ROOT / area).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Call) and _name(node.func) == "Decision":
                    makers.add(path.relative_to(ROOT).parent)
    assert makers == {Path("safectl/safeguards")}


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
