"""Settings of a training run: what to train, where, and with which hyperparameters.

The defaults are those of stable-baselines3 2.9 except where a field's docstring says so.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch

from safectl.errors import RangeError, UnknownNameError

ALGORITHMS = ("ppo", "sac", "td3")

Activation = Literal["tanh", "relu"]
Store = Literal["proposal", "executed"]


@dataclass(frozen=True, slots=True)
class PPOSettings:
    """Proximal policy optimisation (Schulman et al. 2017, arXiv:1707.06347).

    Raises:
        RangeError: If a number lies outside its range.
    """

    learning_rate: float = 3e-4
    """Step size of Adam, constant, > 0."""
    rollout: int = 512
    """Steps per environment and update, >= 2. Fewer than the library's 2048, for 8 environments."""
    batch_size: int = 256
    """Rows per gradient step, >= 2; must divide rollout * n_envs."""
    epochs: int = 10
    """Passes over each rollout, >= 1."""
    discount: float = 0.99
    """Discount per step, in (0, 1]."""
    gae_lambda: float = 0.95
    """Weight of long returns in the advantage, in [0, 1]."""
    clip_range: float = 0.2
    """Bound on the change of the probability ratio, > 0."""
    entropy_weight: float = 0.0
    """Weight of the entropy in the loss, >= 0."""
    target_kl: float | None = None
    """Estimated divergence from the old policy, > 0, at which an update ends early; None for no
    such end."""
    log_std_init: float = 0.0
    """Logarithm of the first standard deviation of the actions, in units of the action."""
    hidden: tuple[int, ...] = (64, 64)
    """Units per hidden layer of the actor and of the critic."""
    activation: Activation = "tanh"
    """Function after every hidden layer."""

    def __post_init__(self) -> None:
        _positive("ppo", learning_rate=self.learning_rate, clip_range=self.clip_range)
        _at_least("ppo", 2, rollout=self.rollout, batch_size=self.batch_size)
        _at_least("ppo", 1, epochs=self.epochs)
        _within("ppo.discount", self.discount, low=0.0, high=1.0)
        _within("ppo.gae_lambda", self.gae_lambda, low=0.0, high=1.0)
        _at_least("ppo", 0, entropy_weight=self.entropy_weight)
        if self.target_kl is not None:
            _positive("ppo", target_kl=self.target_kl)
        _at_least("ppo", 1, **{"hidden (smallest)": min(self.hidden, default=1)})


@dataclass(frozen=True, slots=True)
class SACSettings:
    """Soft actor-critic (Haarnoja et al. 2018, arXiv:1812.05905), entropy weight learned.

    Raises:
        RangeError: If a number lies outside its range.
    """

    learning_rate: float = 3e-4
    """Step size of Adam for actor, critics and entropy weight, constant, > 0."""
    buffer_size: int = 300_000
    """Transitions kept for replay, >= 1. The library keeps 1,000,000."""
    learning_starts: int = 1_000
    """Steps with uniformly random actions before the first update, >= 0."""
    batch_size: int = 256
    """Rows per gradient step, >= 1."""
    train_every: int = 1
    """Steps per environment between two rounds of updates, >= 1."""
    updates: int = 1
    """Gradient steps per round, >= 1."""
    discount: float = 0.99
    """Discount per step, in (0, 1]."""
    tau: float = 0.005
    """Share of the new weights in the target networks per update, in (0, 1]."""
    hidden: tuple[int, ...] = (256, 256)
    """Units per hidden layer of the actor and of each critic."""
    activation: Activation = "relu"
    """Function after every hidden layer."""

    def __post_init__(self) -> None:
        _check_off_policy("sac", self)


