"""Safeguards that were learned, from the files of their training. Nothing is unpickled."""

from safectl.safeguards import ACS, SafetyLayer
from safectl_agents.acs.saved import load_critic, load_seed
from safectl_agents.fb.saved import load_visit_limit
from safectl_agents.models import make_env
from safectl_agents.run_folder import load_config, load_guard
from safectl_agents.speed_guard import SpeedGuard
from safectl_ros.learned_settings import ACSSettings, VisitLimitSettings
from safectl_ros.loaded import Loaded, Source


def build_acs(settings: ACSSettings, source: Source) -> Loaded:
    """Keep the bound of a learned critic.

    Raises:
        FileFormatError: If there is no critic for the signals of this robot.
    """
    critic = load_critic(source.path.parent / settings.model, source.robot.spec)
    guard = ACS(critic, fallback=source.rest, options=settings.options)
    return Loaded(guard, ("cost",))


def build_visit_limit(settings: VisitLimitSettings, source: Source) -> Loaded:
    """Keep the limit of a forward-backward model.

    Raises:
        FileFormatError, RangeError, ShapeError: As `load_visit_limit`.
    """
    guard = load_visit_limit(
        source.path.parent / settings.run,
        source.robot.spec,
        source.spec,
        limit=settings.limit,
        candidates=settings.candidates,
    )
    return Loaded(guard, ("visits",))


def build_seed(source: Source) -> Loaded:
    """Keep the bound that a seed of the ACS experiment was trained for; the path is its folder.

    Raises:
        ConfigError, SpecMismatch, FileFormatError: As `load_seed`.
    """
    critic, options = load_seed(source.path, source.robot.spec)
    return Loaded(ACS(critic, fallback=source.rest, options=options), ("cost",))


def build_speed(source: Source) -> Loaded:
    """Keep the speed limit that a run has learned; the path is its folder.

    Raises:
        FileFormatError: If its last checkpoint cannot be read.
    """
    config = load_config(source.path)
    env = make_env(config.env)
    try:
        guard = SpeedGuard(env, seed=config.seed)
    finally:
        env.close()
    load_guard(source.path, guard)
    layer = guard.require_layer()
    limited = SafetyLayer(
        layer.model,
        layer.calibration,
        spec=source.spec,
        limit=layer.limit,
        rate=layer.rate,
        signal=layer.signal,
    )
    return Loaded(limited, ("speed",))
