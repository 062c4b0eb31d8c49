"""The frame codec in C and in Python: equal bytes, equal verdicts, also on damaged input."""

import ctypes
import random
import subprocess
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safectl.export.emit_c import C_FLAGS
from safectl_hardware.frames import Decoder, Frame

LARGEST_PAYLOAD = 600
COMPILE_TIMEOUT_S = 60


class CFrame(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_uint8),
        ("sequence", ctypes.c_uint16),
        ("time_us", ctypes.c_uint32),
        ("payload", ctypes.c_void_p),
        ("size", ctypes.c_size_t),
    )


class CDecoder(ctypes.Structure):
    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("capacity", ctypes.c_size_t),
        ("size", ctypes.c_size_t),
        ("refused", ctypes.c_uint32),
    )


class Codec:
    """`sf_frame.c` behind the interface of the Python codec."""

    def __init__(self, library):
        self._library = library
        library.sf_frame_encode.restype = ctypes.c_size_t
        self._buffer = ctypes.create_string_buffer(LARGEST_PAYLOAD + 16)
        self._decoder = CDecoder()
        library.sf_frame_decoder_init(
            ctypes.byref(self._decoder), self._buffer, ctypes.c_size_t(len(self._buffer))
        )

    @property
    def refused(self):
        return self._decoder.refused

    def encode(self, frame):
        body = ctypes.create_string_buffer(7 + len(frame.payload) + 4)
        wire = ctypes.create_string_buffer(len(body) + len(body) // 254 + 2)
        body[7 : 7 + len(frame.payload)] = frame.payload
        fields = CFrame(frame.kind, frame.sequence, frame.time_us, None, len(frame.payload))
        size = self._library.sf_frame_encode(ctypes.byref(fields), body, wire)
        return wire.raw[:size]

    def push(self, data):
        frames, fields = [], CFrame()
        for byte in data:
            decoder = ctypes.byref(self._decoder)
            if self._library.sf_frame_push(decoder, ctypes.c_uint8(byte), ctypes.byref(fields)):
                payload = ctypes.string_at(fields.payload, fields.size)
                frames.append(Frame(fields.type, fields.sequence, fields.time_us, payload))
        return frames


ECHO = """
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "sf_frame.h"

int main(void) {
    uint8_t *buffer = malloc(CAPACITY);
    sf_frame_decoder decoder;
    sf_frame frame;
    sf_frame_decoder_init(&decoder, buffer, CAPACITY);
    for (int byte = getchar(); byte != EOF; byte = getchar()) {
        if (sf_frame_push(&decoder, (uint8_t)byte, &frame)) {
            uint8_t *body = malloc(SF_FRAME_BODY(frame.size));
            uint8_t *wire = malloc(SF_FRAME_WIRE(frame.size));
            memcpy(body + SF_FRAME_HEADER, frame.payload, frame.size);
            fwrite(wire, 1, sf_frame_encode(&frame, body, wire), stdout);
            free(body);
            free(wire);
        }
    }
    fprintf(stderr, "%u", (unsigned)decoder.refused);
    free(buffer);
    return 0;
}
"""
"""Reads a stream and writes back the frames that it holds; every buffer has its exact size."""


def compile_frames(target, *options):
    runtime, own = files("safectl.export") / "runtime", files("safectl_hardware") / "runtime"
    command = ["gcc", *C_FLAGS, f"-I{runtime}", f"-I{own}", own / "sf_frame.c"]
    command += [runtime / "sf_core.c", *options, "-o", target]
    subprocess.run(command, check=True, timeout=COMPILE_TIMEOUT_S)
    return target


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    target = tmp_path_factory.mktemp("frames") / "frames.so"
    return ctypes.CDLL(str(compile_frames(target, "-O2", "-shared", "-fPIC")))


def test_the_codec_stays_within_its_buffers(tmp_path):
    source = tmp_path / "echo.c"
    source.write_text(ECHO)
    sanitizers = ("-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    program = compile_frames(
        tmp_path / "echo", f"-DCAPACITY={LARGEST_PAYLOAD + 16}", *sanitizers, source
    )
    rng = random.Random(0)
    for _ in range(10):
        sent = [Frame(1, i, i, rng.randbytes(rng.randrange(LARGEST_PAYLOAD))) for i in range(50)]
        wire = bytearray(b"".join(frame.to_bytes() for frame in sent))
        for _ in range(20):
            wire[rng.randrange(len(wire))] = rng.choice([0, 1, 255, rng.randrange(256)])
        decoder = Decoder()
        expected = b"".join(frame.to_bytes() for frame in decoder.push(bytes(wire)))
        done = subprocess.run(
            [program], input=bytes(wire), capture_output=True, timeout=60, check=False
        )
        assert (done.returncode, done.stdout) == (0, expected)
        assert int(done.stderr) == decoder.refused > 0


frames = st.builds(
    Frame,
    st.integers(0, 255),
    st.integers(0, 2**16 - 1),
    st.integers(0, 2**32 - 1),
    st.binary(max_size=40)
    | st.integers(240, LARGEST_PAYLOAD).map(bytes)
    | st.integers(230, LARGEST_PAYLOAD).map(lambda size: b"\1" * size),
)


@given(frames)
def test_c_and_python_write_the_same_bytes_and_read_them_back(library, frame):
    wire = frame.to_bytes()
    assert Codec(library).encode(frame) == wire
    assert wire.count(0) == 1
    assert Codec(library).push(wire) == Decoder().push(wire) == [frame]


@given(st.lists(frames, max_size=4), st.randoms(use_true_random=False))
def test_c_and_python_agree_on_damaged_streams(library, sent, rng):
    wire = bytearray(b"".join(frame.to_bytes() for frame in sent))
    for _ in range(rng.randrange(4)):
        at = rng.randrange(len(wire) + 1)
        wire[at : at + rng.randrange(3)] = rng.randbytes(rng.randrange(3))
    ours, theirs = Codec(library), Decoder()
    assert ours.push(bytes(wire)) == theirs.push(bytes(wire))
    assert ours.refused == theirs.refused


def test_every_single_flipped_bit_is_detected(library):
    frame = Frame(2, 7, 123456, bytes(range(24)))
    wire = frame.to_bytes()
    assert len(wire) == 37
    for bit in range(8 * len(wire)):
        damaged = bytearray(wire)
        damaged[bit // 8] ^= 1 << bit % 8
        stream = bytes(damaged) + wire
        for decoder in (Decoder(), Codec(library)):
            found = decoder.push(stream)
            # A flipped zero byte joins both frames, which costs both.
            assert found == ([frame] if damaged[-1] == 0 else [])


def test_noise_without_an_end_does_not_fill_the_memory(library):
    rng = random.Random(0)
    noise = bytes(rng.randrange(1, 256) for _ in range(200_000))
    frame = Frame(1, 1, 1, b"payload")
    for decoder in (Decoder(), Codec(library)):
        assert decoder.push(noise) == []
        assert decoder.push(b"\0" + frame.to_bytes()) == [frame]
        assert decoder.refused >= 1
