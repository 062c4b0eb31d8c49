"""ACS on PPO learns to be fast and to keep the limit; its policy alone only the first."""

import gymnasium
import pytest
import torch

from safectl_agents.acs.evaluation import evaluate
from safectl_agents.acs.ppo import ACSPPO, OnPolicySettings
from safectl_agents.acs.safety import SafetySettings
from safectl_agents.vector import GymnasiumVecEnv
from safectl_envs import SafeVectorEnv

pytestmark = [pytest.mark.slow]

ROWS, STEPS = 25, 160  # of a rollout of 4,000 steps
ROLLOUTS = 10


def test_acs_ppo_learns_to_be_fast_within_the_limit():
    torch.set_num_threads(1)
    env = GymnasiumVecEnv(SafeVectorEnv("SpeedLimit", num_envs=ROWS))
    env.seed(0)
    settings = OnPolicySettings(
        eps_start=2.2,
        eps_floor=0.1,
        reward_penalty=1.0,
        safety=SafetySettings(label="horizon", horizon=10),
    )
    model = ACSPPO("MlpPolicy", env, constraint=settings, n_steps=STEPS, seed=0, device="cpu")
    copies = [gymnasium.make("safectl/SpeedLimit-v0") for _ in range(5)]
    before = evaluate(model, copies, 0, guarded=True)
    model.learn(ROLLOUTS * ROWS * STEPS)
    guarded = evaluate(model, copies, 0, guarded=True)
    alone = evaluate(model, copies, 0, guarded=False)
    assert guarded.return_mean > before.return_mean + 100.0
    # Violating steps of 200; from rollout to rollout they swing between 0 and 20.
    assert guarded.cost_mean <= 20.0
    assert alone.cost_mean >= guarded.cost_mean + 40.0
