"""The value of plans: what it learns, how it goes on, what it refuses, where it leads."""

import dataclasses

import pytest
import torch

from safectl.errors import FileFormatError, NonFiniteError, RangeError
from safectl.planners import (
    DiffusionPlanner,
    Guidance,
    Normaliser,
    PlanModel,
    Specification,
    cosine_schedule,
    limits_normaliser,
    sampling_steps,
)
from safectl.spec import Signal, Spec
from safectl_agents.diffusion.settings import DiffuserConfig
from safectl_agents.diffusion.train import PlanRows, Trainer, train
from safectl_agents.diffusion.value import ValueConfig, ValueTrainer, load_value, save_value

TINY = DiffuserConfig(
    horizon=8,
    diffusion_steps=10,
    channels=16,
    multipliers=(1, 2),
    has_goal=False,
    batch=32,
    learning_rate=1e-3,
    updates=6,
    ema_every=1,
    ema_from=2,
    ema_decay=0.9,
    checkpoint_every=3,
)
VALUE = ValueConfig()
SPEC = Spec((Signal("place", "m", -1.0, 1.0),), (Signal("force", "N", -1.0, 1.0),), 0.01)
SCALE = limits_normaliser(torch.tensor([[-1.0, -1.0], [1.0, 1.0]]))


def heights():
    """Plans that rest at a random height, whose return is 300 plus 50 times the height."""
    generator = torch.Generator().manual_seed(0)
    height = 2.0 * torch.rand(128, 1, 1, generator=generator) - 1.0
    rows = torch.cat([torch.zeros(128, 8, 1), height.expand(-1, 8, 1)], -1).reshape(-1, 2)
    return PlanRows(rows, torch.arange(0, len(rows), 8)), 300.0 + 50.0 * height[:, 0, 0]


def nothing(done, loss):
    """Watch nothing."""


def trained(updates):
    plans, returns = heights()
    trainer = ValueTrainer(dataclasses.replace(TINY, updates=updates), plans, returns, VALUE, nu=1)
    for _ in range(updates):
        trainer.step()
    return trainer


def test_returns_are_learnt_in_their_own_unit(tmp_path):
    trainer = trained(150)
    save_value(tmp_path / "value", trainer, SCALE, SPEC, {})
    value = load_value(tmp_path / "value", plans=SCALE)
    plans, returns = heights()
    found = value(plans.plans(torch.arange(128), 8), torch.zeros(128, dtype=torch.long))
    assert float((found - returns).square().mean().sqrt()) < 0.4 * float(returns.std())
    assert float(found.mean()) == pytest.approx(300.0, abs=10.0)


def test_guided_plans_have_a_larger_return_and_the_best_candidate_is_kept():
    def still(plan, step):
        return 0.5 * plan

    model = PlanModel(still, SCALE, 1, 8, cosine_schedule(10), True, 0.01)
    free = Specification({}, model.observation_normaliser, coordinates=(0,))
    start = torch.zeros(16, 1)

    def height(plan, step):
        return plan[..., 1].sum(-1)

    def draw(guidance, candidates):
        steps, generator = sampling_steps(model.kept), torch.Generator().manual_seed(0)
        planner = DiffusionPlanner(
            model,
            steps,
            free,
            guidance=guidance,
            candidates=candidates,
            generator=generator,
        )
        return float(planner.propose(start).states.mean())

    plain = draw(None, 1)
    guided = draw(Guidance(height, scale=0.5), 1)
    assert guided > plain + 0.05
    ranked = draw(Guidance(height, scale=0.0), 16)
    assert ranked > plain + 0.05


def test_a_stopped_training_goes_on_as_if_it_had_not_been(tmp_path):
    plans, returns = heights()
    whole = ValueTrainer(TINY, plans, returns, VALUE, nu=1)
    train(whole, tmp_path / "whole", after_update=nothing)
    part = ValueTrainer(dataclasses.replace(TINY, updates=3), plans, returns, VALUE, nu=1)
    train(part, tmp_path / "part", after_update=nothing)
    rest = ValueTrainer(TINY, plans, returns, VALUE, nu=1)
    train(rest, tmp_path / "part", after_update=nothing)
    pairs = zip(rest.average.parameters(), whole.average.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)


def test_the_state_of_another_network_or_return_is_refused(tmp_path):
    plans, returns = heights()
    train(ValueTrainer(TINY, plans, returns, VALUE, nu=1), tmp_path, after_update=nothing)
    other = ValueTrainer(TINY, plans, returns, ValueConfig(discount=0.5), nu=1)
    with pytest.raises(Exception, match="other settings"):
        other.load(tmp_path / "state")
    with pytest.raises(Exception, match="other settings"):
        Trainer(TINY, plans, nu=1).load(tmp_path / "state")


def test_returns_that_do_not_fit_are_refused():
    plans, returns = heights()
    with pytest.raises(RangeError, match="returns"):
        ValueTrainer(TINY, plans, returns[:-1], VALUE, nu=1)
    returns[3] = torch.nan
    with pytest.raises(NonFiniteError, match="1 non-finite"):
        ValueTrainer(TINY, plans, returns, VALUE, nu=1)
    with pytest.raises(RangeError, match="discount"):
        ValueConfig(discount=-0.1)


def test_a_value_of_plans_in_other_coordinates_is_refused(tmp_path):
    save_value(tmp_path / "value", trained(1), SCALE, SPEC, {})
    other = Normaliser(SCALE.centre + 0.1, SCALE.scale)
    with pytest.raises(FileFormatError, match="scaled in another way"):
        load_value(tmp_path / "value", plans=other)
