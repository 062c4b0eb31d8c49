"""A bare relay: what any node between planner and robot costs that does nothing."""

import sys

from geometry_msgs.msg import TwistStamped
from rclpy.node import Node

from safectl_ros.process import spin_node
from safectl_ros.qos import COMMAND


class Relay(Node):
    """Publishes on `cmd_vel_relayed` what comes on `cmd_vel_direct`."""

    def __init__(self) -> None:
        super().__init__("relay")
        relayed = self.create_publisher(TwistStamped, "cmd_vel_relayed", COMMAND)
        self.create_subscription(TwistStamped, "cmd_vel_direct", relayed.publish, COMMAND)


if __name__ == "__main__":
    sys.exit(spin_node(Relay))
