from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from safectl.errors import RangeError
from safectl.safeguards import (
    ACS,
    ACSOptions,
    Brake,
    ChanceBound,
    CorrectionOptions,
    SafetyForm,
    correct,
    epsilon_schedule,
)
from safectl.safeguards.correction import Mode
from safectl.safeguards.evidence import Limits
from safectl.solve import project
from safectl.spec import Signal, Spec
from safectl.types import Status

SPEC = Spec(
    observation=(Signal("x", "m", -9.0, 9.0), Signal("y", "m", -9.0, 9.0)),
    action=(Signal("vx", "m/s", -1.0, 1.0), Signal("vy", "m/s", -1.0, 1.0)),
    period=0.1,
)
WIDE = Limits(torch.full((2,), -5.0), torch.full((2,), 5.0))
MODES: tuple[Mode, ...] = ("gradient", "newton", "bfgs")


@dataclass(frozen=True)
class Linear:
    """Q_c = offset - slopes a, one row of slopes per cost; V_c is constant."""

    slopes: Tensor
    offset: float = 0.5
    state_value: float = 0.0

    def value(self, observation: Tensor, /) -> Tensor:
        return observation.new_full((len(observation), len(self.slopes)), self.state_value)

    def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
        return self.offset - action @ self.slopes.to(action).T


@dataclass(frozen=True)
class Disc:
    """Q_c falls with the distance from a point of the action space: bent, flat at the centre."""

    centre: tuple[float, float] = (0.0, 0.0)

    def value(self, observation: Tensor, /) -> Tensor:
        return observation.new_full((len(observation), 1), 0.2)

    def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
        return torch.exp(-(action - action.new_tensor(self.centre)).square().sum(-1, keepdim=True))


VECTOR = Linear(torch.tensor([[0.3, -0.4]]))
"""The linear critic of the test vectors: g(a) = -0.5 + 0.3 a_1 - 0.4 a_2."""


@pytest.mark.parametrize(
    ("mode", "action", "iterations"),
    [("newton", (0.48, -0.64), 1), ("gradient", (0.4875, -0.65), 13)],
)
def test_the_correction_gives_the_published_vectors(
    mode: Mode, action: tuple[float, float], iterations: int
) -> None:
    origin, threshold = torch.zeros(1, 2), torch.full((1, 1), 0.1)
    found = correct(VECTOR, origin, origin, threshold, WIDE, CorrectionOptions(mode=mode))
    torch.testing.assert_close(found.action, torch.tensor([action]), atol=1e-4, rtol=0.0)
    assert found.iterations.item() == iterations
    assert found.residual.item() == 0.0


def test_newton_equals_the_closed_form_of_the_linear_safety_layer() -> None:
    generator = torch.Generator().manual_seed(1)
    proposal = torch.randn(200, 2, generator=generator).clamp(-1.0, 1.0).double()
    wide = Limits(WIDE.low.double(), WIDE.high.double())
    threshold = torch.full((200, 1), 0.1, dtype=torch.float64)
    found = correct(VECTOR, proposal, proposal, threshold, wide, CorrectionOptions())
    slope = VECTOR.slopes[0].double()
    missing = (VECTOR.cost(proposal, proposal) - threshold).clamp(min=0.0)
    closed = proposal + missing * slope / slope.square().sum()
    torch.testing.assert_close(found.action, closed, atol=1e-9, rtol=0.0)


def test_the_two_forms_of_the_constraint_admit_the_same_actions() -> None:
    generator = torch.Generator().manual_seed(2)
    safety, advantage = (torch.rand(2000, 1, generator=generator) for _ in range(2))
    advantage = 2.0 * advantage - 1.0
    critic = SafetyForm(lambda _: safety, lambda *_: advantage)
    row = torch.zeros(2000, 2)
    for eps in (0.05, 0.3, 1.0):
        for alpha in (0.3, 0.8, 1.0):
            required = -alpha * (safety - (1.0 - eps))
            threshold = ChanceBound(eps, alpha).threshold(critic.value(row))
            clear = (advantage - required).abs() > 1e-6
            same = (advantage >= required) == (critic.cost(row, row) <= threshold)
            assert same[clear].all()


