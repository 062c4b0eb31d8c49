import pytest
import torch

from safectl.errors import RangeError
from safectl.models import METHODS, Batch, ForwardBackward, Learner, Sizes, UpdateSettings, draw
from safectl.models.measure import densities
from safectl.models.networks import noisy
from safectl.models.tasks import sample_tasks
from safectl.seed import torch_generator
from safectl_agents.bench.fb_eager import EagerLearner

ROWS = 16
SIZES = Sizes(nx=3, nu=2, nz=4, hidden=16, embedding=8, backward_hidden=16)


def make_batch(seed: int = 0) -> Batch:
    g = torch_generator(seed, "batch")
    action = 2.0 * torch.rand(ROWS, 2, generator=g) - 1.0
    here, there = torch.randn(ROWS, 3, generator=g), torch.randn(ROWS, 3, generator=g)
    return Batch(here, action, there, torch.ones(ROWS))


def weights(learner: Learner | EagerLearner) -> torch.Tensor:
    return torch.nn.utils.parameters_to_vector(learner.model.networks.parameters()).detach()


@pytest.mark.parametrize("method", ["fb", "vc-fb", "mc-fb"])
def test_an_update_equals_the_published_one_written_down_plainly(method):
    settings = UpdateSettings(method=method, learning_rate=1e-3, alpha_learning_rate=1e-2)
    ours = Learner(ForwardBackward(SIZES), settings)
    plain = EagerLearner(ForwardBackward(SIZES), settings)
    generator = torch_generator(0, "draws")
    for seed in range(5):
        draws = draw(ROWS, 2, 4, 0.5, generator)
        ours.update(make_batch(seed), draws)
        plain.update(make_batch(seed), draws)
    assert torch.allclose(weights(ours), weights(plain), atol=2e-5)
    assert torch.allclose(ours.log_alpha, plain.log_alpha, atol=1e-5)
    assert (float(ours.log_alpha) != 0.0) == (method != "fb")


@pytest.mark.parametrize("actor", ["value", "aw"])
@pytest.mark.parametrize("method", METHODS)
def test_what_is_saved_continues_bit_for_bit(method, actor):
    settings = UpdateSettings(method=method, actor=actor)
    draws = [draw(ROWS, 2, 4, 0.5, torch_generator(seed, "draws")) for seed in range(4)]
    whole = Learner(ForwardBackward(SIZES), settings)
    for seed in range(4):
        whole.update(make_batch(seed), draws[seed])
    first = Learner(ForwardBackward(SIZES), settings)
    for seed in range(2):
        first.update(make_batch(seed), draws[seed])
    saved = {name: value.clone() for name, value in first.state().items()}
    second = Learner(ForwardBackward(SIZES, seed=1), settings)
    second.load_state(saved)
    for seed in range(2, 4):
        second.update(make_batch(seed), draws[seed])
    expected = whole.state()
    assert expected.keys() == second.state().keys()
    assert all(torch.equal(value, expected[name]) for name, value in second.state().items())


def test_alpha_falls_while_the_penalty_is_below_its_budget():
    learner = Learner(ForwardBackward(SIZES), UpdateSettings(method="vc-fb"))
    metrics = learner.update(make_batch(), draw(ROWS, 2, 4, 0.5, torch_generator(0, "draws")))
    assert float(metrics["penalty"]) < 50.0
    assert float(metrics["alpha"]) == pytest.approx(1.0 - 1e-4, abs=1e-6)


def test_short_numbers_change_an_update_little_and_weights_stay_long():
    generator = torch_generator(0, "draws")
    draws = draw(ROWS, 2, 4, 0.5, generator)
    learners = [
        Learner(ForwardBackward(SIZES), UpdateSettings(method="vc-fb", precision=precision))
        for precision in ("float32", "bfloat16")
    ]
    losses = [float(learner.update(make_batch(), draws)["measure_loss"]) for learner in learners]
    assert losses[1] == pytest.approx(losses[0], abs=0.05)
    assert weights(learners[1]).dtype == torch.float32


@pytest.mark.parametrize(("heads", "join"), [("min", torch.amin), ("mean", torch.mean)])
def test_the_target_is_the_smaller_head_or_the_mean_of_both(heads, join):
    learner = Learner(ForwardBackward(SIZES), UpdateSettings(target_heads=heads))
    batch, draws = make_batch(), draw(ROWS, 2, 4, 0.5, torch_generator(0, "draws"))
    with torch.no_grad():
        task = sample_tasks(
            learner.model.backward(batch.observation),
            *(draws.normal, draws.from_data, draws.shuffle),
        )
        action = noisy(learner.model.actor(batch.next_observation, task), draws.target_noise)
        forward = learner.target_forward(batch.next_observation, action, task)
        both = densities(forward, learner.target_backward(batch.next_observation))
    expected = join(both, 0).mean()
    assert torch.allclose(learner.update(batch, draws)["target"], expected, rtol=1e-4, atol=1e-6)


def test_the_targets_follow_slowly():
    learner = Learner(ForwardBackward(SIZES), UpdateSettings(polyak=0.01))
    before = next(learner.target_forward.parameters()).clone()
    learner.update(make_batch(), draw(ROWS, 2, 4, 0.5, torch_generator(0, "draws")))
    new = next(learner.model.forward.parameters())
    expected = 0.99 * before + 0.01 * new
    assert torch.allclose(next(learner.target_forward.parameters()), expected, atol=1e-7)


def test_a_weighted_policy_ends_within_the_data_where_one_of_most_value_leaves_them():
    found = {}
    for actor in ("value", "aw"):
        settings = UpdateSettings(actor=actor, actor_learning_rate=3e-2, learning_rate=1e-3)
        learner = Learner(ForwardBackward(SIZES), settings)
        batch = make_batch()._replace(action=torch.full((ROWS, 2), 0.3))
        for seed in range(50):
            draws = draw(ROWS, 2, 4, 0.5, torch_generator(seed, "draws"))
            learner.update(batch, draws)
        task = torch.nn.functional.normalize(draws.normal, dim=-1) * 2.0
        found[actor] = learner.model.actor(batch.observation, task).detach()
    assert float((found["aw"] - 0.3).abs().max()) < 0.1
    assert float((found["value"] - 0.3).abs().mean()) > 0.3


@pytest.mark.gpu
@pytest.mark.parametrize("method", METHODS)
def test_an_update_on_a_gpu_is_that_on_the_cpu(method):
    draws = draw(ROWS, 2, 4, 0.5, torch_generator(0, "draws"))
    found = []
    for device in ("cpu", "cuda"):
        model = ForwardBackward(SIZES)
        model.networks.to(device)
        learner = Learner(model, UpdateSettings(method=method))
        batch = Batch(*(part.to(device) for part in make_batch()))
        learner.update(batch, type(draws)(*(part.to(device) for part in draws)))
        found.append(weights(learner).cpu())
    assert torch.allclose(found[0], found[1], atol=1e-4)


@pytest.mark.parametrize("discount", [0.0, 1.0, float("nan")])
def test_a_discount_outside_its_range_is_refused(discount):
    with pytest.raises(RangeError, match="discount"):
        Learner(ForwardBackward(SIZES), UpdateSettings(), discount=discount)
