"""The catalogue and the registry agree."""

import subprocess
import sys

import gymnasium

from safectl_envs import catalogue


def test_every_entry_is_registered():
    for entry in catalogue():
        assert entry.id in gymnasium.registry
        assert entry.cost
        assert entry.source


def test_our_entries_say_what_make_gives():
    ours = [entry for entry in catalogue() if entry.id.startswith("safectl/")]
    assert len(ours) == 12
    for entry in ours:
        env = gymnasium.make(entry.id)
        assert env.observation_space.shape == (entry.observation,)
        assert env.action_space.shape == (entry.action,)


def test_gymnasium_finds_the_package_by_the_name_in_the_identifier():
    code = (
        "import gymnasium, sys\n"
        "env = gymnasium.make('safectl_envs:safectl/PointHazard-v0')\n"
        "env.reset(seed=0)\n"
        "assert not {'mujoco', 'safety_gymnasium', 'stable_baselines3'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
