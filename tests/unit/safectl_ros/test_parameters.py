"""Parameters are described, ranged and checked; unknown ones are an error."""

import math

import pytest
from rcl_interfaces.msg import Parameter as ParameterMessage
from rcl_interfaces.msg import ParameterValue
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.node import Node
from rclpy.parameter import Parameter as RosParameter

from safectl.errors import ConfigError
from safectl_ros.parameters import Parameter, declare
from safectl_ros.process import RosThread
from tests.ros_graph import DISCOVERY_S

PARAMETERS = (
    Parameter("rate_hz", 50.0, "output rate [Hz]", low=1.0, high=500.0, read_only=True),
    Parameter("steps", 3, "number of steps", low=1, high=9),
    Parameter("mode", "realtime", "how time passes", choices=("realtime", "lockstep")),
    Parameter("gain", 1.0, "without a range"),
    Parameter("axes", [1.0, 2.0], "a list"),
)


@pytest.fixture
def make_node(ros_domain):
    threads = []

    def make(*words):
        arguments = ["--ros-args"] + [item for word in words for item in ("-p", word)]
        threads.append(
            RosThread(lambda context: Node("robot", context=context), arguments=arguments)
        )
        return threads[-1].node

    yield make
    for thread in threads:
        thread.close()


def test_defaults_and_overrides_become_values(make_node):
    values = declare(make_node("steps:=5", "mode:=lockstep", "use_sim_time:=true"), PARAMETERS)
    assert values["rate_hz"] == 50.0
    assert (values["steps"], values["mode"]) == (5, "lockstep")
    assert list(values["axes"]) == [1.0, 2.0]


def test_a_whole_number_is_good_enough_for_a_fraction(make_node):
    assert declare(make_node("rate_hz:=20"), PARAMETERS)["rate_hz"] == 20.0


@pytest.mark.parametrize(
    ("word", "problem"),
    [
        ("rate:=20.0", "unknown parameter 'rate'; did you mean 'rate_hz'?"),
        ("rate_hz:=0.0", "rate_hz"),
        ("rate_hz:=fast", "rate_hz"),
        ("rate_hz:=true", "rate_hz"),
        ("rate_hz:=.nan", "out of range"),
        ("gain:=.inf", "expected a finite number"),
        ("steps:=10", "steps"),
        ("steps:=2.5", "steps"),
        ("mode:=realtim", "did you mean 'realtime'?"),
    ],
)
def test_an_override_that_cannot_be_used_is_one_clear_error(make_node, word, problem):
    with pytest.raises(ConfigError, match="parameters of robot") as caught:
        declare(make_node(word), PARAMETERS)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rate_hz", 60.0), ("steps", 0), ("mode", "slow"), ("gain", math.nan), ("gain", "x")],
)
def test_a_later_change_is_checked_too(make_node, name, value):
    node = make_node()
    before = declare(node, PARAMETERS)[name]
    (result,) = node.set_parameters([RosParameter(name, value=value)])
    assert not result.successful
    assert result.reason
    assert node.get_parameter(name).value == before


def test_the_description_reaches_the_graph(make_node):
    node = make_node()
    declare(node, PARAMETERS)
    descriptor = node.describe_parameter("rate_hz")
    assert descriptor.description == "output rate [Hz]"
    assert descriptor.read_only
    assert descriptor.floating_point_range[0].to_value == 500.0
    assert node.describe_parameter("mode").additional_constraints == "one of realtime, lockstep"


@pytest.mark.parametrize("is_atomic", [False, True])
def test_a_value_of_no_known_type_is_refused_and_the_node_goes_on(make_node, probe, is_atomic):
    node = make_node()
    declare(node, PARAMETERS)
    kind = SetParametersAtomically if is_atomic else SetParameters
    name = "set_parameters_atomically" if is_atomic else "set_parameters"
    client = probe.node.create_client(kind, f"robot/{name}")
    assert client.wait_for_service(DISCOVERY_S)
    strange = ParameterMessage(name="steps", value=ParameterValue(type=42))
    answer = probe.call(client, kind.Request(parameters=[strange]), DISCOVERY_S)
    result = answer.result if is_atomic else answer.results[0]
    assert (result.successful, result.reason) == (False, "'steps' has no known type")
    good = RosParameter("steps", value=4).to_parameter_msg()
    answer = probe.call(client, kind.Request(parameters=[good]), DISCOVERY_S)
    assert (answer.result if is_atomic else answer.results[0]).successful
    assert node.get_parameter("steps").value == 4
