"""A cost critic that was trained before the first step, so that the guard can start with it.

The violations that taught it were made elsewhere, in an earlier run. They are not training
violations of the new one, and whoever reports those says where the critic comes from.
"""

import torch
from stable_baselines3.common.save_util import recursive_getattr

from safectl.errors import ConfigError
from safectl_agents.acs.lower import Lower


def adopt_lower(ours: Lower, theirs: Lower) -> None:
    """Fill a new lower layer from a trained one: networks, slow copies, optimisers.

    Use it with `ConstraintSettings(guard_from=0)`.

    Raises:
        ConfigError: If the layers are of different kinds or sizes.
    """
    if ours.parts != theirs.parts:
        kinds = f"{type(theirs).__name__} and {type(ours).__name__}"
        raise ConfigError("the lower layers", f"are of different kinds, {kinds}")
    try:
        with torch.no_grad():
            for name in ours.parts:
                state = recursive_getattr(theirs, name).state_dict()
                recursive_getattr(ours, name).load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise ConfigError("the lower layers", f"are of different sizes ({error})") from error
