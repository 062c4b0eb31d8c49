"""Correcting an action along the gradient of a critic, in float32, as the generated C does it.

The critic g(s, a) is a perceptron with one output per cost; what of its first layer depends on s
alone is computed before. The gradient of the worst output with respect to the action is exact: the
chain rule, last layer first. The method is
the safeguard of adaptive chance-constrained safeguards (Chen et al., IROS 2024, arXiv 2310.03379).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from safectl.export.arithmetic import clip, dot, tanh
from safectl.export.ops import Array

SMOOTH = ("none", "relu", "tanh", "sigmoid")
"""Activations whose derivative the correction knows, from their output alone."""
FLATTEST = np.float32(1e-16)
"""Squared gradient below which a critic says nothing about where to go."""

_ZERO, _HALF, _ONE, _NAN = (np.float32(number) for number in (0.0, 0.5, 1.0, np.nan))


class Layer(NamedTuple):
    """Weights (out, in), bias (out,) or (batch, out), and the name of the activation."""

    weight: Array
    bias: Array
    activation: str


class Correction(NamedTuple):
    """What `correct` found, per row.

    Attributes:
        action: Shape (batch, nu); NaN where the room is not finite.
        room: Least critic minus bound at this action, shape (batch,).
        start_room: The same at the proposal, shape (batch,).
    """

    action: Array
    room: Array
    start_room: Array


def room_and_gradient(layers: Sequence[Layer], action: Array, bound: Array) -> tuple[Array, Array]:
    """Return the least critic minus bound, (batch,), and its gradient by the action, (batch, nu).

    The first output that is not finite counts as the least.
    """
    outputs = [action]
    for layer in layers:
        outputs.append(_activate(_dense(outputs[-1], layer), layer.activation))
    rooms = outputs[-1] - bound
    room, worst = rooms[:, 0], np.zeros(len(rooms), np.intp)
    for cost in range(1, rooms.shape[1]):
        other = rooms[:, cost]
        is_worse = np.isfinite(room) & ((other < room) | ~np.isfinite(other))
        room, worst = np.where(is_worse, other, room), np.where(is_worse, cost, worst)
    adjoint = (worst[:, None] == np.arange(rooms.shape[1])).astype(np.float32)
    for layer, output in zip(reversed(layers), reversed(outputs), strict=False):
        adjoint = _back(adjoint * _slope(output, layer.activation), layer.weight)
    return room, adjoint


@np.errstate(all="ignore")  # 0 / 0 occurs in rows whose result is not selected
def correct(
    layers: Sequence[Layer],
    action: Array,
    bound: Array,
    limits: tuple[Array, Array],
    *,
    step: np.float32,
    newton: bool,
    iterations: int,
    aim: np.float32 = _ZERO,
) -> Correction:
    """Move each action until the critic reaches its bound, at most `iterations` times.

    Args:
        layers: The critic; the last layer has m outputs.
        action: Proposals within the limits, shape (batch, nu).
        bound: What each output must reach, shape (batch, m).
        limits: Low and high, shape (nu,) each.
        step: For `newton` the damping of a -> a + step (aim - room) grad / |grad|^2, else the
            length of a -> a + step grad / max |grad_i|.
        newton: Which of the two. Both zero the entries of grad that lead out of an active limit.
        iterations: Bound of the loop.
        aim: How far beyond the bound a Newton step leads.

    Returns:
        The first iterate that reaches the bound, else the best one; NaN where the critic or the
        bound says nothing about it, so that the finite test at the end of a step sees it.
    """
    room, gradient = room_and_gradient(layers, action, bound)
    start_room = best_room = room
    best, going = action, np.ones(len(action), bool)
    low, high = limits
    for _ in range(iterations):
        inward = np.where(gradient > 0, action < high, action > low)
        gradient = np.where(inward, gradient, _ZERO)
        square = dot(gradient, gradient)
        going = going & ~(room >= 0) & (square > FLATTEST)
        if not going.any():
            break
        factor = step * (aim - room) / square if newton else step / _largest(gradient)
        moved = clip(action + factor[:, None] * gradient, low, high)
        action = np.where(going[:, None], moved, action)
        room, gradient = room_and_gradient(layers, action, bound)
        better = going & (room > best_room)
        best = np.where(better[:, None], action, best)
        best_room = np.where(better, room, best_room)
    best = np.where(np.isfinite(best_room)[:, None], best, _NAN)
    return Correction(best, best_room, start_room)


def _dense(x: Array, layer: Layer) -> Array:
    total: Array = np.broadcast_to(layer.bias, (len(x), len(layer.weight)))
    for k in range(x.shape[1]):
        total = total + x[:, k, None] * layer.weight[None, :, k]
    return total


def _activate(x: Array, activation: str) -> Array:
    if activation == "relu":
        return np.where(x < 0, _ZERO, x)
    if activation == "tanh":
        return tanh(x)
    return _HALF * tanh(_HALF * x) + _HALF if activation == "sigmoid" else x


def _slope(output: Array, activation: str) -> Array:
    """Return the derivative of an activation from its output."""
    if activation == "relu":
        return np.where(output > 0, _ONE, _ZERO)
    if activation == "tanh":
        return _ONE - output * output
    return output * (_ONE - output) if activation == "sigmoid" else np.ones_like(output)


def _back(adjoint: Array, weight: Array) -> Array:
    """Sum adjoint[o] weight[o] over the outputs o = 0, 1, ..., starting at zero."""
    total: Array = np.zeros((len(adjoint), weight.shape[1]), np.float32)
    for o in range(len(weight)):
        total = total + adjoint[:, o, None] * weight[None, o]
    return total


def _largest(gradient: Array) -> Array:
    largest: Array = np.zeros(len(gradient), np.float32)
    for j in range(gradient.shape[1]):
        size = np.where(gradient[:, j] < 0, -gradient[:, j], gradient[:, j])
        largest = np.where(size > largest, size, largest)
    return largest
