"""`safectl train value`: train the value function that guides plans to larger returns."""

import time
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from safectl_agents.commands.train_diffuser import (
    TrainDiffuserSettings,
    config_of,
    folder_of,
    metrics_of,
    report,
    train_with_bar,
    use_threads,
    words_of,
)
from safectl_agents.diffusion.plan_data import plan_data
from safectl_agents.diffusion.value import ValueConfig, ValueTrainer, save_value


@dataclass(frozen=True, slots=True)
class TrainValueSettings(TrainDiffuserSettings):
    """The planner's settings, on whose data and in whose coordinates the value is learnt."""

    preset: str = "hopper-small"
    """Named settings, those of the planner that will be guided."""
    discount: float = 0.99
    """Weight of a reward per step that it lies ahead."""
    penalty: float = -100.0
    """Added to the last reward of an episode that failed, in the unit of the reward."""
    folder: Path | None = None
    """Of the run; `runs/diffuser-<preset>-<seed>/value` without. A run in it goes on."""


DEFAULTS = TrainValueSettings()


def run(settings: TrainValueSettings) -> int:
    """Train, save the averaged network and say where it is."""
    use_threads(settings.threads)
    config = config_of(settings)
    value = ValueConfig(discount=settings.discount, penalty=settings.penalty)
    folder = settings.folder or folder_of(settings) / "value"
    console = Console(stderr=True)
    console.print(f"{settings.preset}: returns of {config.dataset}, {folder}", highlight=False)
    started = time.monotonic()
    data = plan_data(config, folder.parent, discount=value.discount, penalty=value.penalty)
    assert data.returns is not None, "a discount was named"
    trainer = ValueTrainer(
        config,
        data.rows,
        data.returns,
        value,
        nu=data.spec.nu,
        device=settings.device,
        compiles=settings.compiles,
    )
    train_with_bar(trainer, folder, console)
    command = (
        f"safectl train value {words_of(settings)} "
        f"--discount {settings.discount:g} --penalty {settings.penalty:g}"
    )
    metrics = metrics_of(trainer, started, command)
    save_value(folder / "model", trainer, data.normaliser, data.spec, metrics)
    following = f"safectl evaluate diffuser MODEL --value {folder / 'model'}"
    report(folder, metrics, following, as_json=settings.json)
    return 0
