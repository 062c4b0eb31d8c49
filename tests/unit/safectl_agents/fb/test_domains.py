import numpy as np
import pytest
import torch

from safectl.errors import RangeError, ShapeError, UnknownNameError
from safectl_agents.fb.arm import ARM_SPEC, PLACES
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.domains import DOMAINS, Domain
from safectl_agents.fb.export import spec_of_domain
from safectl_agents.fb.point_mass_maze import GOALS, way_point_action
from safectl_agents.fb.report import report
from safectl_agents.fb.saved import load_task_policy
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.simulators import WorldSimulator
from safectl_agents.fb.train import train
from safectl_envs.double_integrator import DoubleIntegrator


def random_episode(domain: Domain, steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    domain.reset()
    states, actions, rewards = [], [], []
    for _ in range(steps):
        actions.append(generator.uniform(-1.0, 1.0, domain.nu).astype(np.float32))
        domain.step(actions[-1])
        states.append(domain.state())
        rewards.append(domain.rewards())
    return np.stack(states), np.stack(actions), np.stack(rewards)


@pytest.mark.parametrize(
    ("name", "sizes"), [("point_mass_maze", (4, 2, 4, 4)), ("walker", (24, 6, 18, 4))]
)
def test_a_domain_has_the_published_sizes_and_length(name, sizes):
    domain = Domain(name)
    found = (domain.nx, domain.nu, len(domain.state()), len(domain.rewards()))
    assert found == sizes
    assert domain.episode_steps == 1000


@pytest.mark.parametrize("name", DOMAINS)
def test_labels_of_stored_states_are_the_rewards_at_collection_time(name):
    domain = Domain(name)
    states, actions, rewards = random_episode(domain, 60)
    assert np.allclose(Domain(name, seed=1).label(states, actions), rewards, atol=1e-6)


def test_the_arm_of_safectl_is_a_domain_that_does_not_see_the_targets_of_its_environment():
    domain = Domain("planar_reach", seed=2)
    assert (domain.nx, domain.nu, domain.episode_steps) == (9, 3, 200)
    assert [signal.name for signal in ARM_SPEC.observation][-3:] == [
        "disc_to_tip_x",
        "disc_to_tip_y",
        "disc_velocity",
    ]
    first = domain.reset()
    assert np.allclose(np.hypot(first[:3], first[3:6]), 1.0)
    state = domain.state()
    state[:3] = np.radians(90.0), 0.0, 0.0  # upright: the tip is at 1 m
    (labels,) = domain.label(state[None], np.zeros((1, 3), np.float32))
    rewards = dict(zip(PLACES, labels, strict=True))
    assert max(rewards, key=rewards.get) == "reach_far"
    assert rewards["reach_far"] == pytest.approx(np.exp(-np.log(10.0) * (0.1 / 0.3) ** 2), rel=1e-3)


def test_a_world_that_ends_its_episodes_is_no_domain():
    table = WorldSimulator(DoubleIntegrator(), ("goal_offset_x", "goal_offset_y"), seed=0)
    table.reset()
    table.physics[0, 0] = 3.0  # beyond the edge
    with pytest.raises(RangeError, match="never end"):
        table.step(np.zeros(2, np.float32))


def test_a_domain_starts_as_its_seed_says_and_knows_the_other_names():
    assert np.array_equal(Domain("walker", seed=3).reset(), Domain("walker", seed=3).reset())
    assert not np.array_equal(Domain("walker", seed=3).reset(), Domain("walker", seed=4).reset())
    with pytest.raises(UnknownNameError, match="point_mass_maze"):
        Domain("point_mass")
    with pytest.raises(ShapeError, match="physics"):
        Domain("walker").label(np.zeros((3, 4)), np.zeros((3, 6), np.float32))


def test_episodes_of_the_maze_start_in_the_upper_left_room_at_rest():
    domain = Domain("point_mass_maze")
    starts = np.stack([domain.reset() for _ in range(50)])
    assert ((starts[:, 0] > -0.29) & (starts[:, 0] < -0.15)).all()
    assert ((starts[:, 1] > 0.15) & (starts[:, 1] < 0.29)).all()
    assert not starts[:, 2:].any()


def test_the_walls_of_the_maze_hold_and_the_point_is_as_fast_as_published():
    domain = Domain("point_mass_maze")
    observation, fastest = domain.reset(), 0.0
    for _ in range(400):
        observation = domain.step(np.array([1.0, 0.0], np.float32))
        fastest = max(fastest, float(observation[2]))
        if abs(observation[1]) < 0.18:
            assert observation[0] < -0.02
    assert fastest == pytest.approx(0.1, abs=0.002)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "published"), [("reach_top_left", 952.0), ("reach_top_right", 794.0)]
)
def test_a_controller_that_knows_the_map_scores_as_published(task, published):
    domain, total = Domain("point_mass_maze"), 0.0
    for _ in range(3):
        observation = domain.reset()
        for _ in range(domain.episode_steps):
            observation = domain.step(way_point_action(observation, task))
            total += float(domain.rewards()[list(GOALS).index(task)]) / 3.0
    assert total == pytest.approx(published, rel=0.05)


@pytest.mark.slow
def test_random_actions_of_walker_score_as_published():
    domain = Domain("walker")
    total = np.mean([random_episode(domain, 1000)[2].sum(0) for _ in range(2)], 0)
    assert total == pytest.approx([126.0, 33.0, 23.0, 50.0], rel=0.35)


def test_a_model_of_the_arm_is_trained_scored_and_asked_for_a_task(tmp_path):
    config = CollectConfig(domain="planar_reach", collector="random", episodes=2)
    data = collect(config, tmp_path / "data")
    small = {"nz": 4, "hidden": 8, "embedding": 8, "batch": 8, "steps": 2, "episodes": 2}
    train(FBConfig(domain="planar_reach", labels=100, **small), data, tmp_path / "run")
    found = report(tmp_path / "run")
    assert found.tasks == tuple(PLACES)
    assert all(max(scores) <= 200.0 for scores in found.rows.values())
    spec = spec_of_domain("planar_reach")
    policy = load_task_policy(tmp_path / "run", spec, task="reach_far", data=data)
    assert policy.act(torch.zeros(1, 9)).shape == (1, 3)
