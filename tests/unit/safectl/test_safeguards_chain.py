import pytest
import torch
from torch import Tensor

from safectl.barriers import box
from safectl.dynamics import LinearDynamics
from safectl.errors import RangeError
from safectl.safeguards import BarrierQP, Brake, Chain, Clip, RateLimit, Remembering
from safectl.safeguards.evidence import Candidate, action_limits, decide
from safectl.spec import Signal, Spec
from safectl.types import Certificate, Decision, Status

SPEC = Spec(
    observation=(Signal("p", "m", -9.0, 9.0),),
    action=(Signal("u", "m/s", -1.0, 1.0),),
    period=0.1,
)
MODEL = LinearDynamics(torch.zeros(1, 1).double(), torch.ones(1, 1).double(), 0.1)
ZERO = torch.zeros(1, 1)


class Between:
    """Keeps low <= u <= high, with a stated risk; for tests."""

    def __init__(self, low: float, high: float, risk: float = 0.0) -> None:
        self.low, self.high, self.risk = low, high, risk
        self.claim = f"{low} <= u <= {high}"

    def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
        point = action.clamp(self.low, self.high)
        margin = torch.minimum(point - self.low, self.high - point)[:, 0]
        candidate = Candidate(
            point, margin, torch.zeros_like(margin), torch.full_like(margin, self.risk)
        )
        limits, usable = action_limits(SPEC, action), action.isfinite().all(-1)
        return decide(action, candidate, candidate, limits=limits, usable=usable)


def test_certificates_are_taken_together() -> None:
    chain = Chain(Between(-1.0, 0.8, 0.1), Between(-0.5, 0.6, 0.2), fallback=Brake(SPEC))
    decision = chain.filter(ZERO, torch.tensor([[0.5]]))
    torch.testing.assert_close(decision.certificate.margin, torch.tensor([0.1]))
    torch.testing.assert_close(decision.certificate.risk, torch.tensor([0.3]))
    assert decision.certificate.status.tolist() == [Status.KEPT]
    assert chain.claim == "-1.0 <= u <= 0.8; and -0.5 <= u <= 0.6"


def test_what_a_later_one_undoes_is_corrected_again() -> None:
    class Away(Between):
        """Moves 0.25 to 0.5, which the first one does not accept, but accepts 0.2."""

        def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
            moved = torch.where(
                (action > 0.2) & (action < 0.4), torch.full_like(action, 0.5), action
            )
            inner = super().filter(observation, moved)
            return decide(
                action,
                Candidate(
                    inner.action,
                    inner.certificate.margin,
                    inner.certificate.residual,
                    inner.certificate.risk,
                ),
                Candidate(inner.action, *(inner.certificate.margin,) * 3),
                limits=action_limits(SPEC, action),
                usable=torch.tensor([True]),
            )

    chain = Chain(Between(-1.0, 0.25), Away(-1.0, 1.0), Between(-1.0, 0.1), fallback=Brake(SPEC))
    decision = chain.filter(ZERO, torch.tensor([[0.9]]))
    torch.testing.assert_close(decision.action, torch.tensor([[0.1]]))
    assert decision.certificate.status.tolist() == [Status.CORRECTED]


