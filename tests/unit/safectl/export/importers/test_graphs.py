"""Views, fused layers and arrangements against the plain meaning of a graph, in float64."""

import numpy as np
import pytest

from safectl.errors import RangeError, ShapeError, UnsupportedLayer
from safectl.export import Tracer, interpret, network_spec
from safectl.export.importers.arrange import append_arranged
from safectl.export.importers.graph import Draft
from safectl.export.importers.layers import (
    Activation,
    Affine,
    Clip,
    Combine,
    Convolution,
    Dense,
    LayerNorm,
    Pool,
    Recurrent,
)
from safectl.export.importers.program import graph_program
from safectl.export.importers.shapes import same_padding
from tests.unit.safectl.export.importers.graph_reference import run

FLOAT_ERROR = 1e-5  # absolute, for values of order one
ROWS = 3


def draw(generator, *shape):
    return generator.normal(0.0, 1.0 / np.sqrt(shape[-1]), shape)


def random_graph(seed):
    """An image through eight random layers and views, channel-first half of the time."""
    generator = np.random.default_rng(seed)
    draft = Draft()
    value = draft.enter("image", (4, 5, 3))
    for number in range(8):
        channels, name = draft.shape(value)[-1], f"layer {number}"
        layers = (
            Convolution(
                draw(generator, 4, 2, 2, channels),
                draw(generator, 4),
                padding=((1, 0), (0, 1)),
            ),
            Pool("average", (2, 2), (1, 1), ((1, 0), (1, 0))),
            Affine(draw(generator, channels), draw(generator, channels)),
            Affine(draw(generator, 1), draw(generator, 1)),
            Dense(draw(generator, 3, channels), draw(generator, 3)),
            LayerNorm(draw(generator, channels), draw(generator, channels), 0.1),
            Activation("tanh"),
            Activation("softmax"),
            Clip(-0.5, 0.5),
        )
        chosen = generator.integers(len(layers) + 3)
        if chosen < len(layers):
            value = draft.add(layers[chosen], name, value)
        elif chosen == len(layers):
            value = draft.view(value, name, lambda index: index.transpose(2, 0, 1))
            value = draft.add(Activation("relu"), name, value)
            value = draft.view(value, name, lambda index: index.transpose(1, 2, 0))
        elif chosen == len(layers) + 1:
            other = draft.add(Activation("sigmoid"), name, value)
            value = draft.add(Combine("multiply"), name, value, other)
        else:
            value = draft.join([value, draft.view(value, name, lambda index: index[::-1])], 2, name)
            value = draft.view(value, name, lambda index: index[:, :, 1:5])
    turned = draft.view(value, "out", lambda index: index.transpose(2, 1, 0))
    flat = draft.reshape(turned, (-1,), "out")
    size = draft.shape(flat)[0]
    return draft.finish(
        [draft.add(Dense(draw(generator, 2, size), np.zeros(2)), "out", flat), flat]
    )


@pytest.mark.parametrize("seed", range(20))
def test_a_random_graph_equals_its_plain_meaning(seed):
    graph = random_graph(seed)
    program = graph_program(graph, "net", None)
    observation = np.random.default_rng(seed).normal(size=(ROWS, 60)).astype(np.float32)
    expected = np.stack([run(graph, row) for row in observation])
    assert np.abs(interpret(program, observation).action - expected).max() <= FLOAT_ERROR


def kinds_of(draft, value):
    return [op.kind for op in graph_program(draft.finish([value]), "net", None).ops[:-1]]


def test_batch_normalisation_before_and_behind_and_the_activation_cost_no_operation():
    draft = Draft()
    value = draft.enter("x", (3,))
    scale = Affine(np.full(3, 2.0), np.ones(3))
    value = draft.add(scale, "before", value)
    value = draft.add(Dense(np.eye(3), np.zeros(3)), "dense", value)
    value = draft.add(scale, "behind", value)
    value = draft.add(Activation("relu"), "relu", value)
    assert kinds_of(draft, value) == ["dense"]
    graph = draft.finish([value])
    result = interpret(graph_program(graph, "net", None), np.array([[1.0, -1.0, 0.0]], np.float32))
    assert result.action.tolist() == [[7.0, 0.0, 3.0]]


def test_a_value_that_two_layers_read_is_not_fused_away():
    draft = Draft()
    given = draft.enter("x", (3,))
    first = draft.add(Dense(np.eye(3), np.zeros(3)), "dense", given)
    second = draft.add(Activation("relu"), "relu", first)
    total = draft.add(Combine("add"), "add", first, second)
    assert kinds_of(draft, total) == ["dense", "activation", "add"]


def test_a_channel_first_network_is_turned_once_at_its_door():
    draft = Draft()
    value = draft.enter("image", (2, 5, 5))
    for number in range(3):
        value = draft.view(value, "in", lambda index: index.transpose(1, 2, 0))
        weight = draw(np.random.default_rng(number), 2, 2, 2, 2)
        value = draft.add(Convolution(weight, np.zeros(2)), f"conv {number}", value)
        value = draft.view(value, "out", lambda index: index.transpose(2, 0, 1))
        value = draft.add(Activation("relu"), f"relu {number}", value)
    flat = draft.reshape(value, (-1,), "flat")
    value = draft.add(Dense(np.ones((1, 8)), np.zeros(1)), "dense", flat)
    assert kinds_of(draft, value) == ["gather", "conv2d", "conv2d", "conv2d", "dense"]


@pytest.mark.parametrize(
    "index", [[3, 4], [4, 3, 2], [0, 0, 5], [5], [1, 3, 5, 0, 2, 4], [2, 3, 0, 1]]
)
def test_any_short_arrangement_has_operations(index):
    tracer = Tracer("net", network_spec(6, len(index)))
    value = append_arranged(tracer, "observation", np.array(index), name="x")
    program = tracer.finish_network(value)
    observation = np.arange(6, dtype=np.float32)[None]
    assert interpret(program, observation).action[0].tolist() == index


def test_a_long_disorder_is_refused_by_name():
    tracer = Tracer("net", network_spec(2000, 2000))
    order = np.random.default_rng(0).permutation(2000)
    with pytest.raises(UnsupportedLayer, match="order of entries before shuffle"):
        append_arranged(tracer, "observation", order, name="shuffle")


def test_same_padding_puts_the_odd_zero_behind():
    assert same_padding((5, 4), (2, 3), (1, 1)) == ((0, 1), (1, 1))
    assert same_padding((5, 4), (2, 3), (2, 2)) == ((0, 1), (0, 1))


def test_a_layer_that_does_not_fit_is_named():
    draft = Draft()
    value = draft.enter("x", (3,))
    with pytest.raises(ShapeError, match="a weight of wide has shape"):
        draft.add(Dense(np.ones((2, 4)), np.zeros(2)), "wide", value)
    with pytest.raises(ShapeError, match="input of conv"):
        draft.add(Convolution(np.ones((2, 1, 1, 3)), np.zeros(2)), "conv", value)
    sequence = draft.reshape(value, (1, 3), "sequence")
    weights = (np.ones((3, 8)), np.ones((2, 8)), np.zeros(7))
    with pytest.raises(ShapeError, match="a weight of cell"):
        draft.add(Recurrent("lstm", *weights, return_sequences=False), "cell", sequence)
    with pytest.raises(RangeError, match="shape of huge"):
        draft.view(value, "huge", lambda index: np.broadcast_to(index, (1 << 20, 3)))
