import pytest

from safectl.errors import RangeError
from safectl_hardware.frames import Decoder, Frame, is_newer

FRAME = Frame(2, 65535, 2**32 - 1, b"\0payload\0")


def test_frames_survive_reads_that_split_them_anywhere():
    wire = FRAME.to_bytes() * 3
    for size in range(1, len(wire)):
        decoder = Decoder()
        found = [
            frame
            for at in range(0, len(wire), size)
            for frame in decoder.push(wire[at : at + size])
        ]
        assert found == [FRAME] * 3
        assert decoder.refused == 0


def test_noise_between_frames_is_refused_and_counted():
    decoder = Decoder()
    assert decoder.push(b"boot\r\n\0" + FRAME.to_bytes() + b"\0\0x\0" + FRAME.to_bytes()) == [
        FRAME,
        FRAME,
    ]
    assert decoder.refused == 2


@pytest.mark.parametrize("fields", [(256, 0, 0), (1, 65536, 0), (1, 0, 2**32), (1, -1, 0)])
def test_numbers_that_do_not_fit_are_refused(fields):
    with pytest.raises(RangeError):
        Frame(*fields)


def test_sequence_numbers_are_compared_modulo_their_size():
    assert is_newer(1, 0)
    assert is_newer(0, 65535)
    assert not is_newer(65535, 0)
    assert not is_newer(5, 5)
    assert not is_newer(32768, 0)
