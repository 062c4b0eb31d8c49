"""The nodes, each thin: logic without ROS is elsewhere."""

from safectl.errors import MissingExtra

try:
    import rclpy  # noqa: F401  asked for before the modules that need it
except ModuleNotFoundError as error:  # `python -m safectl_ros.nodes.X` shows no traceback
    raise SystemExit(f"error: {MissingExtra('rclpy', 'ros')}") from error
