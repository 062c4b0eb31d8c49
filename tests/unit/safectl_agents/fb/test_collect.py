from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace

import numpy as np
import pytest
import torch

from safectl.errors import ConfigError, FileFormatError, RangeError
from safectl.seed import torch_generator
from safectl_agents.cli import main
from safectl_agents.fb import collect as collect_module
from safectl_agents.fb.collect import CollectConfig, collect
from safectl_agents.fb.ddpg import ExplorerSettings
from safectl_agents.fb.diayn import SKILL_STEPS, SKILLS, DIAYNAgent
from safectl_agents.fb.episodes import Episode, load_episode, load_transitions, save_episode
from safectl_agents.fb.rnd import RNDAgent, RNDNetworks
from safectl_agents.one_writer import one_writer
from safectl_agents.pool import TrainingLost

SMALL = ExplorerSettings(hidden=8, batch=8, update_every=100, random_steps=500)


def test_a_collection_goes_on_where_it_stopped_and_keeps_its_settings(tmp_path):
    counts: list[int] = []
    buffer = collect(CollectConfig(episodes=1, explorer=SMALL), tmp_path, progress=counts.append)
    before = next(buffer.iterdir()).stat().st_mtime_ns
    collect(CollectConfig(episodes=2, explorer=SMALL), tmp_path, progress=counts.append)
    assert counts == [1, 2]
    assert sorted(path.name for path in buffer.iterdir()) == [
        "episode_000000_1000.npz",
        "episode_000001_1000.npz",
    ]
    assert (buffer / "episode_000000_1000.npz").stat().st_mtime_ns == before
    episode = load_episode(buffer / "episode_000001_1000.npz")
    assert episode.reward.shape == (1001, 4)
    assert episode.physics is not None
    with pytest.raises(ConfigError, match="seed"):
        collect(CollectConfig(episodes=3, seed=1, explorer=SMALL), tmp_path)
    (tmp_path / "explorers" / "0.safetensors").write_bytes(b"torn")
    with pytest.raises(FileFormatError, match="explorer"):
        collect(CollectConfig(episodes=3, explorer=SMALL), tmp_path)


def test_a_killed_process_is_one_error_that_says_how_to_go_on(tmp_path, monkeypatch):
    class Broken(ThreadPoolExecutor):
        def __init__(self, *_, **__):
            super().__init__(1)

    def killed(*_):
        raise BrokenProcessPool

    monkeypatch.setattr(collect_module, "ProcessPoolExecutor", Broken)
    monkeypatch.setattr(collect_module, "_work", killed)
    with pytest.raises(TrainingLost, match="run the command again"):
        collect(CollectConfig(collector="random", episodes=2, processes=2), tmp_path)


@pytest.mark.slow
def test_two_processes_share_the_episodes(tmp_path):
    config = CollectConfig(collector="random", episodes=3, processes=2)
    buffer = collect(config, tmp_path)
    assert len(list(buffer.glob("episode_*.npz"))) == 3
    data = load_transitions(buffer)
    assert len(data.action) == 3000
    assert float(np.abs(data.action.mean())) < 0.05
    assert data.action.std() == pytest.approx(1.0 / 3.0**0.5, abs=0.02)


def test_what_was_seen_often_is_less_novel_than_what_was_not():
    generator = torch_generator(0, "test")
    settings = ExplorerSettings(hidden=32, batch=64, learning_rate=1e-3, capacity=2)
    agent = RNDAgent(3, 2, settings, generator)
    seen = 0.1 * np.random.default_rng(0).standard_normal((101, 3)).astype(np.float32)
    zeros = np.zeros((101, 2), np.float32)
    agent.update()  # nothing to learn from yet
    agent.remember(Episode(seen, zeros, zeros, zeros[:, 0]))
    for _ in range(150):
        agent.update()
    agent.networks.eval()
    with torch.no_grad():
        known = agent.networks.novelty(torch.from_numpy(seen)).mean()
        new = agent.networks.novelty(1.0 + torch.from_numpy(seen)).mean()
    assert float(new) > 3.0 * float(known)


def test_a_collection_from_before_the_other_explorer_goes_on_and_has_one_writer(tmp_path):
    config = CollectConfig(collector="random", episodes=1, explorer=SMALL)
    collect(config, tmp_path)
    path = tmp_path / "collection.json"
    path.write_text(path.read_text().replace('"explorer"', '"rnd"'))
    collect(replace(config, episodes=2), tmp_path)
    with one_writer(tmp_path), pytest.raises(ConfigError, match="another command writes there"):
        collect(config, tmp_path)