def test_without_adaptation_the_bound_is_the_fixed_one() -> None:
    value = torch.rand(100, 2, generator=torch.Generator().manual_seed(3))
    assert torch.equal(ChanceBound(0.1, 1.0).threshold(value), torch.full((100, 2), 0.1))


def test_above_one_and_a_quarter_nothing_is_corrected() -> None:
    value = torch.linspace(0.0, 1.0, 101).unsqueeze(-1)
    assert (ChanceBound(1.25, 0.8).threshold(value) >= 1.0).all()


def test_the_tolerance_falls_as_in_the_prototype() -> None:
    expected = [3.7, 3.4, 3.1, 2.8, 2.5, 2.2, 1.9, 1.6, 1.3, 1.0, 0.7, 0.4, 0.3, 0.3]
    assert [epsilon_schedule(epoch) for epoch in range(14)] == pytest.approx(expected)


@pytest.mark.parametrize("mode", MODES)
def test_several_costs_are_met_together(mode: Mode) -> None:
    critic = Linear(torch.tensor([[0.6, 0.1], [-0.1, 0.7]]))
    options = CorrectionOptions(mode=mode, iterations=40)
    origin, threshold = torch.zeros(3, 2), torch.full((3, 2), 0.2)
    found = correct(critic, origin, origin, threshold, WIDE, options)
    assert (found.residual == 0.0).all()
    assert (found.cost <= threshold).all()


def test_correction_leaves_no_gradient_and_works_without_grad() -> None:
    network = torch.nn.Linear(4, 1)

    class Critic:
        def value(self, observation: Tensor, /) -> Tensor:
            return observation.new_zeros(len(observation), 1)

        def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
            return network(torch.cat([observation, action], 1))

    rows = torch.randn(50, 2, generator=torch.Generator().manual_seed(4), requires_grad=True)
    threshold = torch.full((50, 1), -0.2)
    with_graph = correct(Critic(), rows, rows, threshold, WIDE, CorrectionOptions())
    with torch.no_grad():
        without = correct(Critic(), rows, rows, threshold, WIDE, CorrectionOptions())
    assert torch.equal(with_graph.action, without.action)
    assert not with_graph.action.requires_grad
    assert network.weight.grad is None
    assert rows.grad is None


def test_where_the_bound_is_out_of_reach_the_best_action_is_marked() -> None:
    acs = ACS(VECTOR, fallback=Brake(SPEC))
    decision = acs.filter(torch.zeros(1, 2), torch.zeros(1, 2))
    expected = torch.tensor([[0.504, -0.672]])
    torch.testing.assert_close(decision.action, expected, atol=1e-4, rtol=0.0)
    steep = replace(VECTOR, offset=2.0)
    decision = ACS(steep, fallback=Brake(SPEC)).filter(torch.zeros(1, 2), torch.zeros(1, 2))
    assert decision.certificate.status.item() == Status.FALLBACK
    torch.testing.assert_close(decision.action, torch.tensor([[1.0, -1.0]]))
    options = ACSOptions(recover=False)
    named = ACS(steep, fallback=Brake(SPEC), options=options)
    decision = named.filter(torch.zeros(1, 2), torch.ones(1, 2))
    assert decision.certificate.status.item() == Status.FALLBACK
    assert decision.certificate.margin.item() == pytest.approx(0.08 - 2.0)
    assert torch.equal(decision.action, torch.zeros(1, 2))


