"""Everything that is trained on one data set and compared: variants of FB, and baselines."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from safectl.errors import ConfigError, UnknownNameError
from safectl.models import UpdateSettings
from safectl_agents.fb.baselines.gc_iql import GCIQL
from safectl_agents.fb.baselines.per_task import PerTask, make_cql, make_td3, make_td3_bc
from safectl_agents.fb.baselines.sf_lap import SFLap
from safectl_agents.fb.domains import Domain
from safectl_agents.fb.episodes import Transitions
from safectl_agents.fb.loop import Trainee
from safectl_agents.fb.settings import FBConfig
from safectl_agents.fb.train import MODEL, ModelTrainee


@dataclass(frozen=True, slots=True)
class Method:
    """One method.

    Attributes:
        summary: What it is, one line.
        make: Builds it, untrained.
        kind: What its folder says that it holds.
        update: Variant of FB, and what its policy learns; None for a baseline.
        shared: Options of the update that a baseline has as well.
    """

    summary: str
    make: Callable[[FBConfig, Domain, Transitions], Trainee]
    kind: str = MODEL
    update: tuple[str, Literal["value", "aw"]] | None = None
    shared: tuple[str, ...] = ()

    def configure(self, config: FBConfig) -> FBConfig:
        """Return the settings of a training by this method.

        Raises:
            ConfigError: If it is a baseline, and an option of the update is given.
        """
        if self.update is None:
            for name, value in asdict(UpdateSettings()).items():
                if name not in self.shared and getattr(config.update, name) != value:
                    option = f"--update.{name.replace('_', '-')}"
                    problem = f"says nothing to {self.kind}; compare baselines without it"
                    raise ConfigError(option, f"{problem}, in a command of their own")
            return config
        variant, actor = self.update
        return replace(config, update=replace(config.update, method=variant, actor=actor))


def find_method(name: str) -> Method:
    """Return a method by name.

    Raises:
        UnknownNameError: If there is none of this name.
    """
    if name not in METHODS:
        raise UnknownNameError("method", name, known=list(METHODS))
    return METHODS[name]


def _variant(summary: str, method: str, actor: Literal["value", "aw"] = "value") -> Method:
    return Method(summary, ModelTrainee, update=(method, actor))


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "fb": _variant("forward-backward, no penalty", "fb"),
        "vc-fb": _variant("forward-backward, conservative values", "vc-fb"),
        "mc-fb": _variant("forward-backward, conservative measures", "mc-fb"),
        "dvc-fb": _variant("forward-backward, conservative values of tasks from B", "dvc-fb"),
        "fb-aw": _variant("forward-backward, policy by advantage-weighted imitation", "fb", "aw"),
        "vc-fb-aw": _variant("both of vc-fb and fb-aw", "vc-fb", "aw"),
        "sf-lap": Method(
            "successor features over Laplacian features", SFLap, "sf-lap", shared=("mix",)
        ),
        "gc-iql": Method("goal-conditioned implicit Q-learning", GCIQL, "gc-iql"),
        "cql": Method("conservative Q-learning per task", partial(PerTask, make_cql), "cql"),
        "td3": Method("offline TD3 per task", partial(PerTask, make_td3), "td3"),
        "td3-bc": Method("TD3 + BC per task", partial(PerTask, make_td3_bc), "td3-bc"),
    }
)
"""Methods by name; those per task see the rewards, the others do not."""
