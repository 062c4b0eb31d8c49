"""The runner: output, signals, exit statuses, respawning and the end of whole process groups."""

import os
import select
import signal
import sys

import pytest

from safectl_ros.launch_file import LaunchPlan, Process
from safectl_ros.launch_process import Supervisor
from safectl_ros.launchlite import launched, main

WAIT_S = 15.0


@pytest.fixture(autouse=True)
def interruptible():
    """Let children be interrupted even where these tests run in the background, which ignores it.

    `safectl launch` has a handler of its own; what is ignored, a shell cannot trap.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def shell(name, script, **options):
    return Process(name, ("sh", "-c", script), {}, **options)


def run(*processes, grace_s=5.0):
    lines = []
    plan = LaunchPlan(processes, (), ())
    status = Supervisor(plan, lambda *line: lines.append(line), grace_s).run()
    return status, lines


@pytest.fixture
def start(tmp_path):
    """Start a launch file of executables, `name="script"` each, in the background."""

    def start(*tags):
        path = tmp_path / "test.launch.xml"
        path.write_text(f"<launch>{''.join(tags)}</launch>")
        return launched(path)

    return start


def executable(name, script, extra=""):
    path = script.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    return f"""<executable name="{name}" cmd="sh -c '{path}'" {extra}/>"""


def ends(process_descriptor):
    """Wait for the end of a process that is not our child."""
    poll = select.poll()
    poll.register(process_descriptor, select.POLLIN)
    return bool(poll.poll(WAIT_S * 1000.0))


def test_output_is_passed_on_line_by_line_with_its_last_unfinished_line():
    _, lines = run(shell("a", "echo one; echo two >&2; printf three"))
    assert [text for name, text in lines if name == "a"] == ["one", "two", "three"]


def test_the_exit_status_is_that_of_the_first_failing_process():
    assert run(shell("a", "exit 0"), shell("b", "exit 0"))[0] == 0
    assert run(shell("a", "exit 3", ends_all=True), shell("b", "exec sleep 60"))[0] == 3


def test_death_by_a_signal_is_reported_as_a_shell_reports_it():
    assert run(shell("a", "kill -9 $$"))[0] == 128 + signal.SIGKILL


def test_a_program_that_does_not_exist_ends_the_rest():
    status, lines = run(shell("a", "exec sleep 60"), Process("b", ("/no/such/program",), {}))
    assert status == 127
    assert any(name == "b" and "cannot be started" in text for name, text in lines)


def test_the_environment_is_passed_and_output_is_unbuffered():
    process = Process("a", ("sh", "-c", "echo $X $PYTHONUNBUFFERED"), {"X": "7"})
    assert ("a", "7 1") in run(process)[1]


def test_a_process_that_ignores_interrupts_is_terminated_then_killed(tmp_path):
    ready = tmp_path / "ready"
    stubborn = f"trap '' INT TERM; touch {ready}; while :; do sleep 0.05; done"
    ending = f"until [ -e {ready} ]; do sleep 0.01; done"
    status, _ = run(shell("a", ending, ends_all=True), shell("b", stubborn), grace_s=0.2)
    assert status == 128 + signal.SIGKILL


def test_stop_interrupts_every_process_and_lets_it_finish(start):
    script = 'trap "echo bye; exit 0" INT; echo up; while :; do sleep 0.05; done'
    with start(executable("a", script)) as running:
        running.supervisor.grace_s = WAIT_S
        running.wait_for_output("a", "up", timeout_s=WAIT_S)
        assert running.stop() == 0
    assert "[a] bye\n" in running.output("a")


def test_a_killed_process_is_started_again_where_the_file_says_so(start):
    script = "echo up $$; exec sleep 60"
    with start(executable("a", script, 'respawn="true" respawn_delay="0.05"')) as running:
        running.wait_for_output("a", "up", timeout_s=WAIT_S)
        first = running.pid("a")
        os.kill(first, signal.SIGKILL)
        running.wait_for_output("launch", "a ended with status 137", timeout_s=WAIT_S)
        running.wait_until(lambda: running.output("a").count("up") == 2, timeout_s=WAIT_S)
        assert running.pid("a") != first


def test_what_a_process_leaves_behind_in_its_group_is_killed(start):
    with start(executable("a", "sleep 60 & echo child $!; wait")) as running:
        running.wait_for_output("a", "child", timeout_s=WAIT_S)
        child = os.pidfd_open(int(running.output("a").split()[-1]))
        os.kill(running.pid("a"), signal.SIGKILL)
        assert ends(child)
    os.close(child)


def test_waiting_for_output_that_does_not_come_shows_what_did(start):
    with start(executable("a", "echo this; exec sleep 60")) as running:
        running.wait_for_output("a", "this", timeout_s=WAIT_S)
        with pytest.raises(TimeoutError, match=r"\[a\] this"):
            running.wait_for_output("a", "that", timeout_s=0.01)


def test_the_command_prints_lists_arguments_and_explains_itself(tmp_path, capsys):
    path = tmp_path / "test.launch.xml"
    path.write_text('<launch><arg name="w" default="x"/><executable cmd="echo $(var w)"/></launch>')
    assert main([str(path), "w:=y", "--print"]) == 0
    assert capsys.readouterr().out == "[echo] echo y\n"
    assert main([str(path), "--show-args"]) == 0
    assert capsys.readouterr().out == "w:=x  \n"
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
    assert main([str(tmp_path / "none.xml")]) == 1
    assert "no such launch file" in capsys.readouterr().err


def test_the_command_runs_a_file_and_returns_its_status(tmp_path, capsys):
    path = tmp_path / "test.launch.xml"
    path.write_text(f"""<launch><executable cmd="{sys.executable} -c 'exit(4)'"/></launch>""")
    assert main([str(path)]) == 4
    assert "ended with status 4" in capsys.readouterr().out