def test_random_candidates_help_where_the_critic_is_flat() -> None:
    centred = Disc()
    origin = torch.zeros(20, 2)
    options = ACSOptions(correction=CorrectionOptions(candidates=10, spread=0.5))
    generator = torch.Generator().manual_seed(5)
    acs = ACS(centred, fallback=Brake(SPEC), options=options, generator=generator)
    stuck = ACS(centred, fallback=Brake(SPEC)).explain(origin, origin)
    helped = acs.explain(origin, origin)
    assert (stuck.cost == 1.0).all()
    assert (helped.cost < 0.6).all()


def test_candidates_without_a_generator_are_refused_before_operation() -> None:
    options = ACSOptions(correction=CorrectionOptions(candidates=10))
    with pytest.raises(RangeError, match="generator"):
        ACS(VECTOR, fallback=Brake(SPEC), options=options)
    acs = ACS(VECTOR, fallback=Brake(SPEC))
    with pytest.raises(RangeError, match="generator"):
        acs.options = options


def test_candidates_are_drawn_for_the_rows_alone_that_the_steps_leave_outside() -> None:
    options = CorrectionOptions(candidates=10, spread=0.5)
    rows, threshold = torch.tensor([[0.3, 0.1], [0.0, 0.0], [0.2, 0.2]]), torch.full((3, 1), 0.5)
    generators = [torch.Generator().manual_seed(5) for _ in range(2)]
    together, alone = (
        correct(Disc(), part, part, threshold[: len(part)], WIDE, options, generator=generator)
        for part, generator in zip((rows, rows[1:2]), generators, strict=True)
    )
    assert torch.equal(together.action[1:2], alone.action)
    assert torch.equal(generators[0].get_state(), generators[1].get_state())


def test_a_schedule_replaces_the_options() -> None:
    acs = ACS(VECTOR, fallback=Brake(SPEC))
    origin = torch.zeros(1, 2)
    acs.options = ACSOptions(bound=ChanceBound(tolerance=epsilon_schedule(0)))
    assert acs.filter(origin, origin).certificate.status.item() == Status.KEPT
    acs.options = ACSOptions(bound=ChanceBound(tolerance=epsilon_schedule(12)))
    assert acs.filter(origin, origin).certificate.status.item() == Status.CORRECTED


def test_the_certificate_is_recomputed_from_the_action() -> None:
    critic = Disc(centre=(0.3, -0.2))
    rows = torch.rand(100, 2, generator=torch.Generator().manual_seed(6)) - 0.5
    explained = ACS(critic, fallback=Brake(SPEC)).explain(rows, rows)
    action, certificate = explained.decision
    cost = critic.cost(rows, action)
    torch.testing.assert_close(certificate.margin, (explained.threshold - cost).squeeze(-1))
    certified = certificate.status != Status.FALLBACK
    assert torch.equal(certificate.risk[certified], cost.squeeze(-1)[certified])
    assert torch.equal(certificate.residual, (-certificate.margin).clamp(min=0.0))


@dataclass(frozen=True)
class Broken:
    """A critic one of whose predictions is not finite in the second row."""

    where: str
    what: float

    def value(self, observation: Tensor, /) -> Tensor:
        return self._spoiled("value", observation.new_zeros(len(observation), 1))

    def cost(self, observation: Tensor, action: Tensor, /) -> Tensor:
        return self._spoiled("cost", 0.9 + 0.01 * action[:, :1]) + 0.0 * observation[:, :1]

    def _spoiled(self, name: str, numbers: Tensor) -> Tensor:
        rows = torch.arange(len(numbers)).unsqueeze(-1) == 1
        return torch.where(rows, self.what, numbers) if name == self.where else numbers


