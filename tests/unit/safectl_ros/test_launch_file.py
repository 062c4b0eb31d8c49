"""Launch files: what each tag does to a command line, and one clear error for everything else."""

import shlex
import sys

import pytest

from safectl.errors import ConfigError
from safectl_ros.launch_file import read_launch_file
from safectl_ros.launchlite import assignments, show_arguments, show_commands


@pytest.fixture
def prefix(tmp_path):
    """An installed package `demo` with the executable `node`."""
    folder = tmp_path / "prefix" / "lib" / "demo"
    folder.mkdir(parents=True)
    (folder / "node").write_text("#!/bin/sh\n")
    (folder / "node").chmod(0o755)
    share = tmp_path / "prefix" / "share" / "demo"
    share.mkdir(parents=True)
    (share / "demo.yaml").write_text("/**: {ros__parameters: {rate_hz: 20.0}}\n")
    return tmp_path / "prefix"


@pytest.fixture
def read(tmp_path, prefix):
    def read(body, **arguments):
        path = tmp_path / "test.launch.xml"
        path.write_text(f"<launch>{body}</launch>")
        return read_launch_file(path, arguments, {"AMENT_PREFIX_PATH": str(prefix), "HOME": "/h"})

    return read


def words(plan, prefix, index=0):
    return [word.replace(str(prefix), "P") for word in plan.processes[index].command]


NODE = '<node pkg="demo" exec="node" name="n"'


def test_a_node_gets_name_namespace_parameters_and_remaps_in_the_order_of_ros2_launch(read, prefix):
    plan = read(
        f"""<set_parameter name="use_sim_time" value="true"/>
        <set_remap from="a" to="b"/>
        <push_ros_namespace namespace="robot"/>
        {NODE} namespace="arm" args="--fast 'two words'">
          <param from="$(find-pkg-share demo)/demo.yaml"/>
          <param name="rate_hz" value="50.0"/>
          <param name="limits"><param name="speed" value="[1.0, 2.0]"/></param>
          <remap from="cmd_vel" to="cmd_vel_safe"/>
        </node>"""
    )
    expected = (
        "P/lib/demo/node --fast 'two words' --ros-args -r __node:=n -r __ns:=/robot/arm "
        "-p use_sim_time:=true --params-file P/share/demo/demo.yaml -p rate_hz:=50.0 "
        "-p 'limits.speed:=[1.0, 2.0]' -r a:=b -r cmd_vel:=cmd_vel_safe"
    )
    assert words(plan, prefix) == shlex.split(expected)


@pytest.mark.parametrize(
    ("text", "typed"),
    [
        ("1", "1"),
        ("1.5", "1.5"),
        ("true", "true"),
        ("word", '"word"'),
        ("'1'", '"1"'),
        ("", '""'),
        ("[a, b]", '["a", "b"]'),
        ("'{render: no}'", '"{render: no}"'),
    ],
)
def test_a_parameter_keeps_the_type_that_yaml_gives_it(read, prefix, text, typed):
    plan = read(f'{NODE}><param name="x" value="{text}"/></node>')
    assert words(plan, prefix)[-1] == f"x:={typed}"


def test_arguments_override_defaults_and_let_is_computed_from_them(read, prefix):
    body = f"""<arg name="who" default="one" description="a name"/>
        <let name="full" value="$(var who)-$(env HOME)-$(env NONE '')"/>
        {NODE}><param name="x" value="$(var full)"/></node>"""
    assert words(read(body), prefix)[-1] == 'x:="one-/h-"'
    assert words(read(body, who="two"), prefix)[-1] == 'x:="two-/h-"'
    assert show_arguments(read(body)) == "who:=one  a name\n"


def test_conditions_drop_tags_and_not_inverts(read):
    body = f'<arg name="on" default="true"/>{NODE} if="$(var on)"/>{NODE} unless="$(var on)"/>'
    body += f'{NODE} if="$(not $(var on))"/>'
    assert len(read(body).processes) == 1
    assert len(read(body, on="false").processes) == 2


def test_a_group_keeps_its_namespace_variables_and_settings_to_itself(read, prefix):
    plan = read(
        f"""<group><push_ros_namespace namespace="inner"/><set_env name="A" value="1"/>{NODE}/>
        <set_parameter name="p" value="1"/><set_remap from="a" to="b"/></group>{NODE}/>"""
    )
    assert "__ns:=/inner" in words(plan, prefix)
    assert plan.processes[0].environment == {"A": "1"}
    assert words(plan, prefix, 1) == ["P/lib/demo/node", "--ros-args", "-r", "__node:=n"]
    assert plan.processes[1].environment == {}


def test_an_included_file_receives_arguments(read, prefix, tmp_path):
    inner = f'<launch><arg name="x"/>{NODE}><param name="x" value="$(var x)"/></node></launch>'
    (tmp_path / "inner.launch.xml").write_text(inner)
    plan = read('<include file="$(dirname)/inner.launch.xml"><arg name="x" value="7"/></include>')
    assert words(plan, prefix)[-1] == "x:=7"


