"""Everything that is trained on one data set and compared: variants of FB, and baselines."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import MappingProxyType
from typing import Literal

from safectl.config import to_mapping
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
        reads: Entries of the settings' `update` that a baseline reads; a variant reads all.
    """

    summary: str
    make: Callable[[FBConfig, Domain, Transitions], Trainee]
    kind: str = MODEL
    update: tuple[str, Literal["value", "aw"]] | None = None
    reads: tuple[str, ...] = ()

    def configure(self, config: FBConfig) -> FBConfig:
        """Return the settings of a training by this method.

        Raises:
            ConfigError: If an entry of `update` was set that a baseline does not read.
        """
        if self.update is None:
            published = to_mapping(UpdateSettings())
            for name, value in to_mapping(config.update).items():
                if value != published[name] and name not in self.reads:
                    option = f"--update.{name.replace('_', '-')}"
                    problem = f"is not read by {self.kind}; leave it out, or train baselines and"
                    raise ConfigError(option, f"{problem} variants of FB in two commands")
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
            "successor features over Laplacian features", SFLap, "sf-lap", reads=("mix",)
        ),
        "gc-iql": Method("goal-conditioned implicit Q-learning", GCIQL, "gc-iql"),
        "cql": Method("conservative Q-learning per task", partial(PerTask, make_cql), "cql"),
        "td3": Method("offline TD3 per task", partial(PerTask, make_td3), "td3"),
        "td3-bc": Method("TD3 + BC per task", partial(PerTask, make_td3_bc), "td3-bc"),
    }
)
"""Methods by name; those per task see the rewards, the others do not."""