@pytest.mark.parametrize("what", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", ["value", "cost"])
def test_where_the_critic_is_not_finite_the_fallback_is_sent(where: str, what: float) -> None:
    brake = Brake(SPEC, fixed=(-0.5, 0.25))
    rows, proposal = torch.zeros(2, 2), torch.full((2, 2), 0.75)
    action, certificate = ACS(Broken(where, what), fallback=brake).filter(rows, proposal)
    assert (certificate.status == Status.FALLBACK).all()
    assert torch.equal(action[1], torch.tensor([-0.5, 0.25]))
    assert action[0, 0] == -1.0  # the best action found, where the critic can tell
    assert certificate.margin[1] == -torch.inf


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("share", [0.5, 0.2, 0.1])
@pytest.mark.parametrize("batch", [1, 2])
def test_the_correction_moves_along_an_active_limit(mode: Mode, share: float, batch: int) -> None:
    critic = Linear(torch.tensor([[-1.0, -share]]), offset=1.0)  # Q_c = 1 + a_1 + share a_2
    start = torch.tensor([[-1.0, 0.0]]).expand(batch, -1)
    threshold = torch.full((batch, 1), -0.5 * share)
    box = Limits(-torch.ones(2), torch.ones(2))
    found = correct(critic, start, start, threshold, box, CorrectionOptions(mode))
    assert (found.residual == 0.0).all()
    nearest = torch.tensor([[-1.0, -0.5]]).expand(batch, -1)
    torch.testing.assert_close(found.action, nearest, atol=0.06, rtol=0.0)


def test_newton_is_exact_for_a_linear_cost_within_limits() -> None:
    generator = torch.Generator().manual_seed(7)
    box = Limits(-torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64))
    for _ in range(20):
        slope, start = torch.randn(2, 50, 4, generator=generator, dtype=torch.float64)
        critic, start = Linear(slope[:1]), start.clamp(*box)
        threshold = torch.full((50, 1), 0.5 - 0.7 * slope[0].abs().sum().item()).double()
        found = correct(critic, start, start, threshold, box, CorrectionOptions(iterations=4))
        gap = critic.cost(start, start) - threshold
        nearest = project(start, slope[:1].expand(50, 1, 4), gap + start @ slope[:1].T, *box)
        assert (found.residual == 0.0).all()
        torch.testing.assert_close(found.action, nearest.point, atol=1e-9, rtol=0.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: ChanceBound(tolerance=0.0),
        lambda: ChanceBound(recovery_rate=0.0),
        lambda: ChanceBound(gamma_correction=1.1),
        lambda: CorrectionOptions(iterations=0),
        lambda: CorrectionOptions(damping=1.5),
        lambda: CorrectionOptions(step=0.0),
        lambda: CorrectionOptions(candidates=-1),
    ],
)
def test_options_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(RangeError):
        make()  # type: ignore[operator]  # a list of constructors


@pytest.mark.parametrize(
    "critic", [Disc(), Linear(torch.tensor([[0.3, -0.4], [0.5, 0.1]]), offset=0.3)]
)
def test_a_row_alone_has_the_evidence_that_it_has_in_a_batch(critic: Disc | Linear) -> None:
    generator = torch.Generator().manual_seed(3)
    observation = torch.randn(60, 2, generator=generator)
    action = 1.5 * torch.randn(60, 2, generator=generator)
    action[0, 1], observation[1, 0] = torch.nan, torch.inf
    acs = ACS(critic, fallback=Brake(SPEC), options=ACSOptions(ChanceBound(0.5)))
    batch = acs.filter(observation, action)
    assert set(batch.certificate.status.tolist()) >= {Status.KEPT.value, Status.FALLBACK.value}
    assert bool((batch.certificate.risk[batch.certificate.status == Status.KEPT.value] > 0).any())
    for row in range(len(action)):
        alone = acs.filter(observation[row : row + 1], action[row : row + 1])
        torch.testing.assert_close(alone.action[0], batch.action[row], atol=1e-5, rtol=0.0)
        for name in ("status", "margin", "risk", "residual"):
            found, expected = getattr(alone.certificate, name), getattr(batch.certificate, name)
            torch.testing.assert_close(found[0], expected[row], atol=1e-5, rtol=0.0)