def test_safeguards_that_cannot_agree_take_the_fallback_of_the_chain() -> None:
    chain = Chain(Between(0.5, 1.0), Between(-1.0, 0.2), fallback=Brake(SPEC, fixed=[-0.25]))
    decision = chain.filter(ZERO, torch.tensor([[0.4]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    torch.testing.assert_close(decision.action, torch.tensor([[-0.25]]))
    assert decision.certificate.margin.tolist() == [-torch.inf]
    assert decision.certificate.residual.tolist() == [torch.inf]
    assert decision.certificate.risk.tolist() == [1.0]


def test_a_fallback_that_all_accept_keeps_its_certificate() -> None:
    chain = Chain(Between(-1.0, 0.8), Clip(SPEC), fallback=Brake(SPEC))
    seen = torch.tensor([[0.0], [torch.nan]])
    decision = chain.filter(seen, torch.tensor([[torch.nan], [0.1]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK, Status.FALLBACK]
    torch.testing.assert_close(decision.action, torch.zeros(2, 1))
    assert decision.certificate.margin.tolist()[1] == -torch.inf


def test_a_fallback_inside_stays_visible() -> None:
    wall = box([-torch.inf], [1.0], positions=(0,))
    guard = BarrierQP(wall, MODEL, fallback=Brake(SPEC, fixed=[-1.0]))
    chain = Chain(guard, Clip(SPEC), fallback=Brake(SPEC, fixed=[-1.0]))
    decision = chain.filter(torch.tensor([[1.5]]), torch.tensor([[0.5]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    torch.testing.assert_close(decision.action, torch.tensor([[-1.0]]))


def test_a_fallback_in_a_later_sweep_stays_visible() -> None:
    class Mover(Between):
        """Moves 0.3 to 0.5 and keeps everything else."""

        def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
            inner = super().filter(observation, torch.where(action == 0.3, 0.5, action))
            found = Candidate(inner.action, *_numbers(inner))
            usable = torch.tensor([True])
            return decide(action, found, found, limits=action_limits(SPEC, action), usable=usable)

    class Cautious(Between):
        """Keeps what is below 0.4, and falls back to 0.1 elsewhere."""

        def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
            found = super().filter(observation, action)
            last = Candidate(torch.full_like(action, 0.1), *_numbers(found))
            usable = (action < 0.4).all(-1)
            limits = action_limits(SPEC, action)
            inner = Candidate(action, *_numbers(found))
            return decide(action, inner, last, limits=limits, usable=usable)

    chain = Chain(Cautious(-1.0, 1.0), Mover(-1.0, 1.0), fallback=Brake(SPEC))
    decision = chain.filter(ZERO, torch.tensor([[0.3]]))
    torch.testing.assert_close(decision.action, torch.tensor([[0.1]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]


class Careless(Between):
    """Says KEPT with the evidence that it was made with; no safeguard of ours does."""

    def __init__(self, margin: float, residual: float) -> None:
        super().__init__(-1.0, 1.0)
        self.margin, self.residual = margin, residual

    def filter(self, observation: Tensor, action: Tensor, /) -> Decision:
        found = super().filter(observation, action)
        one = torch.ones_like(found.certificate.margin)
        certificate = Certificate(
            found.certificate.status, self.margin * one, 0.0 * one, self.residual * one
        )
        return Decision(found.action, certificate)


@pytest.mark.parametrize(
    ("margin", "residual"), [(torch.nan, 0.0), (-0.1, 0.0), (0.1, 0.2), (0.1, torch.nan)]
)
def test_a_chain_does_not_certify_what_its_evidence_denies(margin: float, residual: float) -> None:
    chain = Chain(Careless(margin, residual), Clip(SPEC), fallback=Brake(SPEC))
    decision = chain.filter(ZERO, torch.tensor([[0.3]]))
    assert decision.certificate.status.tolist() == [Status.FALLBACK]
    assert not decision.certificate.margin.isnan().any()


def _numbers(decision: Decision) -> tuple[Tensor, Tensor, Tensor]:
    certificate = decision.certificate
    return certificate.margin, certificate.residual, certificate.risk


def test_an_empty_chain_is_refused() -> None:
    with pytest.raises(RangeError):
        Chain(fallback=Brake(SPEC))
    with pytest.raises(RangeError):
        Chain(Clip(SPEC), fallback=Brake(SPEC), sweeps=1)


def test_a_chain_forgets_with_its_members() -> None:
    spec = Spec((Signal("p", "m", -9.0, 9.0),), (Signal("u", "m/s", -1.0, 1.0),), 0.1)
    limit = RateLimit(spec, [2.0], rows=1)
    chain = Chain(Remembering(limit, [limit]), Clip(spec), fallback=Brake(spec))
    seen, full = torch.zeros(1, 1), torch.ones(1, 1)
    steps = [float(chain.filter(seen, full).action) for _ in range(2)]
    assert steps[1] > steps[0] > 0.0
    chain.reset(torch.tensor([True]))
    assert float(chain.filter(seen, full).action) == steps[0]
