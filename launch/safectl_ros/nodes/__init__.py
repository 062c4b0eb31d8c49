"""The nodes, each thin: logic without ROS is elsewhere."""

from importlib.util import find_spec

from safectl.errors import MissingExtra

if find_spec("rclpy") is None:  # `python -m safectl_ros.nodes.X` shows no traceback
    raise SystemExit(f"error: {MissingExtra('rclpy', 'ros')}")