def test_executable_log_and_exit_options_are_read(read):
    plan = read(
        """<log message="hello"/>
        <executable cmd="sh -c 'exit 3'" name="job" respawn="true" respawn_delay="0.5">
          <env name="B" value="2"/></executable>
        <executable cmd="true" on_exit="shutdown"/>"""
    )
    job, end = plan.processes
    assert plan.messages == ("hello",)
    assert job.command == ("sh", "-c", "exit 3")
    assert (job.respawn_delay_s, job.ends_all, job.environment) == (0.5, False, {"B": "2"})
    assert (end.name, end.respawn_delay_s, end.ends_all) == ("true", None, True)


def test_programs_are_also_found_beside_this_python(read):
    name = sys.executable.rpartition("/")[2]
    assert read(f'<node pkg="demo" exec="{name}"/>').processes[0].command[0].startswith(sys.prefix)


BAD = {
    "<load_composable_node/>": "unsupported tag <load_composable_node>",
    "<nod/>": "did you mean 'node'",
    f'{NODE} machine="m"/>': "test.launch.xml <node>: unsupported attribute 'machine'",
    f"{NODE}><params/></node>": "<node>: unsupported tag <params>",
    f'{NODE}><param name="x"/></node>': "<param>: needs one of",
    f'{NODE}><param name="x" value="{{a: 1}}"/></node>': "is a mapping",
    f'{NODE}><param from="/none.yaml"/></node>': "/none.yaml does not exist",
    f'{NODE}><remap from="a"/></node>': "<remap>: needs the attribute 'to'",
    f'{NODE} respawn="maybe"/>': "no truth value",
    f'{NODE} respawn="true" on_exit="shutdown"/>': "contradict",
    f'{NODE} on_exit="restart"/>': "the only value is 'shutdown'",
    f'{NODE} output="file"/>': "output is 'file'",
    f'{NODE} respawn_delay="soon"/>': "no number of seconds",
    '<node exec="node"/>': "needs the attribute 'pkg'",
    '<node pkg="demo" exec="nodes"/>': "no executable 'nodes' of the package 'demo'",
    '<node pkg="demo" exec="$(eval 1)"/>': "unsupported substitution $(eval 1)",
    '<node pkg="demo" exec="$(var exce)"/>': "no argument or let named 'exce'",
    '<node pkg="demo" exec="$(var"/>': "does not close it",
    '<node pkg="demo" exec="$(env NOPE)"/>': "NOPE is not set",
    '<let name="a" value="$(find-pkg-share nope)"/>': "no ROS package 'nope'",
    '<arg name="must"/>': "give it as must:=VALUE",
    '<include file="/none.launch.xml"/>': "/none.launch.xml: cannot be read as XML",
    "<node>": "cannot be read as XML",
    """<executable cmd="echo 'x"/>""": "no closing quotation",
    f"""{NODE} args="'x"/>""": "no closing quotation",
    f'{NODE}><param name="x" value="2020-01-01"/></node>': "a date to YAML",
    '<executable cmd="a" respawn="true" respawn_delay="nan"/>': "no number of seconds",
    '<executable cmd="a" respawn="true" respawn_delay="inf"/>': "no number of seconds",
}


@pytest.mark.parametrize("body", BAD, ids=range(len(BAD)))
def test_everything_outside_the_subset_is_an_error_that_names_the_place(read, body):
    with pytest.raises(ConfigError) as caught:
        read(body)
    assert BAD[body] in str(caught.value)


def test_an_unknown_argument_names_the_nearest_one(read):
    with pytest.raises(ConfigError, match="did you mean 'guard'"):
        read('<arg name="guard" default="true"/>', gaurd="false")


def test_words_of_the_command_line_are_assignments():
    assert assignments(["a:=1", "b:=x:=y", "c:="]) == {"a": "1", "b": "x:=y", "c": ""}
    with pytest.raises(ConfigError, match="write key:=value"):
        assignments(["a=1"])


def test_printed_commands_can_be_pasted_into_a_shell(read, prefix):
    plan = read(f'<set_env name="A" value="a b"/>{NODE}><param name="x" value="c d"/></node>')
    printed = show_commands(plan).removesuffix("\n")
    assert shlex.split(printed)[:2] == ["[n]", "A=a b"]
    assert shlex.split(printed)[-1] == 'x:="c d"'


def test_a_file_that_includes_itself_is_an_error_and_one_that_is_included_twice_is_not(
    read, tmp_path
):
    inner = tmp_path / "inner.launch.xml"
    inner.write_text('<launch><log message="hello"/></launch>')
    include = '<include file="$(dirname)/inner.launch.xml"/>'
    assert read(include * 2).messages == ("hello", "hello")
    inner.write_text(f"<launch>{include}</launch>")
    with pytest.raises(ConfigError, match="includes itself"):
        read(include)