@dataclass(frozen=True, slots=True)
class TD3Settings:
    """Twin delayed deterministic policy gradient (Fujimoto et al. 2018, arXiv:1802.09477).

    Raises:
        RangeError: If a number lies outside its range.
    """

    learning_rate: float = 1e-3
    """Step size of Adam for actor and critics, constant, > 0."""
    buffer_size: int = 300_000
    """Transitions kept for replay, >= 1. The library keeps 1,000,000."""
    learning_starts: int = 1_000
    """Steps with uniformly random actions before the first update, >= 0."""
    batch_size: int = 256
    """Rows per gradient step, >= 1."""
    train_every: int = 1
    """Steps per environment between two rounds of updates, >= 1."""
    updates: int = 1
    """Gradient steps per round, >= 1."""
    discount: float = 0.99
    """Discount per step, in (0, 1]."""
    tau: float = 0.005
    """Share of the new weights in the target networks per update, in (0, 1]."""
    exploration: float = 0.1
    """Standard deviation of the noise on the action scaled to [-1, 1], >= 0, from the paper."""
    policy_delay: int = 2
    """Critic updates per actor update, >= 1."""
    hidden: tuple[int, ...] = (256, 256)
    """Units per hidden layer of the actor and of each critic. The library has 400 and 300."""
    activation: Activation = "relu"
    """Function after every hidden layer."""

    def __post_init__(self) -> None:
        _check_off_policy("td3", self)
        _at_least("td3", 0, exploration=self.exploration)
        _at_least("td3", 1, policy_delay=self.policy_delay)


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """One training run. Equal settings give equal weights on one CPU type.

    Raises:
        RangeError: If a number lies outside its range.
        UnknownNameError: If the algorithm is none of `ALGORITHMS`.
    """

    env: str
    """Gymnasium id, e.g. `safectl/DoubleIntegrator-v0` or `Pendulum-v1`."""
    algorithm: str = "ppo"
    """`ppo`, `sac` or `td3`; its settings are in the table of that name."""
    steps: int = 100_000
    """Environment steps over all environments, >= 1; rounded up to whole rollouts by PPO."""
    seed: int = 0
    """Seed of everything random, >= 0."""
    n_envs: int = 8
    """Environments stepped together in one process, >= 1."""
    normalise_observation: bool = True
    """Whether the policy sees observations shifted and scaled by running statistics."""
    normalise_reward: bool = False
    """Whether rewards are divided by the running deviation of the discounted return."""
    store: Store = "proposal"
    """What SAC and TD3 keep for replay. `proposal`: the guard is part of the world, the critic
    learns what a proposal leads to. `executed`: the critic learns the world without the guard and
    extrapolates where the guard intervenes. PPO always uses the proposal, as its log-probability
    demands."""
    checkpoint_every: int = 50_000
    """Steps between two checkpoints, >= 1. All environments are built anew at each one, which is
    what makes a resumed run equal to an uninterrupted one; keep it well above an episode."""
    keep: int = 2
    """Checkpoints kept, >= 1; older ones are deleted."""
    device: str = "cpu"
    """Torch device of the networks. Only `cpu` is claimed to give equal bits."""
    threads: int = 1
    """Threads torch may use, >= 1; the bits of a result may depend on it."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """Hyperparameters of PPO."""
    sac: SACSettings = field(default_factory=SACSettings)
    """Hyperparameters of SAC."""
    td3: TD3Settings = field(default_factory=TD3Settings)
    """Hyperparameters of TD3."""

    def __post_init__(self) -> None:
        if self.algorithm not in ALGORITHMS:
            raise UnknownNameError("algorithm", self.algorithm, known=ALGORITHMS)
        _at_least("train", 0, seed=self.seed)
        require_device(self.device)
        _at_least("train", 1, steps=self.steps, n_envs=self.n_envs, keep=self.keep)
        _at_least("train", 1, checkpoint_every=self.checkpoint_every, threads=self.threads)
        rows = self.ppo.rollout * self.n_envs
        if self.algorithm == "ppo" and rows % self.ppo.batch_size:
            expected = f"a divisor of rollout * n_envs = {rows}"
            raise RangeError("ppo.batch_size", value=self.ppo.batch_size, expected=expected)

    @property
    def chosen(self) -> PPOSettings | SACSettings | TD3Settings:
        """Hyperparameters of the chosen algorithm."""
        if self.algorithm == "ppo":
            return self.ppo
        return self.sac if self.algorithm == "sac" else self.td3


def require_device(name: str) -> None:
    """Refuse a torch device that does not exist or that this machine lacks.

    Raises:
        RangeError: If it does not.
    """
    try:
        kind = torch.device(name).type
    except RuntimeError as error:
        raise RangeError("device", value=name, expected="cpu, cuda or cuda:N") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise RangeError("device", value=name, expected="cpu: this machine has no CUDA device")


def _check_off_policy(name: str, settings: SACSettings | TD3Settings) -> None:
    _positive(name, learning_rate=settings.learning_rate)
    _at_least(name, 0, learning_starts=settings.learning_starts)
    _at_least(name, 1, buffer_size=settings.buffer_size, batch_size=settings.batch_size)
    _at_least(name, 1, train_every=settings.train_every, updates=settings.updates)
    _at_least(name, 1, **{"hidden (smallest)": min(settings.hidden, default=1)})
    _within(f"{name}.discount", settings.discount, low=0.0, high=1.0)
    _within(f"{name}.tau", settings.tau, low=0.0, high=1.0)


def _positive(table: str, **values: float) -> None:
    for name, value in values.items():
        if not value > 0.0:
            raise RangeError(f"{table}.{name}", value=value, expected="a number > 0")


def _at_least(table: str, low: int, **values: int | float) -> None:
    for name, value in values.items():
        if not value >= low:
            raise RangeError(f"{table}.{name}", value=value, expected=f"a number >= {low}")


def _within(name: str, value: float, *, low: float, high: float) -> None:
    if not low <= value <= high:
        raise RangeError(name, value=value, expected=f"a number in [{low}, {high}]")
