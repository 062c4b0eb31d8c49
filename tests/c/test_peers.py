"""The frame in which code of other generators is measured, on a peer written by hand."""

import numpy as np
from torch import nn

from safectl.export import torch_network
from safectl_agents.bench.peer_code import empty_peer, one_file, run_peer

TWICE = """
static float kept[64];
static const float gains[256] = {2.0f};
void peer_start(void) { kept[0] = 1.0f; }
void peer_run(const float *x, float *y) {
    volatile float room[32];
    for (int i = 0; i < 32; i++) { room[i] = x[0]; }
    y[0] = gains[(int)x[1]] * room[5] * kept[0];
}
"""


def test_a_peer_is_counted_with_its_constants_its_static_data_and_its_stack():
    program = torch_network("peer", nn.Linear(2, 1), (2,))
    rows = np.array([[1.5, 0.0], [-3.0, 0.0], [4.0, 1.0]], np.float32)
    found = run_peer(lambda _, folder: one_file(folder, TWICE), program, rows)
    assert found.outputs[:, 0].tolist() == [3.0, -6.0, 0.0]
    assert 32 < min(found.instructions) <= max(found.instructions) < 1000
    assert 64 * 4 + 32 * 4 <= found.ram_bytes < 64 * 4 + 32 * 4 + 128
    nothing = run_peer(empty_peer, program, rows)
    assert max(nothing.instructions) < min(found.instructions)
    assert 256 * 4 <= found.image_bytes - nothing.image_bytes < 256 * 4 + 512
