"""Two hundred random networks in three formats: torch, the interpreter and C on three machines."""

import pytest

from safectl.errors import VerificationError
from safectl.export import Program
from safectl_agents.bench.random_networks import RandomNetwork, float_bound, random_network
from safectl_hardware.board import load_board
from safectl_hardware.selftests import run_selftests

NETWORKS = 200
FORMATS = ("float", "8 bits", "16 bits")
BOARDS = (None, "mps2-an386", "riscv-virt")


@pytest.fixture(scope="module")
def networks() -> list[RandomNetwork]:
    return [random_network(seed) for seed in range(NETWORKS)]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_random_networks_agree_with_torch_and_with_their_bound(networks):
    assert max(network.float_difference for network in networks) <= float_bound()
    assert all(share <= 1.0 for network in networks for share in network.bound_shares)
    kinds = {op.kind for network in networks for program in network.programs for op in program.ops}
    assert kinds >= {
        *("dense", "conv2d", "depthwise_conv2d", "max_pool2d", "average_pool2d", "layer_norm"),
        *("simple_rnn", "gru", "lstm", "add", "multiply", "concat", "gather", "activation"),
        *("integer_dense", "integer_conv2d", "integer_depthwise_conv2d", "integer_max_pool2d"),
        *("integer_average_pool2d", "lookup", "quantise", "dequantise"),
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("board", BOARDS)
def test_c_of_random_networks_equals_the_interpreter(networks, form, board, tmp_path):
    programs = [network.programs[FORMATS.index(form)] for network in networks]
    run_selftests(programs, tmp_path / "c", board=None if board is None else load_board(board))


@pytest.fixture
def few() -> list[Program]:
    return list(random_network(0).programs)


def test_a_program_that_gives_other_bits_is_named(few, tmp_path, monkeypatch):
    run_selftests(few, tmp_path / "good")
    text = "sf_net_0_8_test.c"
    from safectl_hardware import selftests

    def broken(program: Program) -> dict[str, str]:
        files = original(program)
        if text in files:
            files[text] = files[text].replace("margins[VECTORS] = {", "margins[VECTORS] = {0.0f * ")
        return files

    original = selftests.c_texts
    monkeypatch.setattr(selftests, "c_texts", broken)
    with pytest.raises(VerificationError, match="program net_0_8: C on this machine"):
        run_selftests(few, tmp_path / "bad")
