"""Which sensor readings are the state of a world's model, if all of them are among its sensors."""

import torch

from safectl.errors import UnsupportedLayer
from safectl_envs.world import World, advance, model_state

_COPIES, _STEPS = 64, 8  # random states after random steps: an equal column is no coincidence


def observed_state(world: World) -> tuple[int, ...]:
    """Find the entry of the observation that equals each entry of the model's state.

    Found by comparing both on random states, bit for bit.

    Raises:
        UnsupportedLayer: If an entry of the state is no sensor reading.
    """
    generator = torch.Generator().manual_seed(0)
    state, steps = world.initial(_COPIES, generator), torch.zeros(_COPIES)
    for _ in range(_STEPS):
        action = 2.0 * torch.rand(_COPIES, world.spec.nu, generator=generator) - 1.0
        state = advance(world, state, steps, action).state
    truth, seen = model_state(world, state), world.observe(state)
    same = (truth.unsqueeze(2) == seen.unsqueeze(1)).all(0)  # (entries, observations)
    hidden = [entry for entry in range(truth.shape[1]) if not bool(same[entry].any())]
    if hidden:
        raise UnsupportedLayer(
            f"a barrier over the entries {hidden} of the state, which the sensors do not show",
            supported=("worlds whose observation holds the state of their model",),
            advice="Train with --guard limits or speed, or keep the barrier on the host.",
        )
    return tuple(int(index) for index in same.to(torch.int8).argmax(1))
