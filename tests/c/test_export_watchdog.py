"""The watchdog in C against its twin in Python, and the watched step of a controller."""

import ctypes
import subprocess
from importlib.resources import files

import numpy as np
import pytest

from safectl.errors import RangeError
from safectl.export import Mode, Watchdog, emit_c, example_observations, interpret
from safectl.export.emit_c import C_FLAGS
from safectl.export.program import MARGIN_UNKNOWN
from safectl.types import Status

WORD = 2**32
COMPILE_TIMEOUT_S = 120


class CWatchdog(ctypes.Structure):
    _fields_ = (
        ("mode", ctypes.c_int),
        *((name, ctypes.c_uint32) for name in ("limit", "stamp", "seen", "trips")),
    )


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    source = files("safectl.export") / "runtime" / "sf_watchdog.c"
    path = tmp_path_factory.mktemp("watchdog") / "watchdog.so"
    subprocess.run(
        ["gcc", *C_FLAGS, "-O2", "-shared", "-fPIC", str(source), "-o", path],
        check=True,
        timeout=COMPILE_TIMEOUT_S,
    )
    return ctypes.CDLL(str(path))


@pytest.mark.parametrize("seed", range(8))
def test_random_events_leave_c_and_python_in_the_same_state(library, seed):
    rng = np.random.default_rng(seed)
    limit = int(rng.integers(0, 50)) if seed % 2 else int(rng.integers(0, 2**31))
    ours, theirs = Watchdog(limit), CWatchdog()
    library.sf_watchdog_init(ctypes.byref(theirs), ctypes.c_uint32(limit))
    now = int(rng.integers(WORD - 3000, WORD))  # the counter overflows on the way
    ran = 0
    for _ in range(3000):
        now = (now + int(rng.integers(0, 30 if seed % 2 else 2**29))) % WORD
        spread = 80 if seed % 2 else 2**31
        stamp = (now - int(rng.integers(-5, spread))) % WORD
        event = rng.choice(
            ["run", "observe", "check", "arm", "stop"], p=[0.6, 0.1, 0.1, 0.18, 0.02]
        )
        arguments = {"run": (stamp, now), "observe": (stamp, now), "stop": ()}.get(event, (now,))
        expected = getattr(ours, event)(*arguments)
        found = getattr(library, f"sf_watchdog_{event}")(
            ctypes.byref(theirs), *map(ctypes.c_uint32, arguments)
        )
        assert event == "stop" or bool(found) == expected
        assert (theirs.mode, theirs.trips) == (ours.mode, ours.trips)
        ran += ours.mode == Mode.RUNNING
    assert ours.trips > 10
    assert ran > 50


def test_it_starts_stopped_and_runs_only_after_arming_with_a_fresh_observation():
    watchdog = Watchdog(10)
    assert not watchdog.run(100, 100)
    assert watchdog.mode == Mode.STOPPED
    assert not Watchdog(10).arm(100)
    assert watchdog.arm(110)
    assert watchdog.run(111, 112)


def test_a_stale_observation_trips_it_until_it_is_armed_again():
    watchdog = Watchdog(10)
    watchdog.observe(100, 100)
    assert watchdog.arm(100)
    assert not watchdog.run(100, 111)
    assert watchdog.mode == Mode.TRIPPED
    assert not watchdog.run(112, 112)
    assert watchdog.arm(113)
    assert watchdog.run(114, 114)
    assert watchdog.trips == 1


def test_silence_trips_it_within_the_limit_and_one_tick():
    watchdog = Watchdog(10)
    watchdog.observe(0, 0)
    watchdog.arm(0)
    assert [watchdog.check(now) for now in range(9, 13)] == [True, True, False, False]


def test_repeated_delayed_and_future_observations_are_no_news():
    watchdog = Watchdog(10)
    assert watchdog.observe(100, 100)
    assert not watchdog.observe(100, 105)
    assert not watchdog.observe(95, 105)
    assert not watchdog.observe(106, 105)
    watchdog.arm(105)
    assert not watchdog.run(94, 105), "this observation is stale, whatever came before it"


def test_an_action_is_computed_from_the_newest_observation_alone():
    watchdog = Watchdog(10)
    watchdog.observe(100, 100)
    watchdog.arm(100)
    assert watchdog.run(108, 108)
    assert watchdog.run(108, 109), "again, as of a slow sensor"
    assert not watchdog.run(101, 110), "delayed, though not stale"
    assert watchdog.mode == Mode.RUNNING
    assert watchdog.run(111, 111)


def test_what_was_stale_does_not_look_fresh_when_the_counter_has_gone_round():
    watchdog = Watchdog(10)
    watchdog.observe(108, 108)
    watchdog.stop()
    for now in range(108, 108 + WORD, 2**30):
        assert not watchdog.check(now % WORD)
    assert not watchdog.arm(111)


def test_a_limit_that_no_difference_of_ticks_can_tell_is_refused():
    with pytest.raises(RangeError, match="2\\^31"):
        Watchdog(2**31)


def test_a_watched_controller_is_one_call(small_guarded, tmp_path):
    folder = tmp_path / "c"
    emit_c(small_guarded, folder)
    target = folder / "watched.so"
    command = ["gcc", *C_FLAGS, "-O2", "-shared", "-fPIC", *sorted(folder.glob("*.c"))]
    subprocess.run([*command, "-I", folder, "-o", target], check=True, timeout=COMPILE_TIMEOUT_S)
    library = ctypes.CDLL(str(target))
    state, watchdog = ctypes.create_string_buffer(4096), CWatchdog()
    library.sf_guarded_init(state)
    library.sf_watchdog_init(ctypes.byref(watchdog), ctypes.c_uint32(2))
    rows = example_observations(small_guarded, 6)
    expected = interpret(small_guarded, rows)
    action, certificate = np.zeros(2, np.float32), (ctypes.c_float * 2)()

    def step(row, stamp, now):
        status = library.sf_guarded_watched_step(
            state,
            ctypes.byref(watchdog),
            ctypes.c_void_p(rows[row].ctypes.data),
            *(ctypes.c_uint32(tick % WORD) for tick in (stamp, now)),
            ctypes.c_void_p(action.ctypes.data),
            certificate,
        )
        return Status(status)

    def is_fail_safe():
        same = np.array_equal(action, small_guarded.constants["fail_safe"])
        return same and certificate[1] == np.float32(MARGIN_UNKNOWN)

    assert step(0, 0, 0) == Status.FALLBACK
    assert is_fail_safe()
    assert library.sf_watchdog_arm(ctypes.byref(watchdog), ctypes.c_uint32(1)) == 1
    for row, tick in ((1, 2), (2, 3)):
        assert step(row, tick, tick + 1) == expected.status[row]
        assert np.array_equal(action, expected.action[row])
    assert step(3, 4, 7) == Status.FALLBACK
    assert is_fail_safe()
    assert step(4, 8, 8) == Status.FALLBACK, "it stays tripped"
    assert library.sf_watchdog_arm(ctypes.byref(watchdog), ctypes.c_uint32(8)) == 1
    assert step(5, 9, 9) == expected.status[5]
