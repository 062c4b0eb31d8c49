"""Single rows decided by compiled code, and when it is not trusted."""

import pytest
import torch

from safectl.errors import ShapeError, UnsupportedLayer, VerificationError
from safectl.export.compiled import CompiledFilter
from safectl.export.guard import filter_program
from safectl.export.interpret import interpret
from safectl.safeguards import BarrierQP, Brake, Clip, RateLimit, Remembering
from safectl.spec import Signal, Spec
from safectl.types import Status
from safectl_envs.catalogue import find_world

SPEC = Spec(
    (Signal("x", "m", -1.0, 1.0),), (Signal("u", "m", -1.0, 1.0), Signal("v", "m", 0.0, 2.0)), 0.1
)


BACKOFF = 1e-3
"""Corrections aim inside the constraint by units of rounding, which a square root magnifies."""


class Careless:
    """Decides otherwise than the program that is made for it."""

    def __init__(self, spec):
        self.claim, self._clip = "", Clip(spec)

    def filter(self, observation, action):
        return self._clip.filter(observation, 2.0 * action)


def test_limits_alone_are_a_program_whose_margin_is_the_distance_to_them():
    rows = torch.tensor([[0.0, 0.5, 1.5], [0.0, 3.0, 1.0]])
    steps = interpret(filter_program("limits", SPEC, Clip(SPEC)), rows.numpy())
    decision = Clip(SPEC).filter(rows[:, :1], rows[:, 1:])
    assert steps.action.tolist() == decision.action.tolist()
    assert steps.margin.tolist() == decision.certificate.margin.tolist() == [0.5, 0.0]


def test_batches_other_dtypes_and_wrong_widths_go_to_the_reference():
    compiled = CompiledFilter(Clip(SPEC), SPEC)
    wide = compiled.filter(torch.zeros(3, 1), 9.0 * torch.ones(3, 2))
    assert wide.action.tolist() == [[1.0, 2.0]] * 3
    double = compiled.filter(torch.zeros(1, 1).double(), torch.ones(1, 2).double())
    assert double.action.dtype == torch.float64
    with pytest.raises(ShapeError):
        compiled.filter(torch.zeros(1, 1), torch.ones(1, 3))


def test_the_state_may_be_entries_of_the_observation_and_the_brake_a_law_of_all_of_it():
    world = find_world("DoubleIntegrator")
    order = [2, 0, 3, 1]
    names = [Signal(f"s{index}", "1", -1.5, 1.5) for index in range(5)]
    spec = Spec(tuple(names), world.spec.action, world.spec.period)
    law = lambda seen: -seen[:, [4, 1]]  # noqa: E731
    guard = BarrierQP(
        world.barrier,
        world.dynamics,
        fallback=Brake(spec, law=law),
        observe=lambda seen: seen[:, order],
    )
    compiled = CompiledFilter(guard, spec)
    generator = torch.Generator().manual_seed(5)
    statuses = set()
    for row in 2.0 * torch.rand(200, 7, generator=generator) - 1.0:
        ours = compiled.filter(row[None, :5], row[None, 5:])
        theirs = guard.filter(row[None, :5], row[None, 5:])
        torch.testing.assert_close(ours.action, theirs.action, atol=BACKOFF, rtol=0.0)
        statuses.add(ours.certificate.status.item())
    assert {Status.KEPT, Status.CORRECTED} <= statuses


def test_a_function_that_does_more_than_to_choose_entries_is_not_compiled():
    world = find_world("DoubleIntegrator")
    guard = BarrierQP(
        world.barrier,
        world.dynamics,
        fallback=world.fallback,
        observe=lambda seen: 2.0 * seen[:, :4],
    )
    with pytest.raises(UnsupportedLayer, match="choose entries"):
        CompiledFilter(guard, world.spec)


def test_memory_stays_in_torch():
    limit = RateLimit(SPEC, [1.0, 1.0], rows=1)
    for safeguard in (limit, Remembering(limit, [limit])):
        with pytest.raises(UnsupportedLayer):
            CompiledFilter(safeguard, SPEC)


def test_compiled_code_that_differs_from_its_reference_is_not_used(monkeypatch):
    program = filter_program("filter", SPEC, Clip(SPEC))
    monkeypatch.setattr("safectl.export.compiled.filter_program", lambda *_: program)
    with pytest.raises(VerificationError, match="differs from Careless"):
        CompiledFilter(Careless(SPEC), SPEC)
