"""A trained actor, alone or behind its learned safety layer, as a program for C."""

from torch import nn

from safectl.export import (
    Network,
    Normaliser,
    Program,
    guarded_policy_program,
    policy_program,
    signal_of,
)
from safectl.safeguards.safety_layer import SafetyLayer
from safectl.spec import Spec
from safectl_agents.sb3 import SB3Policy


def program_of(
    name: str,
    spec: Spec,
    policy: SB3Policy,
    *,
    layer: SafetyLayer | None = None,
    now: int | None = None,
) -> Program:
    """Turn a policy into a program.

    Args:
        name: Lower-case C identifier.
        spec: Signals of the robot.
        policy: The actor with its normaliser.
        layer: Guards the actor; alone it is only limited to the action box.
        now: Entry of the observation that is the layer's signal; needed where its rate is below 1.

    Raises:
        UnsupportedLayer: If a network holds a layer that has no operation.
        ShapeError: If policy, layer and specification disagree on a size.
    """
    network = network_of(policy)
    if layer is None:
        return policy_program(name, spec, network)
    signal = signal_of(layer, now=now if layer.rate < 1.0 else None)
    return guarded_policy_program(name, spec, network, signal)


def network_of(policy: SB3Policy) -> Network:
    """Return layers, normaliser and the map of the output to the action's limits."""
    statistics = policy.normaliser
    normaliser = None
    if statistics is not None:
        normaliser = Normaliser(
            statistics.mean.double().numpy(),
            statistics.variance.double().numpy(),
            statistics.epsilon,
            statistics.clip,
        )
    layers: nn.Module = policy.layers
    if not policy.rescaled:
        return Network(layers, normaliser)
    half = 0.5 * (policy.high - policy.low)
    middle = 0.5 * (policy.high + policy.low)
    return Network(layers, normaliser, gain=half.tolist(), shift=middle.tolist())