def test_skills_last_fifty_steps_and_come_back_from_disk(tmp_path):
    config = CollectConfig(collector="diayn", episodes=1, explorer=SMALL)
    buffer = collect(config, tmp_path)
    skill = load_episode(next(buffer.iterdir())).skill
    assert skill.shape == (1001, SKILLS)
    assert (skill.sum(1) == 1.0).all()
    held = skill[:-1].reshape(-1, SKILL_STEPS, SKILLS)
    assert (held == held[:, :1]).all()
    assert len(np.unique(held[:, 0].argmax(1))) > 5
    assert len(list(collect(replace(config, episodes=2), tmp_path).iterdir())) == 2
    torn = load_episode(buffer / "episode_000000_1000.npz")
    save_episode(replace(torn, skill=None), buffer, 0)
    with pytest.raises(FileFormatError, match=r"\(1000, 4, 2, 0\), expected \(1000, 4, 2, 16\)"):
        collect(replace(config, episodes=3), tmp_path)
    with pytest.raises(ConfigError, match="collector"):
        collect(replace(config, collector="rnd", episodes=3), tmp_path)


def test_the_reward_of_skills_grows_where_they_are_told_apart():
    settings = ExplorerSettings(hidden=32, batch=128, learning_rate=1e-3, capacity=2)
    agent = DIAYNAgent(1, 1, settings, torch_generator(0, "test"))
    skill = np.eye(SKILLS, dtype=np.float32)[np.arange(1601) // 100 % SKILLS]
    told = (skill.argmax(1, keepdims=True) - 7.5).astype(np.float32)  # a state of each skill
    zeros = np.zeros((1601, 1), np.float32)
    agent.remember(Episode(told, zeros, zeros, zeros[:, 0], skill=skill))
    rows = agent._sample(*agent._replay)
    first = float(agent.learn_reward(rows).mean())
    for _ in range(400):
        last = float(agent.learn_reward(agent._sample(*agent._replay)).mean())
    assert abs(first) < 0.5  # log q + log 16 = 0 where nothing is told
    assert last > 1.5  # at most log 16 = 2.77


def test_a_sampled_action_leads_from_its_row_and_the_target_looks_three_steps_ahead():
    agent = DIAYNAgent(1, 1, SMALL, torch_generator(0, "test"))
    count = np.arange(101, dtype=np.float32)[:, None]
    agent.remember(Episode(count, 0.01 * count, count, count[:, 0], skill=np.repeat(count, 16, 1)))
    rows = agent._sample(*agent._replay)
    assert torch.equal(rows.there, rows.here + 3.0)
    torch.testing.assert_close(rows.action, 0.01 * (rows.here + 1.0))  # row t: what led to it
    assert torch.equal(rows.skill[:, :1], rows.here)


@pytest.mark.parametrize("kind", [RNDAgent, DIAYNAgent])
def test_an_explorer_is_saved_whole(kind):
    generator = torch_generator(0, "test")
    rows = np.random.default_rng(0).standard_normal((101, 3)).astype(np.float32)
    zeros = np.zeros((101, 2), np.float32)
    agents = [kind(3, 2, SMALL, torch_generator(seed, "test")) for seed in (0, 1)]
    skill = np.zeros((101, len(agents[0].skill)), np.float32)
    agents[0].remember(Episode(rows, zeros, zeros, zeros[:, 0], skill=skill))
    agents[0].update()
    agents[1].load_state(agents[0].state())
    expected = agents[0].state()
    assert expected.keys() == agents[1].state().keys()
    assert all(torch.equal(value, expected[name]) for name, value in agents[1].state().items())
    assert agents[1].act(rows[0]).shape == (2,)
    assert generator.device.type == "cpu"
    for wrong in ({"batch": 0}, {"random_steps": -5}):
        with pytest.raises(RangeError, match=next(iter(wrong))):
            ExplorerSettings(**wrong)


def test_novelty_is_divided_by_the_deviation_of_all_that_was_seen():
    explorer = RNDNetworks(3, 2, SMALL.hidden)
    novelty = torch.rand(3, 64, generator=torch_generator(0, "novelty"))
    for batch in novelty:
        reward = explorer.reward(batch)
    torch.testing.assert_close(reward, batch / novelty.std(correction=0), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["--seed", "-1"], "seed is -1, expected >= 0"),
        (["--explorer.random-steps", "-5"], "random_steps is -5, expected >= 0"),
    ],
)
def test_numbers_below_their_range_are_refused_before_anything_is_written(
    tmp_path, monkeypatch, capsys, words, problem
):
    monkeypatch.chdir(tmp_path)
    assert main(["collect", "--collector", "random", "--episodes", "1", *words]) == 1
    assert problem in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
