import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from slide import HALF, NARROWING, Narrowing, small
from stable_baselines3.common.callbacks import BaseCallback

from safectl.errors import (
    ConfigError,
    FileFormatError,
    NonFiniteError,
    RangeError,
    StorageError,
    UnknownNameError,
)
from safectl_agents.episodes import read_episodes
from safectl_agents.run_folder import load_config, load_guard, load_trained
from safectl_agents.settings import PPOSettings, TrainConfig
from safectl_agents.train import train
from safectl_agents.training_state import checkpoints


class Raise(BaseCallback):
    """Stops a run in a chosen way at a chosen step."""

    def __init__(self, step, action):
        super().__init__()
        self.step, self.action = step, action

    def _on_step(self):
        if self.num_timesteps >= self.step:
            self.step = sys.maxsize
            self.action()
        return True


class Killed(BaseException):
    pass


def die():
    raise Killed


def last(folder):
    return checkpoints(folder / "checkpoints")[-1]


def assert_same_run(one, other):
    """Weights, optimiser moments, statistics, replay and episodes agree bit for bit."""
    for name in ("policy", "optimizers", "normaliser"):
        ours, theirs = (load_file(last(f) / f"{name}.safetensors") for f in (one, other))
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    for name in ("replay.npz", "safeguard.safetensors", "state.json"):
        files = [last(folder) / name for folder in (one, other)]
        assert [f.exists() for f in files] in ([True, True], [False, False])
        if files[0].exists():
            assert files[0].read_bytes() == files[1].read_bytes()
    assert (one / "episodes.csv").read_bytes() == (other / "episodes.csv").read_bytes()


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
@pytest.mark.parametrize("guard", [None, HALF, NARROWING], ids=["free", "guarded", "learning"])
def test_a_killed_and_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path, algorithm, guard
):
    config = small(algorithm, steps=320, normalise_reward=True)
    train(config, folder=tmp_path / "whole", guard=guard)
    with pytest.raises(Killed):
        train(config, folder=tmp_path / "cut", guard=guard, callbacks=[Raise(300, die)])
    assert last(tmp_path / "cut").name == "step-0000000256"
    train(config, folder=tmp_path / "cut", guard=guard, resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    train(small(), folder=tmp_path / "whole")
    with pytest.raises(Killed):
        train(small(), folder=tmp_path / "cut", callbacks=[Raise(100, die)])
    train(small(), folder=tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_vector_environment_of_ours_resumes_bit_for_bit(tmp_path):
    config = small(env="safectl/DoubleIntegrator-v0")
    train(config, folder=tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, folder=tmp_path / "cut", callbacks=[Raise(300, die)])
    train(config, folder=tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_what_a_safeguard_learned_is_kept_with_the_run(tmp_path):
    train(small(), folder=tmp_path, guard=NARROWING)
    learner = Narrowing()
    load_guard(tmp_path, learner)
    assert learner.sums[0] == 512
    costs = sum(row.cost for row in read_episodes(tmp_path / "episodes.csv"))
    assert learner.sums[2] == costs > 0.0


def test_a_run_without_a_learning_safeguard_has_nothing_to_load(tmp_path):
    train(small(steps=64), folder=tmp_path, guard=HALF)
    with pytest.raises(FileFormatError, match="holds no learned guard"):
        load_guard(tmp_path, Narrowing())


def test_a_shorter_run_extended_equals_a_longer_one(tmp_path):
    train(small(), folder=tmp_path / "whole")
    train(small(steps=256), folder=tmp_path / "half")
    train(small(), folder=tmp_path / "half", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "half")


def test_another_seed_gives_another_run(tmp_path):
    train(small(), folder=tmp_path / "one")
    train(small(seed=1), folder=tmp_path / "other")
    with pytest.raises(AssertionError):
        assert_same_run(tmp_path / "one", tmp_path / "other")


@pytest.mark.slow
def test_a_safety_gymnasium_task_resumes_bit_for_bit(tmp_path):
    pytest.importorskip("mujoco")
    config = small(env="SafetySwimmerVelocity-v1")
    train(config, folder=tmp_path / "whole")
    with pytest.raises(Killed):
        train(config, folder=tmp_path / "cut", callbacks=[Raise(300, die)])
    result = train(config, folder=tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")
    assert result.violations > 0


@pytest.mark.slow
def test_a_process_killed_while_it_saves_leaves_a_run_that_goes_on_bit_for_bit(tmp_path):
    script = (
        "import os, signal, sys; from pathlib import Path\n"
        "import slide, numpy as np; from safectl_agents.train import train\n"
        "slide.register(); saves = []\n"
        "def savez(file, **arrays):\n"
        "    saves.append(file)\n"
        "    if len(saves) == 3: file.write(b'half'), os.kill(os.getpid(), signal.SIGKILL)\n"
        "    original(file, **arrays)\n"
        "original, np.savez = np.savez, savez\n"
        "train(slide.small('sac'), folder=Path(sys.argv[1]))\n"
    )
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    command = [sys.executable, "-c", script, str(killed)]
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parent)}
    assert subprocess.run(command, env=place, check=False).returncode == -signal.SIGKILL
    assert list((killed / "checkpoints").glob(".step-*"))
    train(small("sac"), folder=killed, resume=True)
    train(small("sac"), folder=whole)
    assert_same_run(killed, whole)
    assert not list((killed / "checkpoints").glob(".step-*"))


@pytest.mark.parametrize("name", ["policy.safetensors", "optimizers.safetensors", "replay.npz"])
def test_a_truncated_checkpoint_is_refused_with_what_to_do(tmp_path, name):
    config = small("sac", steps=256)
    train(config, folder=tmp_path)
    path = last(tmp_path) / name
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(FileFormatError, match="truncated or altered; delete this folder"):
        train(replace(config, steps=300), folder=tmp_path, resume=True)
    with pytest.raises(FileFormatError, match="truncated or altered"):
        load_trained(tmp_path)


def test_after_the_advice_for_a_broken_checkpoint_the_run_goes_on(tmp_path):
    config = small("td3", steps=256)
    train(config, folder=tmp_path / "whole")
    train(config, folder=tmp_path / "cut")
    broken = last(tmp_path / "cut")
    (broken / "state.json").write_text('{"version"')
    with pytest.raises(FileFormatError, match=r"state.json: cannot be read as JSON"):
        train(config, folder=tmp_path / "cut", resume=True)
    for file in broken.iterdir():
        file.unlink()
    broken.rmdir()
    train(config, folder=tmp_path / "cut", resume=True)
    assert_same_run(tmp_path / "whole", tmp_path / "cut")


def test_a_checkpoint_of_another_version_is_refused(tmp_path):
    train(small(steps=64), folder=tmp_path)
    path = last(tmp_path) / "state.json"
    path.write_text(path.read_text().replace('"version": 1', '"version": 9'))
    with pytest.raises(FileFormatError, match="has version 9"):
        load_trained(tmp_path)


def test_ctrl_c_saves_a_checkpoint_and_says_how_to_go_on(tmp_path):
    folder = tmp_path / "a run"
    press = Raise(150, lambda: signal.raise_signal(signal.SIGINT))
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt, match=r"safectl train --resume '.*a run'"):
        train(small("sac"), folder=folder, callbacks=[press])
    assert signal.getsignal(signal.SIGINT) is before
    assert last(folder).name == "step-0000000150"
    assert '"interruptions": [\n      150\n    ]' in (last(folder) / "state.json").read_text()
    result = train(small("sac"), folder=folder, resume=True)
    assert result.steps == 512
    assert sum(row.length for row in read_episodes(folder / "episodes.csv")) == 512


def test_a_second_ctrl_c_stops_at_once_and_keeps_the_last_checkpoint(tmp_path):
    def twice():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(small(), folder=tmp_path, callbacks=[Raise(150, twice)])
    assert last(tmp_path).name == "step-0000000128"


@pytest.mark.parametrize("room", [500, 4000], ids=["episodes", "checkpoint"])
def test_a_full_disk_is_reported_and_leaves_the_last_checkpoint(tmp_path, room):
    resource = pytest.importorskip("resource")
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill():
        resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))

    try:
        with pytest.raises(StorageError, match="free space or choose another folder") as caught:
            train(small("sac"), folder=tmp_path, callbacks=[Raise(200, fill)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert [path.name for path in checkpoints(tmp_path / "checkpoints")] == ["step-0000000128"]
    assert ("episodes.csv" in str(caught.value)) == (room == 500)
    train(small("sac"), folder=tmp_path, resume=True)


@pytest.mark.parametrize("flaw", ["reward", "observation"])
@pytest.mark.parametrize("algorithm", ["ppo", "td3"])
def test_nan_from_an_environment_is_named(tmp_path, flaw, algorithm):
    with pytest.raises(NonFiniteError, match=f"{flaw} holds . non-finite") as caught:
        train(small(algorithm, env=f"test/Slide-{flaw}-v0"), folder=tmp_path)
    assert "step 8 of the run" in str(caught.value)


@pytest.mark.parametrize("algorithm", ["ppo", "sac", "td3"])
def test_a_network_that_diverges_is_named_and_never_saved(tmp_path, algorithm):
    class Poison(BaseCallback):
        def _on_step(self):
            if self.num_timesteps == 100:
                with torch.no_grad():
                    for parameter in self.model.policy.parameters():
                        parameter.fill_(float("nan"))
            return True

    with pytest.raises(NonFiniteError, match=r"(weight|action).*lower the learning rate"):
        train(small(algorithm), folder=tmp_path, callbacks=[Poison()])
    assert not checkpoints(tmp_path / "checkpoints")


def test_unknown_names_are_answered_with_the_nearest():
    with pytest.raises(UnknownNameError, match="did you mean 'ppo'"):
        TrainConfig(env="Pendulum-v1", algorithm="pp0")


def test_an_unknown_environment_is_answered_with_the_nearest(tmp_path):
    with pytest.raises(UnknownNameError, match="did you mean 'safectl/DoubleIntegrator-v0'"):
        train(small(env="safectl/DoubleIntegratr-v0"), folder=tmp_path)


def test_discrete_actions_are_refused(tmp_path):
    with pytest.raises(ConfigError, match="actions are Discrete"):
        train(small(env="CartPole-v1"), folder=tmp_path)


def test_a_batch_that_does_not_divide_the_rollout_is_refused():
    with pytest.raises(RangeError, match="divisor of rollout"):
        TrainConfig(env="x", n_envs=3, ppo=PPOSettings(rollout=10, batch_size=7))


def test_an_existing_run_is_neither_overwritten_nor_resumed_with_other_settings(tmp_path):
    train(small(steps=64), folder=tmp_path)
    with pytest.raises(ConfigError, match="holds a run already"):
        train(small(steps=64), folder=tmp_path)
    with pytest.raises(ConfigError, match="seed was 0 when the run began, now it is 5"):
        train(small(steps=64, seed=5), folder=tmp_path, resume=True)


def test_settings_come_back_from_the_folder(tmp_path):
    config = small("td3", steps=64, store="executed")
    train(config, folder=tmp_path)
    assert load_config(tmp_path) == config


def test_a_finished_run_resumes_to_itself(tmp_path):
    first = train(small(steps=64), folder=tmp_path)
    again = train(small(steps=64), folder=tmp_path, resume=True)
    observation = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(first.policy.act(observation), again.policy.act(observation))
    assert again.steps == 64


def test_only_the_asked_number_of_checkpoints_is_kept(tmp_path):
    train(small(keep=3), folder=tmp_path)
    names = [path.name for path in checkpoints(tmp_path / "checkpoints")]
    assert names == ["step-0000000256", "step-0000000384", "step-0000000512"]


def test_the_record_counts_every_step_violation_and_correction(tmp_path):
    class Count(BaseCallback):
        violations = 0

        def _on_step(self):
            self.violations += sum(info["cost"] > 0.0 for info in self.locals["infos"])
            return True

    count = Count()
    result = train(small(), folder=tmp_path, guard=HALF, callbacks=[count])
    rows = read_episodes(tmp_path / "episodes.csv")
    assert sum(row.length for row in rows) == 512
    assert sum(row.violations for row in rows) == rows[-1].violations_total == result.violations
    assert result.violations == count.violations > 0
    assert {row.ended for row in rows} == {"truncated", "boundary"}
    assert 0 < sum(row.corrected for row in rows) <= 512


def test_curves_are_written_for_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train(small(), folder=tmp_path, guard=HALF)
    log = EventAccumulator(str(tmp_path / "tensorboard"))
    log.Reload()
    expected = {"rollout/ep_rew_mean", "safety/episode_cost", "safety/violations_total"}
    assert expected <= set(log.Tags()["scalars"])
