"""Settings of a training of a forward-backward model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from safectl.config import overlay
from safectl.errors import RangeError
from safectl.models import Sizes, UpdateSettings
from safectl_agents.fb.domains import facts_of
from safectl_agents.fb.episodes import Subset
from safectl_agents.settings import require_device


@dataclass(frozen=True, slots=True)
class FBConfig:
    """One training; the defaults are those of the released implementation and want a GPU.

    Raises:
        RangeError: If a number lies outside its range.
        UnknownNameError: If there is no domain of this name.
    """

    domain: str = "point_mass_maze"
    """`point_mass_maze`, `walker` or `planar_reach`."""
    update: UpdateSettings = field(default_factory=UpdateSettings)
    """The method and how it learns."""
    discount: float | None = None
    """Discount per step; None for that published for the domain."""
    nz: int | None = None
    """Entries of a task; None for that published for the domain."""
    hidden: int = 1024
    """Units per hidden layer of F and the policy; 256 is what a CPU can do."""
    embedding: int = 512
    """Outputs of each preprocessor; 128 on a CPU."""
    backward_hidden: int = 256
    """Units per hidden layer of B."""
    observation_scale: tuple[float, ...] = ()
    """What each observation is divided by before every network of F, B and the policy; empty for 1,
    as published (decision 0114). Of the baselines, SF-LAP has it as well."""
    batch: int = 512
    """Rows per update, >= 2; 256 on a CPU."""
    steps: int = 1_000_000
    """Updates, >= 1."""
    transitions: int = 100_000
    """Transitions of the data that are used, >= 2."""
    subset: Subset = "uniform"
    """Whether they are drawn over all episodes or are the first ones."""
    labels: int = 10_000
    """Transitions that are labelled to infer a task from its rewards, >= 1."""
    evaluate_every: int = 20_000
    """Updates between two evaluations, >= 1."""
    episodes: int = 10
    """Episodes per task and evaluation, >= 2."""
    checkpoint_every: int = 20_000
    """Updates between two checkpoints, >= 1."""
    keep: int = 2
    """Checkpoints kept, >= 1."""
    log_every: int = 500
    """Updates between two rows of the logs, >= 1."""
    seed: int = 0
    """Of weights, batches and noise, >= 0; subset and evaluation have seeds of their own."""
    device: str = "cpu"
    """Torch device. Only `cpu` is claimed to give equal bits."""
    threads: int = 1
    """Threads torch may use, >= 1; the bits of a result may depend on it."""

    def __post_init__(self) -> None:
        facts_of(self.domain)
        for name, low in (
            ("batch", 2),
            ("steps", 1),
            ("transitions", 2),
            ("labels", 1),
            ("evaluate_every", 1),
            ("episodes", 2),
            ("checkpoint_every", 1),
            ("keep", 1),
            ("log_every", 1),
            ("seed", 0),
            ("threads", 1),
        ):
            if getattr(self, name) < low:
                raise RangeError(name, value=getattr(self, name), expected=f">= {low}")
        if self.discount is not None and not 0.0 < self.discount < 1.0:
            raise RangeError("discount", value=self.discount, expected="a number in (0, 1)")
        if self.nz is not None and self.nz < 1:
            raise RangeError("nz", value=self.nz, expected=">= 1")
        require_device(self.device)

    @property
    def gamma(self) -> float:
        """Discount per step, of the run or of the domain."""
        return facts_of(self.domain).discount if self.discount is None else self.discount

    def sizes(self, nx: int, nu: int) -> Sizes:
        """Return the widths of the networks for observations and actions of these sizes."""
        nz = facts_of(self.domain).nz if self.nz is None else self.nz
        widths = (self.hidden, self.embedding, self.backward_hidden)
        return Sizes(nx, nu, nz, *widths, observation_scale=self.observation_scale)


def read_settings(stored: Mapping[str, Any], *, source: str) -> FBConfig:
    """Read settings of a run, whichever version wrote them.

    Earlier ones kept a second discount in `update`, which no training used; it is dropped.

    Raises:
        ConfigError: On an unknown key or a value of the wrong type or range.
    """
    update = stored.get("update")
    if isinstance(update, Mapping):
        used = {name: value for name, value in update.items() if name != "discount"}
        stored = {**stored, "update": used}
    return overlay(FBConfig(), stored, source=source)
