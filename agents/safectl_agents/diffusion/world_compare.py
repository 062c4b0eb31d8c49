"""World models of one and of two streams side by side: train, keep, measure, draw."""

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from safectl.errors import ConfigError, FileFormatError
from safectl.files import new_file, new_folder, read_json, write_json
from safectl.seed import torch_generator
from safectl_agents.diffusion.plan_data import PlanData, plan_data
from safectl_agents.diffusion.settings import DiffuserConfig
from safectl_agents.diffusion.world_model import (
    Quality,
    WorldModel,
    WorldModelConfig,
    cut,
    draw_states,
    make_world_model,
    measure_world_model,
    split,
    train_world_model,
)
from safectl_agents.plots import COLOURS

Runs = dict[str, list[Quality]]
STREAMS = {"one stream": 1, "two streams": 2}
_ADVICE = "delete the folder and train again"
_DRAWN, _SAMPLES = 4, 12


def world_data(config: WorldModelConfig, folder: Path, maze: str, steps: int) -> PlanData:
    """Return the data of a maze; they are made in the folder if they are not there.

    Raises:
        UnknownNameError, ConfigError, StorageError: If they cannot be made.
    """
    wanted = DiffuserConfig(dataset=maze, data_steps=steps, horizon=config.horizon + 1)
    return plan_data(wanted, folder)


def compare_streams(
    config: WorldModelConfig,
    folder: Path,
    *,
    maze: str = "umaze",
    data_steps: int = 100_000,
    seeds: int = 3,
    after_update: Callable[[int], None] = lambda _: None,
) -> Runs:
    """Train and measure both kinds for seeds 0, 1, ...; what the folder holds is only measured.

    Args:
        config: Settings, of which `streams` and `seed` are set here.
        folder: Of data and models.
        maze: Whose data.
        data_steps: Steps of the world in them.
        seeds: Models of each kind.
        after_update: Called with the updates done in all.

    Raises:
        ConfigError: If the folder holds a model of other settings.
        FileFormatError: If a model there is damaged.
        RangeError: If the data hold no window.
    """
    data = world_data(config, folder, maze, data_steps)
    runs: Runs = {name: [] for name in STREAMS}
    done = 0
    for seed in range(seeds):
        for name, streams in STREAMS.items():
            own = replace(config, streams=streams, seed=seed)
            place = _folder(folder, own)
            if not place.exists():

                def report(update: int, loss: float, begun: int = done) -> None:
                    del loss
                    after_update(begun + update)

                network = train_world_model(own, data, after_update=report)
                with new_folder(place) as draft:
                    save_file(network.state_dict(), draft / "model.safetensors")
                    write_json(draft / "config.json", asdict(own))
            done += config.updates
            after_update(done)
            runs[name].append(measure_world_model(load_world_model(own, folder, data), own, data))
    return runs


def load_world_model(config: WorldModelConfig, folder: Path, data: PlanData) -> WorldModel:
    """Read a model that `compare_streams` left.

    Raises:
        ConfigError: If it was trained with other settings.
        FileFormatError: If it is missing or damaged.
    """
    place = _folder(folder, config)
    if read_json(place / "config.json", advice=_ADVICE) != asdict(config):
        raise ConfigError(str(place), f"holds a model of other settings; {_ADVICE}")
    network = make_world_model(config, data.spec.nx, data.spec.nu)
    try:
        network.load_state_dict(load_file(place / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise FileFormatError(place, f"cannot be read ({error})", _ADVICE) from error
    return network.eval().requires_grad_(False)


def plot_samples(config: WorldModelConfig, folder: Path, data: PlanData) -> Path:
    """Draw samples of both kinds, seed 0, for a few held-out windows; return the PNG.

    Raises:
        StorageError: If it cannot be written.
    """
    figure = Figure(figsize=(3.0 * _DRAWN, 6.0), layout="constrained")
    panels = figure.subplots(len(STREAMS), _DRAWN, squeeze=False)
    generator = torch_generator(0, "windows that are drawn")
    for row, (name, streams) in zip(panels, STREAMS.items(), strict=True):
        own = replace(config, streams=streams, seed=0)
        network = load_world_model(own, folder, data)
        _, held = split(own, data)
        spaced = held[:: max(len(held) // _DRAWN, 1)][:_DRAWN]
        condition, states = cut(data, spaced, own.horizon)
        drawn = draw_states(network, own, condition.repeat_interleave(_SAMPLES, 0), generator)
        for index, panel in enumerate(row):
            mine = data.positions(drawn[index * _SAMPLES : (index + 1) * _SAMPLES])
            for way in mine:
                panel.plot(way[:, 1], way[:, 0], color=COLOURS[1], alpha=0.5, linewidth=1.0)
            truth = data.positions(states[index])
            panel.plot(truth[:, 1], truth[:, 0], color=COLOURS[2], marker=".", linewidth=1.5)
            panel.set_aspect("equal", "datalim")
            panel.tick_params(labelsize=7)
            panel.set_title(f"{name}, window {index + 1}", fontsize=9)
            if index == 0:
                panel.set_ylabel("row [m]")
            panel.set_xlabel("column [m]")
    path = folder / "samples.png"
    with new_file(path) as draft:
        FigureCanvasAgg(figure).print_figure(draft, dpi=100, format="png")
    return path


def _folder(folder: Path, config: WorldModelConfig) -> Path:
    return folder / f"streams-{config.streams}-seed-{config.seed}"
